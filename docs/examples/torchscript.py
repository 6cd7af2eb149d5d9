"""The tensors of a TorchScript archive, read without torch and without running anything that it holds.

The archive is a zip with a pickle, whose objects name raw arrays beside it. A pickle is a program that can call
anything; this reader knows the few classes that tensors need and refuses every other by name. The code of the
network, in the archive too, is left unread.

Source: https://github.com/pytorch/pytorch/blob/main/torch/csrc/jit/docs/serialization.md
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from jdeconv.checks import refused, reporting

LIMIT = 2**30
STORAGES = {
    ("torch", "FloatStorage"): "<f4",
    ("torch", "DoubleStorage"): "<f8",
    ("torch", "HalfStorage"): "<f2",
    ("torch", "LongStorage"): "<i8",
    ("torch", "IntStorage"): "<i4",
}
MALFORMED = (  # what pickle raises for bytes that are no pickle, as its documentation and trials tell
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
)


@reporting()
def read_torchscript(path: Path, limit: int = LIMIT) -> dict[str, np.ndarray]:
    """Every tensor by its name, as `torch.jit.load(path).state_dict()` would name it.

    A module that occurs twice is listed under its first name.

    Args:
      path: the archive, of torch.jit.save.
      limit: bytes that may be read, counted each time a tensor names its array.

    Raises:
      OSError: where the file cannot be opened.
      ValueError: for what is no such archive, for a class that no tensor needs, and beyond the limit; the text
        names the file and what was found in it.
    """
    with open(path, "rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                return _tensors(_Entries(str(path), archive, limit))
        # The last is of a seek to where the directory says, which may be before the beginning.
        except (zipfile.BadZipFile, EOFError, RuntimeError, UnicodeDecodeError, OSError) as error:
            reason = f"no TorchScript: {error}"
            raise refused("path", f"{str(path)!r}: {reason}") from None


def _tensors(entries: _Entries) -> dict[str, np.ndarray]:
    data = entries.read("data.pkl")
    try:
        # A memo's slot is a number that the file chooses and pickle makes room for up to it.
        for code, argument, _ in pickletools.genops(data):
            if "PUT" in code.name and int(argument) > len(data):
                raise entries.refuse(f"data.pkl wants memo slot {argument}")
        root = _Unpickler(data, entries).load()
    except MALFORMED as error:
        if hasattr(error, "argument"):
            raise
        raise entries.refuse(f"data.pkl is no pickle of modules: {error}") from None
    if not isinstance(root, _Module):
        raise entries.refuse(f"data.pkl holds a {type(root).__name__}; expected a module")
    return _flat(root)


def _flat(root: _Module) -> dict[str, np.ndarray]:
    tensors, seen, todo = {}, set(), [("", root)]
    while todo:  # not by recursion: the file decides the depth
        prefix, module = todo.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for name, value in vars(module).items():
            if isinstance(value, np.ndarray):
                tensors[f"{prefix}{name}"] = value
            elif isinstance(value, _Module):
                todo.append((f"{prefix}{name}.", value))
    return tensors


class _Module:
    """An object of the archive's own classes: a bag of attributes."""


class _Entries:
    """The entries of the archive, whose names share one first folder."""

    def __init__(self, path: str, archive: zipfile.ZipFile, limit: int):
        self.path, self.archive, self.left, self.limit = path, archive, limit, limit
        found = [name for name in archive.namelist() if name.count("/") == 1]
        self.folder = next((name[:-8] for name in found if name.endswith("/data.pkl")), None)
        if self.folder is None:
            raise self.refuse("holds no data.pkl in its first folder, so no TorchScript")
        if f"{self.folder}byteorder" in found and self.read("byteorder") != b"little":
            raise self.refuse("byteorder: expected little")

    def read(self, name: str) -> bytes:
        """All of an entry, where its size is within what is left of the limit."""
        try:
            entry = self.archive.getinfo(f"{self.folder}{name}")
        except KeyError:
            raise self.refuse(f"holds no {name}") from None
        if entry.file_size > self.left:
            raise self.refuse(
                f"{name} has {entry.file_size} bytes, which passes the limit of {self.limit} in all"
            )
        if entry.compress_type != zipfile.ZIP_STORED:
            raise self.refuse(f"{name} is compressed; torch.jit.save stores it as it is")
        self.left -= entry.file_size
        with self.archive.open(entry) as file:
            return file.read(entry.file_size)

    def refuse(self, reason: str) -> Exception:
        return refused("path", f"{self.path!r}: {reason}")


class _Unpickler(pickle.Unpickler):
    """Knows the archive's modules, raw arrays and how to shape one; refuses the rest of Python."""

    def __init__(self, data: bytes, entries: _Entries):
        super().__init__(io.BytesIO(data))
        self.entries = entries
        self.module = type(
            "Module", (_Module,), {}
        )  # a pickle may write on its class, so not on ours

    def find_class(self, module: str, name: str) -> object:
        if module.split(".")[0] == "__torch__":
            return self.module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in STORAGES:
            return STORAGES[module, name]
        raise self.entries.refuse(f"data.pkl asks for {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: tuple) -> np.ndarray:
        kind, dtype, key, _device, count = pid
        if (kind, type(dtype), type(key), type(count)) != ("storage", str, str, int):
            raise self.entries.refuse("data.pkl names a thing that is no storage of numbers")
        data = self.entries.read(f"data/{key}")
        if len(data) != count * np.dtype(dtype).itemsize:
            raise self.entries.refuse(f"data/{key} has {len(data)} bytes for {count} of {dtype}")
        return np.frombuffer(data, dtype)

    def _tensor(self, storage, offset, size, stride, *_gradient_and_hooks) -> np.ndarray:
        if {type(number) for number in (offset, *size, *stride)} != {int}:
            raise self.entries.refuse("a tensor's offset, size and stride must be of ints")
        count = math.prod(size)
        packed = tuple(math.prod(size[axis + 1 :]) for axis in range(len(size)))
        if stride != packed:
            raise self.entries.refuse(f"a tensor {size} has strides {stride}; expected {packed}")
        if not 0 <= offset <= offset + count <= len(storage):
            raise self.entries.refuse(
                f"a tensor {size} at {offset} leaves its storage of {len(storage)} numbers"
            )
        return storage[offset : offset + count].reshape(size)
