"""python -m jdeconv: see what it does, and check it on this machine."""

from __future__ import annotations

import argparse
import signal
import sys

from jdeconv import __version__
from jdeconv.cli import check, demo


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jdeconv",
        description="Convolution and transposed convolution for JAX. Each is the backward pass of the other.",
    )
    parser.add_argument("--version", action="version", version=f"jdeconv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (demo, check):
        command.add_parser(commands).set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    return options.run(options)


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader such as `head` may close the pipe
    sys.exit(main())
