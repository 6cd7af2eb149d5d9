"""Caffe's two kinds of file, read into messages, or refused by name and place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdeconv.checks import refused, shown
from jdeconv.compat.caffe.schema import V1_NAMES, message_class

MAX_NUMBERS = 1 << 29
"""In one blob: 2 GiB of float32. Caffe's own limit is four times as much."""
MAX_LAYERS = 1 << 13
"""In one net: several times those of the deepest that are known, and about ten seconds to read."""


def read_prototxt(path: str | os.PathLike) -> Any:
    """A net's definition, from its text."""
    _need_protobuf()
    from google.protobuf import text_format

    try:
        text = _bytes("prototxt", path).decode()
        return text_format.Parse(text, message_class("NetParameter")())
    except (UnicodeDecodeError, text_format.ParseError) as error:
        reason = f"{str(path)!r} is no net's definition: {error}"
        raise refused("prototxt", reason) from None


def read_caffemodel(path: str | os.PathLike) -> Any:
    """A net's weights, from their bytes."""
    _need_protobuf()
    from google.protobuf.message import DecodeError

    try:
        return message_class("NetParameter").FromString(_bytes("caffemodel", path))
    except DecodeError as error:
        reason = f"{str(path)!r} is no net's weights, or not all of them: {error}"
        raise refused("caffemodel", reason) from None


class LayerMessage:
    """A layer's message, of today's kind or V1, under today's names."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self.type = _v1_name(message) if message.DESCRIPTOR.name[:2] == "V1" else message.type

    def __getattr__(self, name: str) -> Any:
        if name not in self._message.DESCRIPTOR.fields_by_name and name.endswith("_param"):
            return getattr(
                message_class("LayerParameter")(), name
            )  # V1 has no such field: defaults
        return getattr(self._message, name)

    @property
    def shared(self) -> list[str]:
        """For each blob, the name under which layers share it; empty for none."""
        return [p if isinstance(p, str) else p.name for p in self._message.param]

    @property
    def in_test(self) -> bool:
        """Whether it is part of the net in phase TEST, level 0, without stages."""
        message = self._message
        if "phase" in message.DESCRIPTOR.fields_by_name and message.HasField("phase"):
            return message.phase == 1
        if message.include:
            return any(map(_holds, message.include))
        return not any(map(_holds, message.exclude))


def _holds(rule: Any) -> bool:
    """Whether a NetStateRule is one of phase TEST, level 0, without stages."""
    phase = not rule.HasField("phase") or rule.phase == 1
    low = not rule.HasField("min_level") or rule.min_level <= 0
    high = not rule.HasField("max_level") or rule.max_level >= 0
    return phase and low and high and not rule.stage


def layers(net: Any) -> list[LayerMessage]:
    """All layers of a net's message, whichever kind it holds."""
    return [LayerMessage(message) for message in (*net.layer, *net.layers)]


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


def _v1_name(message: Any) -> str:
    name: str = (
        message.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[message.type].name
    )
    return V1_NAMES.get(name, name)


def _bytes(argument: str, path: str | os.PathLike) -> bytes:
    if not isinstance(path, str | os.PathLike):
        raise refused(argument, f"must be a path, got {shown(path)}", TypeError)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a zero byte in a name is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise refused(argument, f"{str(path)!r}: {reason}") from None


def _need_protobuf() -> None:
    try:
        import google.protobuf  # noqa: F401
    except ModuleNotFoundError:
        reason = 'load needs protobuf: pip install "jdeconv[caffe]"'
        raise ModuleNotFoundError(reason, name="google.protobuf") from None
