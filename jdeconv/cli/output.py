"""Ends a command quietly when its reader has closed the pipe, as in `python -m jdeconv check | head`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def exit_code(main: Callable[[], int]) -> int:
    """Run a command and return its exit code, which is 1 if nobody reads its output any more."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()  # Python would do so later, where nobody can catch the error.
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
