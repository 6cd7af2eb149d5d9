"""Random problems against the definition, a few of those that `check --fuzz` runs by the thousand."""

import itertools
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from thinned import thinned

from jdeconv import api
from jdeconv.__main__ import main
from jdeconv.cli import fuzz
from jdeconv.cli.definition import compare
from jdeconv.cli.problem import DTYPES, FLOATS, Problem
from jdeconv.form import CONTRACTIONS


@given(fuzz.problems())
@settings(derandomize=True, max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_problems(problem):
    assert Problem.read(str(problem)) == problem
    compare(problem)


def test_a_campaign_that_is_clean(capsys):
    assert main(["check", "--fuzz", "5", "--seed", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "5 problems, 0 failures"


def test_a_campaign_finds_a_fault_and_says_how_to_see_it_again(monkeypatch, capsys):
    """A tap that lies three apart is taken for its neighbor; that needs a window of two."""
    right = api.conv
    monkeypatch.setattr(api, "conv", lambda x, k, **o: right(x, k, **o | {"dilation": 1}))
    assert main(["check", "--fuzz", "60"]) == 1
    text = capsys.readouterr().out
    found = re.search(r"python -m jdeconv check --replay '(.*)'", text)
    assert found
    assert re.fullmatch(r"[1-9]\d* problems, stopped at a failure", text.splitlines()[-1])
    assert main(["check", "--replay", found[1]]) == 1
    assert re.search(r"(the result is|numbers of|larger than)", capsys.readouterr().out)
    monkeypatch.undo()
    assert main(["check", "--replay", found[1]]) == 0


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"call": "conv"})])
def test_what_is_no_problem_is_refused(text, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", "--replay", text])
    assert stop.value.code == 2
    assert "argument --replay: " in capsys.readouterr().err


VALID = {
    "call": "deconv", "gradient": False, "big": [5, 27], "kernel": [3, 13], "stride": [5, 1],
    "dilation": [4, 1], "padding": [[7, -2], [3, 7]], "padding_mode": "zeros", "groups": 1, "n": 2, "c": 3,
    "o": 1, "layout": ["HWCN", "HIWO", "CNWH"], "dtype": "int8", "lowering": None, "maps": [[2, None]],
    "mapped": 3, "seed": 7,
}  # fmt: skip
WRONG = {
    "call": ("convolve", None, ["conv"]),
    "gradient": (1, None, True),  # of integers there is none
    "big": ([5], [0, 27], "5", None, [5.0, 27], [2, 27]),
    "kernel": ([0, 13], {"a": 1}, [99, 13]),
    "stride": ([5, 0], [5], 1.5),
    "padding": ("same", [[7, -2]], [[7, -2], [3]], [[-9, -9], [0, 0]]),
    "padding_mode": ("mirror", None),
    "groups": (0, True, "1"),
    "n": (-1, 2.0, True),
    "c": (-1, None),
    "o": (1.0, True),
    "dilation": ([4, 0], None),
    "layout": ("HWCN", ["HWCN", "HIWO"], ["HWCN", "HIWO", "CNWW"], ["HWCN", "HIWO", 3]),
    "dtype": ("float8", "bool", None),
    "lowering": ("fastest", "winograd", 0),
    "maps": ([[4, 9]], [[None, None]], [[2]], [2], None, [[-1, 0]]),
    "mapped": (-1, None),
    "seed": (-1, 0.5),
}


@pytest.mark.parametrize(
    ("field", "value"), [(f, v) for f, values in WRONG.items() for v in values]
)
def test_a_field_of_a_problem_that_cannot_be_is_named(field, value, capsys):
    assert Problem.read(json.dumps(VALID)).mapped == 3
    with pytest.raises(SystemExit) as stop:
        main(["check", "--replay", json.dumps(VALID | {field: value})])
    assert stop.value.code == 2
    # A kernel, a stride and an input that do not fit are told of the padding.
    named = f"({field}|padding)" if field in ("big", "kernel") else field
    assert re.search(rf"argument --replay: (\S+: )?{named} ", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--fuzz", "0"], "argument --fuzz: needs at least 1"),
        (["--fuzz", "2", "--replay", json.dumps(VALID)], "not allowed with argument --fuzz"),
        (["--replay", "[" * 100_000], "argument --replay: "),
    ],
)
def test_options_that_cannot_be_are_refused(options, text, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", *options])
    assert stop.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--fuzz", "2"], ["--replay", json.dumps(VALID)]])
def test_a_lowering_beside_random_problems_is_refused(options, capsys):
    assert main(["check", *options, "--lowering", "im2col"]) == 2
    assert "have lowerings of their own" in capsys.readouterr().err


def test_without_hypothesis_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.delitem(__import__("sys").modules, "jdeconv.cli.fuzz")
    monkeypatch.delattr("jdeconv.cli.fuzz")
    monkeypatch.setitem(__import__("sys").modules, "hypothesis", None)
    assert main(["check", "--fuzz", "5"]) == 2
    assert "pip install 'jdeconv[fuzz]'" in capsys.readouterr().err


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
