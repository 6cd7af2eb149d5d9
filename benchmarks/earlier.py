"""Runs an earlier commit of the package as a peer, in another process that runs a program when asked.

Two commits of a package cannot be imported side by side. The process imports `jdeconv` from the other worktree
and the benchmark from this one, so that both sides run the same networks on the same arrays.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Array, Case
from benchmarks.operations import Lax
from benchmarks.peers import AcceleratedPeer, JaxPeer, Program

ROOT = Path(__file__).parents[1]
START = """\
import sys
sys.path.insert(0, sys.argv[1])
import jdeconv
sys.path[0] = sys.argv[2]
from benchmarks import earlier
earlier.serve(jdeconv)
"""


class EarlierError(Exception):
    """The other worktree has no package that can take turns."""


class EarlierPeer(JaxPeer):
    """`jdeconv.accelerate` of the worktree at `path`."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", START, str(path.resolve()), str(ROOT)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        found = self._answer()
        if not Path(found).is_relative_to(path.resolve()):
            self.close()
            raise EarlierError(f"there is no jdeconv in it; {found} was imported")

    def program(self, case: Case, arrays: list[Array]) -> Program:
        """The case compiled in the other process, on arrays that are drawn there once more."""
        compiled, temporary = self._ask("program", case.name, case.dtype, case.layout)
        run, fetch = (functools.partial(self._ask, what, case.layout) for what in ("run", "fetch"))
        return _Remote(run, lambda out: out, lambda _: fetch(), compiled, temporary)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _ask(self, *question: Any) -> Any:
        with contextlib.suppress(BrokenPipeError):  # the answer says that the process has ended
            pickle.dump(question, self.process.stdin)
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        try:
            return pickle.load(self.process.stdout)
        except EOFError:
            code = self.process.wait()
            raise EarlierError(f"the process ended with code {code}") from None


class _Remote(Program):
    """A program of the other process, whose `run` returns the seconds that it took there."""

    def timed(self) -> tuple[float, Any]:
        """Seconds of one run; what it made stays there."""
        return self.start(), None


def serve(package: Any) -> None:
    """Answer questions on standard input until it is closed; all other output goes to standard error."""
    from benchmarks.architectures import small_steps

    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    peer, programs, results = AcceleratedPeer(Lax), {}, {}
    answer: Any = package.__file__
    while True:
        pickle.dump(answer, answers)
        answers.flush()
        try:
            what, *of = pickle.load(questions)
        except EOFError:
            return
        if what == "program":
            name, dtype, layout = of
            work = small_steps()[name]
            case = Case(name, "step", work, dtype, layout)
            made = peer.program(case, work.arrays(np.random.default_rng(0)))
            programs[layout] = made
            answer = made.compile_seconds, made.temporary_bytes
        elif what == "run":
            answer, results[of[0]] = programs[of[0]].timed()
        else:
            answer = list(map(np.asarray, programs[of[0]].fetch(results[of[0]])))
