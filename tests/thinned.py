"""Which cases of a test are quick."""

from collections.abc import Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[Any], step: int) -> list[Any]:
    """The cases as parameters of a test, of which every `step`-th is quick and the others are slow."""
    return [
        case if i % step == 0 else pytest.param(*_values(case), marks=pytest.mark.slow)
        for i, case in enumerate(cases)
    ]


def _values(case: Any) -> tuple:
    return case if isinstance(case, tuple) else (case,)
