"""ncnn's file format, as far as a chain of convs and deconvs needs it: a .param text and a .bin of weights.

Source: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure and ncnn's modelbin.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jdeconv.checks import refused, reporting

MAGIC = "7767517"
FLOAT32, FLOAT16 = 0, 0x01306B47  # the tag before a kernel
KINDS = ("Convolution", "Deconvolution")
FIELDS = {
    "0": "outputs",
    "1": "kernel_size",
    "2": "dilation",
    "3": "stride",
    "4": "padding",
    "5": "has_bias",
    "6": "weights",
    "9": "activation",
    "-23310": "slopes",  # an array, field 10: its length, then its values
}
DEFAULTS = {"dilation": 1, "stride": 1, "padding": 0, "has_bias": 0, "activation": 0}
NONE, RELU, LEAKY = 0, 1, 2

static = partial(field, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layer:
    """A conv or deconv with square windows, and the leaky ReLU behind it: slope * x where x is negative."""

    kernel: np.ndarray
    bias: np.ndarray | float
    kind: str = static()
    stride: int = static()
    padding: int = static()
    dilation: int = static()
    slope: float = static()


@reporting()
def read_ncnn(param: Path, weights: Path) -> list[Layer]:
    """The layers of a chain, in order. Kernels are OIHW as `jdeconv.conv` and `jdeconv.deconv` want them.

    Reads no more than the two files hold.

    Raises:
      ValueError: for a file that is not of this format or holds more than such a chain; the text names the
        file, the layer and the field.
    """
    blobs = _Blobs(weights)
    layers, previous, channels = [], None, None
    for name, kind, source, target, fields in _lines(param):
        refuse = partial(_refuse, param, name)
        if previous is None:
            if kind != "Input":
                raise refuse(f"the first layer is {kind}; expected Input")
            previous, channels = target, _int(refuse, "2", fields.get("2", ""))
            continue
        if kind not in KINDS:
            raise refuse(f"is of kind {kind}; this reader knows {', '.join(KINDS)}")
        if source != previous:
            raise refuse(f"takes {source}, and not {previous} of the layer before: no chain")
        layers.append(_layer(refuse, kind, channels, fields, blobs.of(name)))
        kernel = layers[-1].kernel
        previous, channels = target, kernel.shape[0 if kind == "Convolution" else 1]
    blobs.finish()
    return layers


def _lines(path: Path):
    try:
        lines = path.read_text("ascii").splitlines()
    except UnicodeDecodeError:
        raise refused("param", f"{str(path)!r}: expected a text in ASCII") from None
    if len(lines) < 3 or lines[0].strip() != MAGIC:
        reason = f"expected {MAGIC} on the first of 3 lines"
        raise refused("param", f"{str(path)!r}: {reason}")
    told = lines[1].split()
    if not told or told[0] != str(len(lines) - 2):
        reason = f"{len(lines) - 2} layers follow, where line 2 says {lines[1].strip()!r}"
        raise refused("param", f"{str(path)!r}: {reason}")
    for line in lines[2:]:
        kind, name, *rest = line.split() if len(line.split()) > 4 else ("", line.strip())
        blobs = [word for word in rest if "=" not in word]
        inputs, outputs = ("0", "1") if kind == "Input" else ("1", "1")
        if blobs[:2] != [inputs, outputs] or len(blobs) != 2 + int(inputs) + int(outputs):
            raise _refuse(
                path, name, f"expected {inputs} input and {outputs} output in {line.strip()!r}"
            )
        fields = dict(word.split("=", 1) for word in rest if "=" in word)
        yield name, kind, blobs[2], blobs[-1], fields


def _layer(refuse, kind, channels, fields, read) -> Layer:
    if unknown := fields.keys() - FIELDS.keys():
        raise refuse(
            f"field {min(unknown)} is none of those this reader knows: {', '.join(FIELDS)}"
        )
    known = DEFAULTS | {FIELDS[key]: text for key, text in fields.items()}
    if missing := set(FIELDS.values()) - {"slopes"} - known.keys():
        raise refuse(f"field {min(missing)} is missing")
    slope = _slope(refuse, known.pop("slopes", None), known["activation"])
    number = {name: _int(refuse, name, text) for name, text in known.items()}
    for name in ("outputs", "kernel_size", "dilation", "stride"):
        if number[name] < 1:
            raise refuse(f"{name}={number[name]}: must be at least 1")
    o, k = number["outputs"], number["kernel_size"]
    if number["weights"] != o * channels * k * k:
        raise refuse(
            f"weights={number['weights']}: {o} x {channels} channels and {k} x {k} taps make "
            f"{o * channels * k * k}"
        )
    kernel = read.kernel(number["weights"]).reshape(o, channels, k, k)
    if kind == "Deconvolution":
        kernel = kernel.swapaxes(0, 1)  # ncnn's first axis is the layer's output, ours the conv's
    bias = read.floats(o) if number["has_bias"] else np.zeros(o, np.float32)
    steps = {name: number[name] for name in ("stride", "padding", "dilation")}
    return Layer(np.ascontiguousarray(kernel), bias, kind=kind, slope=slope, **steps)


def _slope(refuse, slopes, activation) -> float:
    activation = _int(refuse, "activation", activation)
    if activation in (NONE, RELU):
        return float(activation == NONE)
    count, _, text = (slopes or "").partition(",")
    if activation != LEAKY or count != "1":
        raise refuse(
            f"activation={activation}, slopes={slopes}: expected 0 (none), 1 (ReLU), or 2 (leaky) with "
            f"one slope"
        )
    try:
        return float(text)
    except ValueError:
        raise refuse(f"slopes={slopes}: expected a number") from None


def _int(refuse, name, text) -> int:
    try:
        return int(text)
    except ValueError:
        raise refuse(f"{name}={text}: expected an int") from None


def _refuse(path, layer, reason) -> Exception:
    return refused("param", f"{str(path)!r}: layer {layer}: {reason}")


class _Blobs:
    """The .bin, read from front to back."""

    def __init__(self, path: Path):
        self.path, self.data, self.at, self.layer = path, path.read_bytes(), 0, ""

    def of(self, layer: str) -> _Blobs:
        """Errors from here on name this layer."""
        self.layer = layer
        return self

    def kernel(self, count: int) -> np.ndarray:
        (tag,) = self._take(1, "<u4")
        if tag not in (FLOAT32, FLOAT16):
            raise self._refuse(f"tag {tag:#010x}: expected {FLOAT32:#x} or {FLOAT16:#010x}")
        if tag == FLOAT32:
            return self.floats(count)
        return self._take(count + count % 2, "<f2")[:count].astype(np.float32)  # 4-byte aligned

    def floats(self, count: int) -> np.ndarray:
        return self._take(count, "<f4")

    def finish(self) -> None:
        if self.at != len(self.data):
            raise self._refuse(
                f"{len(self.data) - self.at} bytes are left over behind the last layer"
            )

    def _take(self, count: int, dtype: str) -> np.ndarray:
        start, self.at = self.at, self.at + count * np.dtype(dtype).itemsize
        if self.at > len(self.data):
            raise self._refuse(f"ends at byte {len(self.data)}, where it should reach {self.at}")
        return np.frombuffer(self.data, dtype, count, start)

    def _refuse(self, reason: str) -> Exception:
        return refused("weights", f"{str(self.path)!r}: layer {self.layer}: {reason}")
