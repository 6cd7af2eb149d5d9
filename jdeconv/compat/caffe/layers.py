"""What each layer of a deploy net computes, from the message that a prototxt holds for it.

`LAYERS` has a maker for every type. A maker gets the layer's message and its bottoms' shapes, refuses what does
not fit, and returns a `Layer`: the blobs that it learns and a function of blobs and bottoms. Phase TEST
throughout: Dropout is the identity, and BatchNorm uses the statistics that it has collected.

Source: BVLC Caffe, src/caffe/layers.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.checks import cells, refused
from jdeconv.compat.caffe.convolution import Convolution, Deconvolution, Filler, Im2col
from jdeconv.window import Window

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A layer of a net.

    Args:
      apply: (blobs, bottoms) -> tops.
      blobs: shapes of the blobs that it learns.
      fillers: how they begin.
      tops: shapes of the tops, where tracing `apply` would take memory; none for the others.
    """

    apply: Callable[[Sequence[jax.Array], Sequence[jax.Array]], Sequence[jax.Array]]
    blobs: Sequence[Shape] = ()
    fillers: Sequence[Filler] = ()
    tops: Sequence[Shape] = ()


def _filler(message: Any) -> Filler:
    values = {f.name: getattr(message, f.name) for f in dataclasses.fields(Filler)}
    norm = message.DESCRIPTOR.fields_by_name["variance_norm"].enum_type.values_by_number
    return Filler(**values | {"variance_norm": norm[values["variance_norm"]].name})


def _axis(layer: Any, name: str, axis: int, ndim: int, one_more: bool = False) -> int:
    """An axis of the bottom, from either end."""
    if not -ndim <= axis < ndim + one_more:
        raise refused(name, f"is out of range, got {axis} for {ndim} axes")
    return axis % ndim if axis < ndim else ndim


def _count(layer: Any, bottoms: Sequence[Shape], least: int, most: int | None = None) -> None:
    most = least if most is None else most
    if not least <= len(bottoms) <= most:
        reason = f"needs {least}" + (f" to {most}" if most > least else "")
        raise refused("bottom", f"{reason}, got {list(layer.bottom)}")


def _field(message: Any, name: str) -> Any:
    """The value of an optional field, None where it is absent."""
    return getattr(message, name) if message.HasField(name) else None


def _steps(message: Any, names: str) -> dict[str, int | None]:
    return {
        f"{name}_{side}": _field(message, f"{name}_{side}")
        for name in names.split()
        for side in "hw"
    }


def _windowed(message: Any) -> dict[str, Any]:
    names = ("kernel_size", "pad", "stride", "dilation")
    values = {name: tuple(getattr(message, name)) for name in names}
    values |= _steps(message, "kernel pad stride")
    return values | {"axis": message.axis, "force_nd_im2col": message.force_nd_im2col}


