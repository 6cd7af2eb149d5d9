"""Random problems against the definition, a few of those that `check --fuzz` runs by the thousand."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings

from jdeconv import functional
from jdeconv.__main__ import main
from jdeconv.cli import fuzz
from jdeconv.cli.problem import Problem, compare


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
    right = functional.conv
    monkeypatch.setattr(functional, "conv", lambda x, k, **o: right(x, k, **o | {"dilation": 1}))
    monkeypatch.setattr(functional, "deconv", lambda y, k, **o: y)
    monkeypatch.setattr(functional, "kernel_grad", lambda x, y, **o: y)
    assert main(["check", "--fuzz", "60"]) == 1
    text = capsys.readouterr().out
    found = re.search(r"python -m jdeconv check --replay '(.*)'", text)
    assert found
    assert text.splitlines()[-1] == "60 problems, stopped at a failure"
    assert main(["check", "--replay", found[1]]) == 1
    assert re.search(r"(the result|numbers of the result|gradient)", capsys.readouterr().out)
    monkeypatch.undo()
    assert main(["check", "--replay", found[1]]) == 0


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"call": "conv"})])
def test_what_is_no_problem_is_refused(text, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", "--replay", text])
    assert stop.value.code == 2
    assert "argument --replay: " in capsys.readouterr().err


def test_without_hypothesis_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.delitem(__import__("sys").modules, "jdeconv.cli.fuzz")
    monkeypatch.delattr("jdeconv.cli.fuzz")
    monkeypatch.setitem(__import__("sys").modules, "hypothesis", None)
    assert main(["check", "--fuzz", "5"]) == 2
    assert "pip install 'jdeconv[fuzz]'" in capsys.readouterr().err
