"""Which cases of a test are quick."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[Any], quick: int | Collection[int]) -> list[Any]:
    """The cases as parameters of a test, all but the quick ones marked as slow.

    Args:
      cases: what the test is parametrized with.
      quick: the places of the quick cases, or a step: every so many cases one is quick.
    """
    return [
        case
        if (i % quick == 0 if isinstance(quick, int) else i in quick)
        else pytest.param(*_values(case), marks=pytest.mark.slow)
        for i, case in enumerate(cases)
    ]


def _values(case: Any) -> tuple:
    return case if isinstance(case, tuple) else (case,)