def convolution(kind: type, layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Convolution and Deconvolution, of several bottoms at need."""
    message = layer.convolution_param
    made = kind(
        **_windowed(message),
        num_output=message.num_output,
        group=message.group,
        bias_term=message.bias_term,
        weight_filler=_filler(message.weight_filler),
        bias_filler=_filler(message.bias_filler),
    )
    _count(layer, bottoms, 1, max(1, len(bottoms)))
    shapes = made.blob_shapes(bottoms[0])
    fills = (made.weight_filler, made.bias_filler)[: len(shapes)]
    return Layer(lambda blobs, bottoms: made.forward(blobs, *bottoms), shapes, fills)


def im2col(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Im2col."""
    _count(layer, bottoms, 1)
    made = Im2col(**_windowed(layer.convolution_param))
    items, channels, space = made.split(bottoms[0])
    kernel, steps = made.steps(len(space))
    if not space:
        raise refused("bottom", f"needs a spatial axis behind the channels, got {bottoms[0]}")
    small = Window.of_conv(space, kernel, **steps).small
    top = (*items, channels * math.prod(kernel), *small)
    return Layer(lambda _, bottoms: [made.forward(bottoms[0])], tops=[top])


def elementwise(function: Callable, layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """A function of every number of one bottom."""
    _count(layer, bottoms, 1)
    return Layer(lambda _, bottoms: [function(bottoms[0])])


def relu(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """ReLU, with a slope below zero at need."""
    slope = layer.relu_param.negative_slope
    return elementwise(
        lambda x: jax.nn.relu(x) + slope * jnp.minimum(x, 0) if slope else jax.nn.relu(x),
        layer,
        bottoms,
    )


def prelu(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """PReLU: a slope per channel, or one for all."""
    _count(layer, bottoms, 1)
    message, ndim = layer.prelu_param, len(bottoms[0])
    if ndim < 2:
        raise refused("bottom", f"needs 2 axes or more, got {bottoms[0]}")
    shape = () if message.channel_shared else bottoms[0][1:2]
    fill = _filler(message.filler) if message.HasField("filler") else Filler(value=0.25)

    def apply(blobs, bottoms):
        (x,), slope = bottoms, blobs[0].reshape(1, -1, *[1] * (ndim - 2))
        return [jax.nn.relu(x) + slope * jnp.minimum(x, 0)]

    return Layer(apply, [shape], [fill])


def pooling(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Pooling over two axes, MAX or AVE, whose windows may hang over by less than a stride."""
    _count(layer, bottoms, 1)
    message, (shape,) = layer.pooling_param, bottoms
    if len(shape) != 4:
        raise refused("bottom", f"needs 4 axes, got {shape}")
    if message.pool not in (0, 1):
        raise refused("pool", "must be MAX or AVE, got STOCHASTIC")
    if len(layer.top) > 1:
        raise refused("top", f"is one here, without a mask, got {list(layer.top)}")
    sides = _steps(message, "kernel pad stride")

    def pair(name: str, short: str, default: int | None) -> list[int]:
        both = [sides[f"{short}_{side}"] for side in "hw"]
        found = [side for side in both if side is not None]
        if len(found) == 2:
            return found
        if found or (default is None and not message.HasField(name)):
            raise refused(name, f"is needed, or {short}_h and {short}_w")
        return [getattr(message, name)] * 2

    stride, pad = pair("stride", "stride", 1), pair("pad", "pad", 0)
    kernel = list(shape[2:]) if message.global_pooling else pair("kernel_size", "kernel", None)
    given = f"kernel {kernel}, stride {stride}, pad {pad}"
    for k, s, p in zip(kernel, stride, pad, strict=True):
        if k < 1 or s < 1 or p >= k:
            reason = f"needs a stride of 1 or more and a pad of less than the kernel, got {given}"
            raise refused("pooling_param", reason)
    rounded = operator.floordiv if message.round_mode == 1 else lambda a, b: -(-a // b)
    sizes, edges = [], [(0, 0, 0), (0, 0, 0)]
    for i, k, s, p in zip(shape[2:], kernel, stride, pad, strict=True):
        if i + 2 * p < k and rounded(i + 2 * p - k, s) < 0:
            reason = f"must fit into the padded bottom, {i + 2 * p}, got {k}"
            raise refused("kernel_size", reason)
        size = rounded(i + 2 * p - k, s) + 1
        if p and (size - 1) * s >= i + p:
            size -= 1
        sizes.append(size)
        edges.append((p, (size - 1) * s + k - i - p, 0))
    padded = [low + i + high for i, (low, high, _) in zip(shape[2:], edges[2:], strict=True)]
    cells("pooling_param", padded)
    windows = ((1, 1, *kernel), (1, 1, *stride), "VALID")
    lasts = [  # only the last window may hang over
        min(k, i + 2 * p - (size - 1) * s)
        for i, k, s, p, size in zip(shape[2:], kernel, stride, pad, sizes, strict=True)
    ]

    def counts():
        rows, columns = [
            jnp.full(size, float(k), jnp.float32).at[-1].set(float(last))
            for k, size, last in zip(kernel, sizes, lasts, strict=True)
        ]
        return jnp.outer(rows, columns)[None, None]

    def apply(_, bottoms):
        (x,) = bottoms
        if message.pool == 0:
            least = jnp.array(
                jnp.finfo(x.dtype).min, x.dtype
            )  # Caffe's top where a window is empty
            return [lax.reduce_window(lax.pad(x, least, edges), -np.inf, lax.max, *windows)]
        sums = lax.reduce_window(lax.pad(x, jnp.zeros((), x.dtype), edges), 0.0, lax.add, *windows)
        return [sums / counts()]

    return Layer(apply)


def eltwise(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Eltwise: product, weighted sum or maximum of bottoms of one shape."""
    message = layer.eltwise_param
    _count(layer, bottoms, 2, max(2, len(bottoms)))
    if len(set(bottoms)) > 1:
        raise refused("bottom", f"shapes must be the same, got {bottoms}")
    coefficients = list(message.coeff)
    if coefficients and (message.operation != 1 or len(coefficients) != len(bottoms)):
        raise refused("coeff", f"needs one for each bottom of a SUM, got {coefficients}")
    combine = (operator.mul, operator.add, jnp.maximum)[message.operation]
    weights = coefficients or [1.0] * len(bottoms)

    def apply(_, bottoms):
        if message.operation == 1:
            bottoms = [a if w == 1 else w * a for w, a in zip(weights, bottoms, strict=True)]
        return [functools.reduce(combine, bottoms)]

    return Layer(apply)


def concat(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Concat."""
    message = layer.concat_param
    _count(layer, bottoms, 1, max(1, len(bottoms)))
    named = message.concat_dim if message.HasField("concat_dim") else message.axis
    axis = _axis(layer, "axis", named, len(bottoms[0]))
    if len({shape[:axis] + shape[axis + 1 :] for shape in bottoms}) > 1:
        raise refused("bottom", f"shapes may differ on axis {axis} only, got {bottoms}")
    return Layer(lambda _, bottoms: [jnp.concatenate(bottoms, axis)])


def slicing(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Slice, at the points given or in equal parts."""
    _count(layer, bottoms, 1)
    message, parts = layer.slice_param, len(layer.top)
    named = message.slice_dim if message.HasField("slice_dim") else message.axis
    axis = _axis(layer, "axis", named, len(bottoms[0]))
    size, points = bottoms[0][axis], list(message.slice_point)
    if not points:
        if not parts or size % parts:
            raise refused("top", f"count must divide {size}, got {list(layer.top)}")
        points = [size // parts * i for i in range(1, parts)]
    bounds = [0, *points, size]
    if len(points) != parts - 1 or any(a >= b for a, b in itertools.pairwise(bounds)):
        reason = f"needs {parts - 1} rising points inside of {size} for {parts} tops"
        raise refused("slice_point", f"{reason}, got {points}")
    return Layer(lambda _, bottoms: jnp.split(bottoms[0], points, axis))


def split(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Split: the bottom, for every top."""
    _count(layer, bottoms, 1)
    return Layer(lambda _, bottoms: [bottoms[0]] * len(layer.top))


def crop(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Crop: of the first bottom, as much as the second has, from `axis` on."""
    _count(layer, bottoms, 2)
    message, (shape, wanted) = layer.crop_param, bottoms
    axis = _axis(layer, "axis", message.axis, len(shape))
    if len(wanted) != len(shape):
        raise refused("bottom", f"shapes need as many axes, got {bottoms}")
    offsets, count = list(message.offset) or [0], len(shape) - axis
    if len(offsets) not in (1, count):
        raise refused("offset", f"needs one value or {count}, got {offsets}")
    offsets = offsets * (count if len(offsets) == 1 else 1)
    starts = [0] * axis + offsets
    sizes = shape[:axis] + wanted[axis:]
    if any(a + b > c for a, b, c in zip(starts, sizes, shape, strict=True)):
        raise refused("offset", f"must let {wanted} fit into {shape}, got {offsets}")
    stops = [a + b for a, b in zip(starts, sizes, strict=True)]
    return Layer(lambda _, bottoms: [lax.slice(bottoms[0], starts, stops)])


def batch_norm(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """BatchNorm, with what it has collected; with those of the batch where use_global_stats is false."""
    _count(layer, bottoms, 1)
    message, (shape,) = layer.batch_norm_param, bottoms
    channels = shape[1] if len(shape) > 1 else 1
    ours = [1, channels, *[1] * (len(shape) - 2)] if len(shape) > 1 else [1]
    of_batch = message.HasField("use_global_stats") and not message.use_global_stats

    def apply(blobs, bottoms):
        (x,), (mean, variance, scale) = bottoms, blobs
        if of_batch:
            axes = [i for i in range(x.ndim) if i != 1]
            mean = x.mean(axes, keepdims=True)
            variance = ((x - mean) ** 2).mean(axes, keepdims=True)
        else:
            factor = jnp.where(scale == 0, 0, 1 / jnp.where(scale == 0, 1, scale))
            mean, variance = (factor * a for a in (mean, variance))
        root = jnp.sqrt(variance.reshape(ours) + message.eps)
        return [(x - mean.reshape(ours)) / root]

    zero = Filler()
    return Layer(apply, [(channels,), (channels,), (1,)], [zero, zero, zero])


def scale(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Scale, by a second bottom or by a blob; and a bias."""
    _count(layer, bottoms, 1, 2)
    message, shape = layer.scale_param, bottoms[0]
    axis = _axis(layer, "axis", message.axis, len(shape))
    if len(bottoms) == 2:
        ours = bottoms[1]
    else:
        stop = len(shape) if message.num_axes == -1 else axis + message.num_axes
        ours = shape[axis:stop]
        if message.num_axes < -1 or stop > len(shape):
            reason = f"is out of range, got {message.num_axes} for {len(shape)} axes"
            raise refused("num_axes", reason)
    if shape[axis : axis + len(ours)] != ours:
        raise refused("bottom", f"shapes must fit one another at axis {axis}, got {bottoms}")
    spread = (*[1] * axis, *ours, *[1] * (len(shape) - axis - len(ours)))

    def apply(blobs, bottoms):
        x, *rest = [*bottoms, *blobs]
        y = x * rest[0].reshape(spread)
        return [y + rest[1].reshape(spread) if message.bias_term else y]

    fill = _filler(message.filler) if message.HasField("filler") else Filler(value=1.0)
    learned = [(ours, fill)] * (len(bottoms) == 1)
    learned += [(ours, _filler(message.bias_filler))] * message.bias_term
    return Layer(apply, [shape for shape, _ in learned], [filler for _, filler in learned])


def inner_product(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """InnerProduct."""
    message = layer.inner_product_param
    _count(layer, bottoms, 1)
    axis = _axis(layer, "axis", message.axis, len(bottoms[0]))
    n, k = message.num_output, math.prod(bottoms[0][axis:])
    if n < 1:
        raise refused("num_output", f"must be at least 1, got {n}")
    shapes = [(k, n) if message.transpose else (n, k), (n,)][: 1 + message.bias_term]
    fills = [_filler(message.weight_filler), _filler(message.bias_filler)][: len(shapes)]

    def apply(blobs, bottoms):
        (x,) = bottoms
        rows = x.reshape(*x.shape[:axis], -1)
        y = rows @ (blobs[0] if message.transpose else blobs[0].T)
        return [y + blobs[1].reshape([1] * axis + [n]) if message.bias_term else y]

    return Layer(apply, shapes, fills)


def softmax(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Softmax over one axis."""
    axis = _axis(layer, "axis", layer.softmax_param.axis, len(bottoms[0]) if bottoms else 0)
    return elementwise(lambda x: jax.nn.softmax(x, axis), layer, bottoms)


def reshape(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Reshape: 0 keeps a size, -1 is what is left."""
    _count(layer, bottoms, 1)
    message, (shape,) = layer.reshape_param, bottoms
    start = message.axis if message.axis >= 0 else len(shape) + message.axis + 1
    stop = len(shape) if message.num_axes == -1 else start + message.num_axes
    if not 0 <= start <= stop <= len(shape):
        raise refused("axis", f"is out of range, got {message.axis} for {len(shape)} axes")
    dims = list(message.shape.dim)
    if dims.count(-1) > 1 or min(dims, default=0) < -1:
        raise refused("shape", f"needs sizes, 0 to keep one, and one -1 at most, got {dims}")
    if any(d == 0 and start + i >= stop for i, d in enumerate(dims)):
        raise refused("shape", f"has a 0 for an axis that the bottom lacks, got {dims}")

    def sizes(shape: Shape) -> Shape:
        new = [shape[start + i] if d == 0 else d for i, d in enumerate(dims)]
        count, known = math.prod(shape[start:stop]), math.prod(d for d in new if d != -1)
        if -1 in new and known and count % known == 0:
            new[new.index(-1)] = count // known
        if math.prod(new) != count:
            raise refused("shape", f"must hold the {count} numbers of {shape}, got {dims}")
        return (*shape[:start], *new, *shape[stop:])

    sizes(shape)
    return Layer(lambda _, bottoms: [bottoms[0].reshape(sizes(bottoms[0].shape))])


def flatten(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Flatten: axes from `axis` to `end_axis` in one."""
    _count(layer, bottoms, 1)
    ndim = len(bottoms[0])
    start = _axis(layer, "axis", layer.flatten_param.axis, ndim)
    stop = _axis(layer, "end_axis", layer.flatten_param.end_axis, ndim) + 1
    if stop <= start:
        raise refused("end_axis", f"must not lie in front of axis {start}, got {stop - 1}")
    return Layer(
        lambda _, bottoms: [
            bottoms[0].reshape(*bottoms[0].shape[:start], -1, *bottoms[0].shape[stop:])
        ]
    )


LAYERS: dict[str, Callable[[Any, Sequence[Shape]], Layer]] = {
    "BatchNorm": batch_norm,
    "Concat": concat,
    "Convolution": functools.partial(convolution, Convolution),
    "Crop": crop,
    "Deconvolution": functools.partial(convolution, Deconvolution),
    "Dropout": functools.partial(elementwise, lambda x: x),
    "Eltwise": eltwise,
    "Flatten": flatten,
    "Im2col": im2col,
    "InnerProduct": inner_product,
    "PReLU": prelu,
    "Pooling": pooling,
    "ReLU": relu,
    "Reshape": reshape,
    "Scale": scale,
    "Sigmoid": functools.partial(elementwise, jax.nn.sigmoid),
    "Slice": slicing,
    "Softmax": softmax,
    "Split": split,
    "TanH": functools.partial(elementwise, jnp.tanh),
}
