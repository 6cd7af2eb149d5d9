"""The bytes of Caffe's files, and how much a net may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jdeconv.checks import refused, shown

MAX_NUMBERS = 1 << 29
"""In one blob: 2 GiB of float32. Caffe's own limit is four times as much."""
MAX_LAYERS = 1 << 13
"""In one net: several times those of the deepest that are known, and about ten seconds to read."""


def read_bytes(argument: str, path: str | os.PathLike) -> bytes:
    """A file's bytes."""
    if not isinstance(path, str | os.PathLike):
        raise refused(argument, f"must be a path, got {shown(path)}", TypeError)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a zero byte in a name is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise refused(argument, f"{str(path)!r}: {reason}") from None


@contextmanager
def needed(what: str) -> Iterator[None]:
    """Within this, the error for a module that is missing says what needs it, and names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        reason = f'{what}: pip install ".[caffe]" in the source tree'
        raise ModuleNotFoundError(reason, name=error.name) from None


def need_protobuf() -> None:
    """Refuse to go on without protobuf."""
    with needed("Caffe files need protobuf"):
        import google.protobuf  # noqa: F401
