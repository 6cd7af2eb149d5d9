"""A net's weights in Caffe's two kinds of file: caffemodel, and HDF5, where a blob is /data/<layer>/<index>.

What a file says of its sizes is compared with what is needed, and with the file's own size, before any number
is read, so that damaged files ask for no more memory than whole ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdeconv.checks import refused, shown
from jdeconv.compat.caffe.files import need_protobuf, needed, read_bytes
from jdeconv.compat.caffe.plan import Blob
from jdeconv.compat.caffe.schema import message_class

SIGNATURE = b"\x89HDF\r\n\x1a\n"
ENDINGS = (".h5", ".hdf5")
HDF5 = "weights in HDF5 need h5py"
MAX_MESSAGE = (1 << 31) - 1  # bytes, as protobuf counts them
BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises for damaged files."""


@dataclass(frozen=True)
class StoredBlob:
    """A blob as a file has it.

    Args:
      sizes: its shape. Old files have four sizes, and the first ones are 1 for a blob of fewer axes.
      values: its numbers, on one axis.
      is_old: whether the sizes are of the old kind.
    """

    sizes: tuple[int, ...]
    values: np.ndarray
    is_old: bool = False

    def fitted(self, shape: Sequence[int]) -> jax.Array | None:
        """The numbers in this shape as float32, or None where the blob has another."""
        needed = tuple(shape)
        if self.is_old:
            needed = (1,) * (4 - len(needed)) + needed
        if self.sizes != needed or self.values.size != np.prod(needed, dtype=object):
            return None
        # JAX may have more axes than the 64 of numpy.
        return jnp.asarray(self.values.astype(np.float32, copy=False)).reshape(tuple(shape))

    def __str__(self) -> str:
        return f"{list(self.sizes)} with {self.values.size} numbers"


Stored = dict[str, dict[int, StoredBlob]]
"""Blobs by their layer's name and their place among the layer's blobs."""


def read_params(
    path: str | os.PathLike, blobs: Mapping[str, Sequence[Blob]], file: str
) -> dict[str, list[np.ndarray]]:
    """The needed blobs of each layer that the file of weights has; `file` names the definition."""
    stored, params = _read(path), {}
    for name in blobs:
        if name not in stored:
            continue
        found, params[name] = stored[name], []
        for blob in blobs[name]:
            where = f"{str(path)!r}: layer {name!r}"
            if blob.index not in found or max(found) >= blob.count:
                reason = f"{where}: {len(found)} blobs, where {file} needs {blob.count}"
                raise refused("caffemodel", reason)
            value = found[blob.index].fitted(blob.shape)
            if value is None:
                came = f"{found[blob.index]}, needed is {list(blob.shape)}"
                raise refused("caffemodel", f"{where}, blob {blob.index}: {came}")
            params[name].append(value)
    if blobs and not params:
        reason = (
            f"{str(path)!r} has none of the net's layers, but {shown(sorted(map(str, stored)))}"
        )
        raise refused("caffemodel", reason)
    return params


def _read(path: str | os.PathLike) -> Stored:
    data = read_bytes("caffemodel", path)
    is_hdf5 = data.startswith(SIGNATURE) or str(path).endswith(ENDINGS)
    return _read_hdf5(path, len(data)) if is_hdf5 else _read_caffemodel(path, data)


def write_weights(
    path: str | os.PathLike, layers: Iterable[tuple[str, str, Sequence[Any]]]
) -> None:
    """Write each layer's name, type and blobs: as HDF5 where the path ends so, else as a caffemodel."""
    if not isinstance(path, str | os.PathLike):
        raise refused("path", f"must be a path, got {shown(path)}", TypeError)
    try:
        if str(path).endswith(ENDINGS):
            _write_hdf5(path, layers)
        else:
            _write_caffemodel(path, layers)
    except OSError as error:
        raise refused("path", f"{str(path)!r}: {error.strerror or error}") from None


def _read_caffemodel(path: str | os.PathLike, data: bytes) -> Stored:
    need_protobuf()
    from google.protobuf.message import DecodeError

    try:
        net = message_class("StoredNet").FromString(data)
    except DecodeError as error:
        reason = f"{str(path)!r} is no net's weights, or not all of them: {error}"
        raise refused("caffemodel", reason) from None
    layers = (*net.layers, *net.layer)
    return {layer.name: dict(enumerate(map(_stored, layer.blobs))) for layer in layers}


def _stored(message: Any) -> StoredBlob:
    data, kind = (message.double_data, "<f8") if message.double_data else (message.data, "<f4")
    values = np.frombuffer(data[: len(data) // int(kind[-1]) * int(kind[-1])], kind)
    if message.HasField("shape"):
        return StoredBlob(tuple(message.shape.dim), values)
    sizes = (message.num, message.channels, message.height, message.width)
    return StoredBlob(sizes, values, is_old=True)


def _write_caffemodel(path: str | os.PathLike, layers: Iterable) -> None:
    need_protobuf()
    net, count = message_class("StoredNet")(), 0
    for name, kind, blobs in layers:
        layer = net.layer.add(name=name, type=kind)
        for values in blobs:
            numbers = np.asarray(values, "<f4")
            count += numbers.nbytes
            if count > MAX_MESSAGE:
                reason = f"{str(path)!r}: a caffemodel holds 2 GiB at most; let the path end in .h5"
                raise refused("path", reason)
            blob = layer.blobs.add(data=numbers.tobytes())
            blob.shape.SetInParent()
            blob.shape.dim.extend(numbers.shape)
    Path(path).write_bytes(net.SerializeToString())


def _read_hdf5(path: str | os.PathLike, size: int) -> Stored:
    with needed(HDF5):
        import h5py
    found: Stored = {}
    left = size

    def visit(name: str, item: Any) -> None:
        nonlocal left
        layer, _, index = name.rpartition("/")
        if not isinstance(item, h5py.Dataset) or not layer:
            return
        if not index.isdecimal() or item.dtype.kind != "f" or item.is_virtual or item.external:
            raise ValueError(f"/data/{name} is no blob of floats")
        left -= item.size * item.dtype.itemsize
        if left < 0 or np.prod(item.chunks or (0,), dtype=object) * item.dtype.itemsize > size:
            raise ValueError(f"/data/{name} has more numbers, {item.shape}, than the file")
        blob = StoredBlob(tuple(item.shape), np.ravel(item[()]))
        found.setdefault(layer, {})[int(index)] = blob

    try:
        with h5py.File(path, "r") as file:
            data: Any = file["data"]
            data.visititems(visit)
    except BROKEN as error:
        reason = f"{str(path)!r} is no net's weights in HDF5, or not all of them: {error}"
        raise refused("caffemodel", reason) from None
    return found


def _write_hdf5(path: str | os.PathLike, layers: Iterable) -> None:
    with needed(HDF5):
        import h5py
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, _, blobs in layers:
            layer = data.require_group(name)
            for index, values in enumerate(blobs):
                layer.create_dataset(str(index), data=np.asarray(values, "<f4"))
