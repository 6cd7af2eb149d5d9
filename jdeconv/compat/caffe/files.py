"""The files of a net's weights, read into messages, or refused by name and place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdeconv.checks import refused, shown
from jdeconv.compat.caffe.schema import message_class

MAX_NUMBERS = 1 << 29
"""In one blob: 2 GiB of float32. Caffe's own limit is four times as much."""
MAX_LAYERS = 1 << 13
"""In one net: several times those of the deepest that are known, and about ten seconds to read."""


def read_caffemodel(path: str | os.PathLike) -> Any:
    """A net's weights, from their bytes."""
    need_protobuf()
    from google.protobuf.message import DecodeError

    try:
        return message_class("StoredNet").FromString(read_bytes("caffemodel", path))
    except DecodeError as error:
        reason = f"{str(path)!r} is no net's weights, or not all of them: {error}"
        raise refused("caffemodel", reason) from None


def blob(message: Any, shape: Sequence[int]) -> np.ndarray | None:
    """A stored blob's numbers, on one axis, or None where its shape is not this one.

    Files of old give four sizes, of which the first ones are 1 where the blob has fewer axes.
    """
    data = message.double_data or message.data
    if message.HasField("shape"):
        fits = list(message.shape.dim) == list(shape)
    else:
        found = [message.num, message.channels, message.height, message.width]
        fits = found == [1] * (4 - len(shape)) + list(shape)
    if not fits or len(data) != np.prod(shape, dtype=object):
        return None
    return np.asarray(data, np.float32)


def stored(message: Any) -> str:
    """What a stored blob says of itself."""
    sizes = message.shape.dim if message.HasField("shape") else [
        message.num, message.channels, message.height, message.width]  # fmt: skip
    return f"{list(sizes)} with {len(message.double_data or message.data)} numbers"


def read_bytes(argument: str, path: str | os.PathLike) -> bytes:
    """A file's bytes."""
    if not isinstance(path, str | os.PathLike):
        raise refused(argument, f"must be a path, got {shown(path)}", TypeError)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a zero byte in a name is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise refused(argument, f"{str(path)!r}: {reason}") from None


def need_protobuf() -> None:
    """Refuse to go on without protobuf, by the name of the extra that has it."""
    try:
        import google.protobuf  # noqa: F401
    except ModuleNotFoundError:
        reason = 'load needs protobuf: pip install "jdeconv[caffe]"'
        raise ModuleNotFoundError(reason, name="google.protobuf") from None
