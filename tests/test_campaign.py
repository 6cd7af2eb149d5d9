"""Random problems against the definition, a few of those that `tests.campaign` runs by the thousand."""

import itertools
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from thinned import thinned

from jdeconv import api
from jdeconv.form import CONTRACTIONS
from tests import campaign
from tests.definition import compare
from tests.problem import DTYPES, FLOATS, Problem


@given(campaign.problems())
@settings(derandomize=True, max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_problems(problem):
    assert Problem.read(str(problem)) == problem
    compare(problem)


def test_a_campaign_that_is_clean(capsys):
    assert campaign.main(["5", "--seed", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "5 problems, 0 failures"


@pytest.mark.slow
def test_a_campaign_finds_a_fault_and_says_how_to_see_it_again(monkeypatch, capsys):
    """A tap that lies three apart is taken for its neighbor; that needs a window of two."""
    right = api.conv
    monkeypatch.setattr(api, "conv", lambda x, k, **o: right(x, k, **o | {"dilation": 1}))
    assert campaign.main(["60"]) == 1
    text = capsys.readouterr().out
    found = re.search(r"python -m tests.campaign --replay '(.*)'", text)
    assert found
    assert re.fullmatch(r"[1-9]\d* problems, stopped at a failure", text.splitlines()[-1])
    assert campaign.main(["--replay", found[1]]) == 1
    assert re.search(r"(the result is|numbers of|larger than)", capsys.readouterr().out)
    monkeypatch.undo()
    assert campaign.main(["--replay", found[1]]) == 0


@pytest.mark.parametrize("text", ["{", "{}", json.dumps({"call": "conv"})])
def test_what_is_no_problem_is_refused(text, ends_with_2):
    ends_with_2(campaign.main, ["--replay", text], "argument --replay: ")


VALID = {
    "call": "deconv", "gradient": False, "big": [5, 27], "kernel": [3, 13], "stride": [5, 1],
    "dilation": [4, 1], "padding": [[7, -2], [3, 7]], "padding_mode": "zeros", "groups": 1, "n": 2, "c": 3,
    "o": 1, "layout": ["HWCN", "HIWO", "CNWH"], "dtype": "int8", "lowering": None, "maps": [[2, None]],
    "mapped": 3, "seed": 7,
}  # fmt: skip


@pytest.mark.parametrize(
    ("call", "dtype", "padding_mode"),
    thinned(itertools.product(CONTRACTIONS, DTYPES, ("zeros", "circular")), 7),
)
def test_a_tap_that_is_lost_is_noticed(call, dtype, padding_mode, monkeypatch):
    """Of values as of gradients, in half precision too, where these are rounded before they are summed."""
    fields = {"call": call, "dtype": dtype, "gradient": dtype in FLOATS, "kernel": [2, 3]}
    fields |= {"padding_mode": padding_mode, "padding": [[1, 0], [2, 1]], "stride": [2, 1]}
    fields |= {"dilation": [1, 1], "big": [5, 7]}
    problem = Problem.read(json.dumps(VALID | fields))
    compare(problem)
    right = getattr(api, call)

    def lost(a, b, **options):
        if call == "kernel_grad":
            return right(a, b, **options).at[0].set(0)  # the kernel's first axis is H
        return right(a, b.at[0].set(0), **options)

    monkeypatch.setattr(api, call, lost)
    with pytest.raises(AssertionError, match="are wrong"):
        compare(problem)
