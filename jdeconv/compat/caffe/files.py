"""The bytes of Caffe's files, and how much a net may be."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from jdeconv.checks import refused, shown

MAX_NUMBERS = 1 << 29
"""In one blob: 2 GiB of float32. Caffe's own limit is four times as much."""
MAX_LAYERS = 1 << 13
"""In one net: several times those of the deepest that are known, and about ten seconds to read."""
PROTOBUF = ("google.protobuf", "Caffe files need protobuf")
"""For `needed`."""


def read_bytes(argument: str, path: str | os.PathLike) -> bytes:
    """A file's bytes."""
    if not isinstance(path, str | os.PathLike):
        raise refused(argument, f"must be a path, got {shown(path)}", TypeError)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a zero byte in a name is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise refused(argument, f"{str(path)!r}: {reason}") from None


def needed(module: str, what: str) -> Any:
    """A module of the extra "caffe"; the error without it says what needs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        reason = f'{what}: pip install ".[caffe]" in the source tree'
        raise ModuleNotFoundError(reason, name=module) from None
