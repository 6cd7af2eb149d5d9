"""compat.caffe: every layer against loops in float64, values and gradients; and what a net can do.

A group of layers is one net with one compilation. The loops are written from Caffe's definitions and share no
code with the package; gradients are compared with their central differences.
"""

import itertools
import math
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdeconv.compat import caffe
from jdeconv.compat.caffe.layers import LAYERS
from jdeconv.compat.caffe.schema import V1_TYPES

pytest.importorskip("google.protobuf")

STEP = 1e-5


def input_layer(name, shape):
    dims = " ".join(f"dim: {size}" for size in shape)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'


def layer_text(name, kind, bottoms, tops, fields=""):
    bottoms = " ".join(f'bottom: "{b}"' for b in bottoms)
    tops = " ".join(f'top: "{t}"' for t in tops)
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} {tops} {fields} }}\n'


def layer(kind, fields, bottoms, loops, *blobs):
    """A row for `check`.

    Args:
      kind: the type.
      fields: of the type's own message, such as `tile_param`; or a text that names another message.
      bottoms: their names.
      loops: maps bottoms and blobs to the top, or to a tuple of tops.
      blobs: weights.
    """
    if fields and "_param {" not in fields:
        fields = f"{kind.lower()}_param {{ {fields} }}"
    return kind, fields, bottoms.split(), loops, [np.array(b, float) for b in blobs]


def check(arrays, *layers, fixed=()):
    """Values and gradients of several layers. No gradient reaches the arrays named in `fixed`."""
    exact = {name: np.array(a, float) for name, a in arrays.items()}
    text = "".join(input_layer(name, a.shape) for name, a in exact.items())

    def expected(i):
        """The tops of a layer by name, of the numbers that the arrays hold now."""
        kind, _, bottoms, loops, blobs = layers[i]
        tops = loops(*(exact[b] for b in bottoms), *blobs)
        tops = tops if isinstance(tops, tuple) else (tops,)
        return {f"{kind}_{i}_{j}": np.asarray(top, float) for j, top in enumerate(tops)}

    base = [expected(i) for i in range(len(layers))]
    names, params = [name for tops in base for name in tops], {}
    for i, (kind, fields, bottoms, _, blobs) in enumerate(layers):
        text += layer_text(f"{kind}_{i}", kind, bottoms, base[i], fields)
        if blobs:
            params[f"{kind}_{i}"] = [jnp.asarray(b, jnp.float32) for b in blobs]
    net = caffe.load(text)
    assert jax.tree.map(np.shape, dict(net.params)) == jax.tree.map(np.shape, params)

    def score(tops):
        def weights(name, size):
            return (np.arange(size) * 5 + names.index(name) * 3) % 7 - 3.0

        return sum((top.ravel() * weights(name, top.size)).sum() for name, top in tops.items())

    @jax.jit
    @partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradients(params, arrays):
        tops = net(params, arrays, names)
        return score(tops), tops

    given = {name: jnp.asarray(a, jnp.float32) for name, a in exact.items()}
    (of_params, of_arrays), tops = gradients(params, given)
    numeric = {name: np.zeros(a.shape) for name, a in exact.items()}
    for i, (kind, _, bottoms, _, blobs) in enumerate(layers):
        for name, top in base[i].items():
            assert tops[name].shape == top.shape, name
            np.testing.assert_allclose(tops[name], top, rtol=2e-5, atol=2e-5, err_msg=name)
        for name in {*bottoms} - {*fixed}:
            numeric[name] += differences(lambda i=i: score(expected(i)), exact[name])
        for blob, found in zip(blobs, of_params.get(f"{kind}_{i}", ()), strict=True):
            slope = differences(lambda i=i: score(expected(i)), blob)
            np.testing.assert_allclose(found, slope, rtol=2e-3, atol=2e-3, err_msg=f"{kind}_{i}")
    for name, slope in numeric.items():
        np.testing.assert_allclose(of_arrays[name], slope, rtol=2e-3, atol=4e-3, err_msg=name)


def differences(score, array):
    """The central differences of a score in each number of an array."""
    slope = np.zeros(array.shape)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + STEP
        more = score()
        array[place] = kept - STEP
        slope[place] = (more - score()) / (2 * STEP)
        array[place] = kept
    return slope


def drawn(seed, shape, low=-4, high=5):
    """Integers plus distinct fractions, so that there are no equals and no zeros."""
    rng = np.random.default_rng(seed)
    parts = rng.permutation(math.prod(shape)).reshape(shape) / math.prod(shape)
    return rng.integers(low, high, shape) + 0.1 + 0.8 * parts


def test_elementwise():
    def row(kind, fields, function, bottom="x"):
        return layer(kind, fields, bottom, np.vectorize(function, otypes=[float]))

    check(
        {"x": drawn(0, (2, 3, 2)), "positive": drawn(1, (2, 3), 1, 4)},
        row("AbsVal", "", abs),
        row("BNLL", "", lambda v: math.log(1 + math.exp(v))),
        row("Sigmoid", "", lambda v: 1 / (1 + math.exp(-v))),
        row("TanH", "", math.tanh),
        row("ReLU", "negative_slope: 0.25", lambda v: v if v > 0 else v / 4),
        row("ReLU6", "", lambda v: min(max(v, 0), 6)),
        row("ELU", "alpha: 0.5", lambda v: v if v > 0 else math.expm1(v) / 2),
        row("Exp", "", math.exp),
        row("Exp", "base: 2 scale: 0.5 shift: 1", lambda v: 2 ** (1 + v / 2)),
        row("Log", "base: 10 scale: 2 shift: 3", lambda v: math.log10(3 + 2 * v), "positive"),
        row("Power", "power: 3 scale: 0.5 shift: -1", lambda v: (v / 2 - 1) ** 3),
        row("Power", "power: -0.5 scale: 2", lambda v: (2 * v) ** -0.5, "positive"),
        row("Power", "power: 0", lambda v: 1.0),
        row("Threshold", "threshold: 1", lambda v: float(v > 1)),
        row("Clip", "min: -1 max: 2", lambda v: min(max(v, -1), 2)),
        row("Swish", "beta: 2", lambda v: v / (1 + math.exp(-2 * v))),
        row("Dropout", "dropout_ratio: 0.25", lambda v: v),
        row("Dropout", "dropout_ratio: 0.25 scale_train: false", lambda v: v * 0.75),
    )


def test_layers_that_arrange():
    def biased(x, added):
        return x + added.reshape(1, 3, 1, 1)

    def embedded(i, table, added):
        return [[table[int(v)] + added for v in row] for row in i]

    def top_of_channels(x):
        top = np.zeros((2, 2, 2, 3))
        for n, i, j in itertools.product(range(2), range(2), range(3)):
            order = sorted(range(3), key=lambda c: (x[n, c, i, j], c), reverse=True)
            top[n, :, i, j] = order[:2]
        return top

    def top_of_items(x):
        flat = x.reshape(2, -1)
        order = [sorted(range(18), key=lambda i: (row[i], i), reverse=True)[:2] for row in flat]
        values = [[row[i] for i in three] for row, three in zip(flat, order, strict=True)]
        return np.stack([order, values], 1)[..., None]

    def axpy(a, x, y):
        top = y.copy()
        for n, c in itertools.product(range(2), range(3)):
            top[n, c] += a[n, c, 0, 0] * x[n, c]
        return top

    def sums_of_magnitudes(x):
        return [2 * sum(abs(v) for v in np.ravel(item)) for item in x]

    def sums_of_squares(x):
        return [[sum(v * v for v in np.ravel(c)) for c in item] for item in x]

    def channels_last(x):
        return np.stack([x[:, c] for c in range(3)], -1)

    check(
        {
            "x": drawn(2, (2, 3, 2, 3)),
            "y": drawn(3, (2, 3, 2, 3)),
            "a": drawn(4, (2, 3, 1, 1)),
            "v": drawn(5, (3,)),
            "z": drawn(6, (2, 3, 2, 3)),
            "narrow": drawn(11, (2, 3, 2, 2)),
            "i": np.array([[0.0, 3.0], [2.0, 2.0]]),
        },
        layer("Tile", "axis: 2 tiles: 3", "x", lambda x: np.concatenate([x] * 3, 2)),
        layer("Reduction", "", "x", np.sum),
        layer("Reduction", "operation: ASUM axis: 1 coeff: 2", "x", sums_of_magnitudes),
        layer("Reduction", "operation: SUMSQ axis: 2", "x", sums_of_squares),
        layer("Reduction", "operation: MEAN axis: -1", "x", lambda x: x.sum(3) / 3),
        layer("Permute", "order: [0, 2, 3, 1]", "x", channels_last),
        layer("Permute", "order: 2", "x", lambda x: np.moveaxis(x, 2, 0)),
        layer("Bias", "", "x", biased, drawn(7, (3,))),
        layer("Bias", "", "x v", biased),
        layer(
            "Embed", "num_output: 2 input_dim: 4", "i", embedded, drawn(8, (4, 2)), drawn(9, (2,))
        ),
        layer("ArgMax", "axis: 1 top_k: 2", "x", top_of_channels),
        layer("ArgMax", "out_max_val: true top_k: 2", "x", top_of_items),
        layer("ArgMax", "axis: 2 out_max_val: true", "x", lambda x: x.max(2, keepdims=True)),
        layer("Axpy", "", "a x y", axpy),
        layer(
            "CropCenter",
            "crop_center_param { crop_size: [0, 1, 0, 1] }",
            "x",
            lambda x: x[:, 1:2, :, 1:2],
        ),
        layer("Concat", "concat_dim: 2", "x y", lambda x, y: np.concatenate([x, y], 2)),
        layer("Slice", "slice_dim: 1 slice_point: 1", "x", lambda x: (x[:, :1], x[:, 1:])),
        layer(
            "InnerProduct",
            "inner_product_param { num_output: 2 axis: 3 transpose: true }",
            "x",
            lambda x, w, b: x @ w + b,
            drawn(12, (3, 2)),
            drawn(13, (2,)),
        ),
        layer("Crop", "offset: 1 offset: 2", "x a", lambda x, _: x[:, :, 1:2, 2:3]),
        layer("Crop", "axis: -1 offset: 1", "x narrow", lambda x, _: x[..., 1:3]),
        layer("Eltwise", "operation: MAX", "x y z", lambda *xyz: np.max(xyz, 0)),
        layer("Parameter", "shape { dim: 2 }", "", lambda w: w, drawn(10, (2,))),
        fixed={"i"},
    )


def windows(size, kernel, stride, pad):
    """Of each window of Caffe's pooling along one axis: the cells that it sees, and how many it counts."""
    count = -(-(size + 2 * pad - kernel) // stride) + 1
    if pad and (count - 1) * stride >= size + pad:
        count -= 1
    found = []
    for q in range(count):
        start = q * stride - pad
        stop = min(start + kernel, size + pad)
        found.append((range(max(start, 0), min(stop, size)), stop - start))
    return found


def averages(x, kernel, stride, pad):
    rows, columns = (
        windows(x.shape[axis], kernel[axis - 2], stride[axis - 2], pad[axis - 2]) for axis in (2, 3)
    )
    top = np.zeros((*x.shape[:2], len(rows), len(columns)))
    for p, (i, ni) in enumerate(rows):
        for q, (j, nj) in enumerate(columns):
            top[:, :, p, q] = x[:, :, i.start : i.stop, j.start : j.stop].sum((2, 3)) / (ni * nj)
    return top


def greatest_with_mask(x, kernel, stride, pad):
    rows, columns = (windows(x.shape[axis], kernel, stride, pad) for axis in (2, 3))
    top = np.zeros((*x.shape[:2], len(rows), len(columns)))
    mask = np.zeros(top.shape)
    for n, c, p, q in np.ndindex(top.shape):
        cells = list(itertools.product(rows[p][0], columns[q][0]))
        i, j = max(cells, key=lambda cell: x[n, c, cell[0], cell[1]])  # the first among equals
        top[n, c, p, q], mask[n, c, p, q] = x[n, c, i, j], i * x.shape[3] + j
    return top, mask


def test_pooling_upsampling_and_sampling():
    def floored(x):
        return greatest_with_mask(x[:, :, :4], 2, 2, 0)[0]

    def unpooled(values, mask, *size):
        top = np.zeros((*values.shape[:2], math.prod(size)))
        for n, c, p, q in np.ndindex(values.shape):
            top[n, c, int(mask[n, c, p, q])] = values[n, c, p, q]
        return top.reshape(*values.shape[:2], *size)

    def pyramid(x):
        parts = []
        for bins in (1, 2):
            kernel = [math.ceil(size / bins) for size in (5, 6)]
            pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, (5, 6), strict=True)]
            parts.append(averages(x, kernel, kernel, pad).reshape(2, -1))
        return np.concatenate(parts, 1)

    def interpolated(a, height, width):
        top = np.zeros((*a.shape[:2], height, width))
        for p, q in itertools.product(range(height), range(width)):
            y, z = p * (a.shape[2] - 1) / (height - 1), q * (a.shape[3] - 1) / (width - 1)
            i, j = int(y), int(z)
            k, m = min(i + 1, a.shape[2] - 1), min(j + 1, a.shape[3] - 1)
            s, t = y - i, z - j
            top[:, :, p, q] = (1 - s) * ((1 - t) * a[:, :, i, j] + t * a[:, :, i, m]) + s * (
                (1 - t) * a[:, :, k, j] + t * a[:, :, k, m]
            )
        return top

    def regions(a, rois):
        top = np.zeros((len(rois), 1, 2, 3))
        for r, (n, *corners) in enumerate(rois):
            left, up, right, down = (math.floor(v * 0.5 + 0.5) for v in corners)
            tall, wide = max(down - up + 1, 1) / 2, max(right - left + 1, 1) / 3
            for p, q in itertools.product(range(2), range(3)):
                rows = range(
                    max(math.floor(p * tall) + up, 0), min(math.ceil((p + 1) * tall) + up, 5)
                )
                columns = range(
                    max(math.floor(q * wide) + left, 0), min(math.ceil((q + 1) * wide) + left, 6)
                )
                cells = [a[int(n), 0, i, j] for i in rows for j in columns]
                top[r, 0, p, q] = max(cells, default=0)
        return top

    x = drawn(11, (2, 1, 5, 6))
    mask = greatest_with_mask(x, 2, 2, 0)[1]
    values = drawn(12, mask.shape)
    rois = np.array([[0, 0, 0, 9, 7], [1, 3, 2, 4, 9], [1, 9, 7, 4, 3], [0, 11, 1, 20, 5.0]])
    check(
        {"x": x, "mask": mask, "values": values, "rois": rois, "like": drawn(13, (1, 1, 4, 3))},
        layer("Pooling", "kernel_size: 2 stride: 2", "x", lambda x: greatest_with_mask(x, 2, 2, 0)),
        layer(
            "Pooling",
            "kernel_size: 3 stride: 2 pad: 1",
            "x",
            lambda x: greatest_with_mask(x, 3, 2, 1),
        ),
        layer(
            "Pooling",
            "kernel_size: 3 stride: 2 pad_h: 1 pad_w: 0 pool: AVE",
            "x",
            lambda x: averages(x, (3, 3), (2, 2), (1, 0)),
        ),
        layer("Pooling", "kernel_size: 2 stride: 2 ceil_mode: false", "x", floored),
        layer("Pooling", "kernel_size: 2 stride: 2 round_mode: FLOOR", "x", floored),
        layer("SPP", "pyramid_height: 2 pool: AVE", "x", pyramid),
        layer("Upsample", "scale: 2 pad_out_h: true", "values mask", lambda *a: unpooled(*a, 5, 6)),
        layer(
            "Upsample",
            "scale_h: 2 scale_w: 3 pad_out_w: true",
            "values mask",
            lambda *a: unpooled(*a, 6, 8),
        ),
        layer(
            "Upsample", "upsample_h: 6 upsample_w: 7", "values mask", lambda *a: unpooled(*a, 6, 7)
        ),
        layer("Interp", "height: 3 width: 9", "x", lambda x: interpolated(x, 3, 9)),
        layer(
            "Interp",
            "zoom_factor: 2 pad_beg: -1 pad_end: -1",
            "x",
            lambda x: interpolated(x[:, :, 1:-1, 1:-1], 5, 7),
        ),
        layer("Interp", "shrink_factor: 2", "x", lambda x: interpolated(x, 3, 3)),
        layer("Interp", "", "x like", lambda x, _: interpolated(x, 4, 3)),
        layer(
            "ROIPooling",
            "roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.5 }",
            "x rois",
            regions,
        ),
        fixed={"mask", "rois", "like"},
    )
    ties = jnp.zeros((1, 1, 4, 4))
    text = input_layer("x", (1, 1, 4, 4)) + layer_text(
        "p", "Pooling", ["x"], ["t", "m"], "pooling_param { kernel_size: 2 stride: 2 }"
    )
    net = caffe.load(text)
    tops, pull = jax.vjp(lambda x: net({}, {"x": x}), ties)
    np.testing.assert_array_equal(tops["m"].ravel(), [0, 2, 8, 10])
    (slope,) = pull(jax.tree.map(jnp.ones_like, tops))
    np.testing.assert_array_equal(np.flatnonzero(slope), [0, 2, 8, 10])


def test_layers_that_normalize():
    def across(a, size, alpha, k):
        top = np.zeros(a.shape)
        for c in range(a.shape[1]):
            near = range(max(0, c - size // 2), min(a.shape[1], c + size // 2 + 1))
            top[:, c] = a[:, c] / (k + alpha / size * sum(a[:, d] ** 2 for d in near)) ** 0.75
        return top

    def within(a):
        return a * (1 + 0.5 * averages(a * a, (3, 3), (1, 1), (1, 1))) ** -0.75

    def centered(a, *axes):
        return a - a.mean(axes, keepdims=True)

    def standard(a, *axes):
        y = centered(a, *axes)
        return y / (np.sqrt((y * y).mean(axes, keepdims=True)) + 0.01)

    def lengths(a, blob, *axes):
        scale = np.broadcast_to(blob, (5,)).reshape(1, 5, 1, 1)
        return a / np.sqrt((a * a).sum(axes, keepdims=True) + 1e-10) * scale

    def of_segnet(a, scale, shift):
        mean, variance = a.mean((0, 2, 3), keepdims=True), a.var((0, 2, 3), keepdims=True)
        return (a - mean) / np.sqrt(variance + 1e-9) * scale + shift

    def softmaxes(a):
        powers = np.exp(a)
        return powers / powers.sum(2, keepdims=True)

    four = (1, 5, 1, 1)
    check(
        {"x": drawn(14, (2, 5, 2, 2))},
        layer(
            "LRN", "local_size: 3 alpha: 0.5 beta: 0.75 k: 2", "x", lambda x: across(x, 3, 0.5, 2)
        ),
        layer("LRN", "alpha: 0.2", "x", lambda x: across(x, 5, 0.2, 1)),
        layer("LRN", "norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 k: 9", "x", within),
        layer("MVN", "eps: 0.01", "x", lambda x: standard(x, 2, 3)),
        layer("MVN", "eps: 0.01 across_channels: true", "x", lambda x: standard(x, 1, 2, 3)),
        layer("MVN", "normalize_variance: false", "x", lambda x: centered(x, 2, 3)),
        layer("Normalize", "", "x", lambda x, w: lengths(x, w, 1, 2, 3), drawn(15, ())),
        layer(
            "Normalize",
            "norm_param { across_spatial: false channel_shared: false }",
            "x",
            lambda x, w: lengths(x, w, 1),
            drawn(16, (5,)),
        ),
        layer("BN", "scale_filler { value: 1 }", "x", of_segnet, drawn(17, four), drawn(18, four)),
        layer(
            "BN",
            "bn_mode: INFERENCE",
            "x",
            lambda x, a, b: x * a + b,
            drawn(19, four),
            drawn(20, four),
        ),
        layer("Softmax", "axis: 2", "x", softmaxes),
    )


def test_losses():
    labels = np.array([[2, 0, 1], [1, 255, 2]])

    def softmax_loss(scores, labels, divide, ignore=None, weights=(1, 1, 1)):
        total, valid = 0.0, 0
        for n, i in np.ndindex(2, 3):
            label = int(labels.reshape(2, 3)[n, i])
            if label == ignore:
                continue
            powers = np.exp(scores[n, :, i])
            total -= weights[label] * math.log(powers[label] / powers.sum())
            valid += 1
        return total / {"FULL": 6, "VALID": valid, "BATCH_SIZE": 2, "NONE": 1}[divide]

    def sigmoid_loss(scores, targets, ignore=None):
        total, valid = 0.0, 0
        for x, t in zip(np.ravel(scores), np.ravel(targets), strict=True):
            if ignore is not None and int(t) == ignore:
                continue
            total -= x * (t - (x >= 0)) - math.log(1 + math.exp(x - 2 * x * (x >= 0)))
            valid += 1
        return total / (2 if ignore is None else valid)

    def hinges(scores, classes, power):
        total = 0.0
        for n, c in np.ndindex(4, 3):
            side = -1 if int(classes[n]) == c else 1
            total += max(0, 1 + side * scores[n, c]) ** power
        return total / 4

    def halves_of_squares(x, y):
        return sum((u - v) ** 2 for u, v in zip(np.ravel(x), np.ravel(y), strict=True)) / 4

    def logarithms(probabilities, classes):
        return -sum(math.log(probabilities[n, int(classes[n])]) for n in range(4)) / 4

    def softmax(fields, bottoms, *options):
        fields = fields and f"loss_param {{ {fields} }}"
        return layer("SoftmaxWithLoss", fields, bottoms, lambda *a: softmax_loss(*a, *options))

    weighted = "weight_by_label_freqs: true class_weighting: [0.5, 2, 3]"
    check(
        {
            "x": drawn(21, (2, 3, 3)),
            "y": drawn(22, (2, 3, 3)),
            "labels": labels.astype(float),
            "labelled": np.where(labels > 2, 1.0, labels).reshape(2, 1, 3),
            "targets": labels[:, None] % 3 + np.zeros((2, 3, 3)),
            "scores": drawn(23, (4, 3)),
            "classes": np.array([0.0, 2.0, 1.0, 1.0]),
            "probabilities": drawn(24, (4, 3), 0, 1),
        },
        softmax("ignore_label: 255", "x labels", "VALID", 255),
        softmax("", "x labelled", "VALID"),
        softmax("ignore_label: 255 normalize: false", "x labels", "BATCH_SIZE", 255),
        softmax("ignore_label: 255 normalization: FULL", "x labels", "FULL", 255),
        softmax("ignore_label: 255 normalization: NONE", "x labels", "NONE", 255),
        softmax(weighted, "x labelled", "VALID", None, (0.5, 2, 3)),
        layer("SigmoidCrossEntropyLoss", "", "x targets", sigmoid_loss),
        layer(
            "SigmoidCrossEntropyLoss",
            "loss_param { ignore_label: 1 normalization: VALID }",
            "x targets",
            lambda x, t: sigmoid_loss(x, t, 1),
        ),
        layer("EuclideanLoss", "", "x y", halves_of_squares),
        layer("HingeLoss", "", "scores classes", lambda x, c: hinges(x, c, 1)),
        layer(
            "HingeLoss",
            "hinge_loss_param { norm: L2 }",
            "scores classes",
            lambda x, c: hinges(x, c, 2),
        ),
        layer("MultinomialLogisticLoss", "", "probabilities classes", logarithms),
        fixed={"labels", "labelled", "targets", "classes"},
    )


def test_accuracy():
    scores, labels = drawn(25, (3, 4, 2)), np.array([[0, 3], [255, 1], [2, 2]])
    scores[0, 1, 0] = scores[0, 0, 0] = 20.0  # an equal one counts as better

    def shares(k, ignore):
        right, seen = np.zeros(4), np.zeros(4)
        for n, i in np.ndindex(3, 2):
            label = labels[n, i] if labels[n, i] != 255 else (None if ignore else 0)
            if label is None:
                continue
            better = sum(scores[n, c, i] >= scores[n, label, i] for c in range(4)) - 1
            right[label] += better < k
            seen[label] += 1
        return right.sum() / seen.sum(), [
            r / s if s else 0 for r, s in zip(right, seen, strict=True)
        ]

    for k in (1, 2):
        text = input_layer("x", (3, 4, 2)) + input_layer("y", (3, 2))
        text += layer_text(
            "a",
            "Accuracy",
            ["x", "y"],
            ["a", "b"],
            f"accuracy_param {{ top_k: {k} ignore_label: 255 }}",
        )
        tops = jax.jit(caffe.load(text))({}, {"x": jnp.asarray(scores), "y": jnp.asarray(labels)})
        for found, expected in zip((tops["a"], tops["b"]), shares(k, True), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("legacy", [False, True])
def test_contrastive_loss_as_caffe_differentiates_it(legacy):
    """Caffe adds 1e-4 to the distance in the backward pass only."""
    a, b, similar = drawn(26, (5, 3)), drawn(27, (5, 3)), np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    b[1], b[2] = a[1] + 0.25, a[2] - 0.5
    loss, slope = 0.0, np.zeros((5, 3))
    for n in range(5):
        square = ((a[n] - b[n]) ** 2).sum()
        if similar[n]:
            loss, slope[n] = loss + square, a[n] - b[n]
        elif legacy:
            loss += max(2 - square, 0)
            slope[n] = -(a[n] - b[n]) if square < 2 else 0
        else:
            lack = max(2 - math.sqrt(square), 0)
            loss += lack**2
            slope[n] = -lack / (math.sqrt(square) + 1e-4) * (a[n] - b[n])
    fields = f"contrastive_loss_param {{ margin: 2 legacy_version: {str(legacy).lower()} }}"
    text = "".join(input_layer(*i) for i in (("a", (5, 3)), ("b", (5, 3)), ("y", (5,))))
    net = caffe.load(text + layer_text("loss", "ContrastiveLoss", "aby", ["loss"], fields))

    def total(a, b):
        return net.loss({}, {"a": a, "b": b, "y": jnp.asarray(similar)})[0]

    value, slopes = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(
        jnp.asarray(a), jnp.asarray(b)
    )
    np.testing.assert_allclose(value, loss / 10, rtol=1e-5)
    np.testing.assert_allclose(slopes[0], slope / 5, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(slopes[1], -slope / 5, rtol=1e-4, atol=1e-6)


def test_filter_and_silence():
    text = input_layer("x", (3, 2)) + input_layer("s", (3, 1))
    text += layer_text("f", "Filter", "xs", ["t"]) + layer_text("quiet", "Silence", "s", [])
    net = caffe.load(text)
    assert net.outputs == ("t",)
    given = {"x": jnp.arange(6.0).reshape(3, 2), "s": jnp.array([[1.0], [0.0], [2.0]])}
    np.testing.assert_array_equal(net({}, given)["t"], [[0, 1], [4, 5]])
    with pytest.raises(ValueError, match="selector must be known while tracing"):
        jax.jit(net)({}, given)
    text += layer_text("all", "Silence", "t", [])
    assert repr(caffe.load(text)).endswith("inputs x 3x2, s 3x1; outputs none)")


def test_other_names():
    fields = "convolution_param { num_output: 2 kernel_size: 2 group: 2 weight_filler { type: 'xavier' } }"
    kinds = ("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution")
    text = input_layer("x", (1, 2, 3, 3))
    text += "".join(
        layer_text(f"c{i}", kind, "x", [f"c{i}"], fields) for i, kind in enumerate(kinds)
    )
    net = caffe.load(text + layer_text("out", "HDF5Output", ["c2"], []))
    assert net.outputs == ("c0", "c1")
    params = dict.fromkeys(net.params, net.params["c0"])
    tops = net(params, {"x": jnp.ones((1, 2, 3, 3))}, ("c0", "c1", "c2"))
    np.testing.assert_array_equal(tops["c0"], tops["c1"])
    np.testing.assert_array_equal(tops["c0"], tops["c2"])


def test_holes_by_height_and_width_and_whose_statistics_count():
    """hole is the dilation by another name, and use_global_stats goes before the phase."""
    text = input_layer("x", (2, 1, 5, 5))
    for name, hole in (("a", "hole_h: 2 hole_w: 1"), ("b", "hole_h: 2"), ("c", "dilation: [2, 1]")):
        fields = f"convolution_param {{ num_output: 1 kernel_size: 2 {hole} }}"
        text += layer_text(name, "Convolution", "x", [name], fields)
    for name, says in (
        ("d", ""),
        ("e", "use_global_stats: true"),
        ("f", "use_global_stats: false"),
    ):
        text += layer_text(name, "BatchNorm", "x", [name], f"batch_norm_param {{ {says} }}")
    x = jnp.asarray(drawn(43, (2, 1, 5, 5)), jnp.float32)
    kernel = [jnp.arange(4.0).reshape(1, 1, 2, 2), jnp.ones(1)]
    stored = [jnp.full(1, 2.0), jnp.full(1, 6.0), jnp.full(1, 2.0)]
    for phase, like in (("TEST", "e"), ("TRAIN", "f")):
        net = caffe.load(text, phase=phase)
        tops, new = net.apply(dict.fromkeys("abc", kernel) | dict.fromkeys("def", stored), {"x": x})
        np.testing.assert_array_equal(tops["a"], tops["c"])
        np.testing.assert_array_equal(tops["b"], tops["c"])
        np.testing.assert_array_equal(tops["d"], tops[like])
        np.testing.assert_allclose(tops["e"], (x - 1) / np.sqrt(3 + 1e-5), rtol=1e-5)
        np.testing.assert_allclose(tops["f"].mean(), 0, atol=1e-6)
        assert (new["e"][2] == 2).all()
        assert (new["f"][2] > 2).all()


V1 = """
layers { name: "data" type: HDF5_DATA top: "data" top: "label" hdf5_data_param { source: "h" batch_size: 2 } }
layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip"
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "label" include { phase: TRAIN } loss_weight: 2 }
layers { name: "prob" type: SOFTMAX bottom: "ip" top: "prob" exclude { phase: TRAIN } }
"""


def test_spellings_of_v1():
    shapes = {"data": (2, 4), "label": (2,)}
    net, testing = (caffe.load(V1, phase=phase, shapes=shapes) for phase in ("TRAIN", "TEST"))
    assert (net.outputs, testing.outputs) == (("loss",), ("label", "prob"))
    assert (net.lr_mult, net.decay_mult) == ({"ip": [1, 2]}, {"ip": [1, 0]})
    inputs = {"data": jnp.asarray(drawn(44, (2, 4)), jnp.float32), "label": jnp.array([0, 2])}
    prob = testing(net.params, inputs)["prob"]
    expected = -jnp.log(prob[0, 0]) - jnp.log(prob[1, 2])  # a mean of two, times 2
    np.testing.assert_allclose(net.loss(net.params, inputs)[0], expected, rtol=1e-5)
    sources = ("Data", "HDF5Data", "ImageData", "MemoryData", "WindowData")
    for kind in {kind for _, kind in V1_TYPES.values()} - {*sources, "NONE", "InfogainLoss"}:
        assert kind in LAYERS


# What a net can do.

TRAIN_VAL = """
name: "every construct"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 8 mean_value: 104 mean_value: 117 mean_file: "mean" mirror: true }
  data_param { source: "train" batch_size: 2 backend: LMDB prefetch: 4 } }
layer { name: "data" type: "ImageData" top: "data" top: "label" include { phase: TEST stage: "val" }
  image_data_param { batch_size: 3 new_height: 8 new_width: 8 } transform_param { crop_size: 8 } }
layer { name: "noise" type: "Input" top: "noise" input_param { shape { dim: 2 dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 decay_mult: 1 }
  param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 pad: 2 hole: 2 engine: CAFFE
  weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn"
  batch_norm_param { moving_average_fraction: 0.5 } }
layer { name: "relu" type: "ReLU" bottom: "bn" top: "bn" relu_param { } other_param { } }
layer { name: "lrn" type: "LRN" bottom: "bn" top: "lrn" lrn_param { local_size: 3 } }
layer { name: "pool" type: "Pooling" bottom: "lrn" top: "pool" top: "mask"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "up" type: "Upsample" bottom: "pool" bottom: "mask" top: "up" upsample_param { scale: 2 } }
layer { name: "sum" type: "Eltwise" bottom: "up" bottom: "lrn" top: "sum" }
layer { name: "drop" type: "Dropout" bottom: "sum" top: "sum" include { phase: TRAIN } }
layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "aux" type: "InnerProduct" bottom: "noise" top: "aux" propagate_down: false
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" loss_weight: 2
  include { phase: TRAIN } top: "loss" loss_param { ignore_label: 255 } }
layer { name: "far" type: "EuclideanLoss" bottom: "ip" bottom: "aux" top: "far" loss_weight: 0.5
  include { phase: TRAIN } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "quiet" type: "Silence" bottom: "noise" }
layer { name: "elsewhere" type: "Unheard" bottom: "ip" top: "x" include { stage: "deploy" }
  unheard_param { a: 1 } }
"""


def given(batch, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "data": jnp.asarray(rng.normal(size=(batch, 2, 8, 8)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 3, batch)),
        "noise": jnp.asarray(rng.normal(size=(batch, 2)), jnp.float32),
    }


def test_a_training_net_with_every_construct():
    net = caffe.load(TRAIN_VAL, phase="TRAIN")
    assert net.inputs == {"data": (2, 2, 8, 8), "label": (2,), "noise": (2, 2)}
    assert net.outputs == ("loss", "far")
    assert net.lr_mult["conv"] == [1, 2]
    assert net.decay_mult["conv"] == [1, 0]
    assert net.lr_mult["bn"] == [0, 0, 0]
    inputs, key = given(2), jax.random.key(1)
    step = jax.jit(jax.value_and_grad(net.loss, has_aux=True))
    (loss, new), slopes = step(net.params, inputs, key=key)
    names = ("loss", "far", "conv")
    tops, also_new = jax.jit(lambda *args, key: net.apply(*args, names, key=key))(
        net.params, inputs, key=key
    )
    np.testing.assert_allclose(loss, 2 * tops["loss"] + 0.5 * tops["far"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), new, also_new)
    conv = np.asarray(tops["conv"], float)
    mean, variance = conv.mean((0, 2, 3)), conv.var((0, 2, 3)) * 128 / 127
    for found, expected in zip(new["bn"], (mean, variance, [1]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert all(np.abs(slope).max() == 0 for slope in slopes["bn"])
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
    assert all(np.abs(slopes[name][0]).max() > 0 for name in ("conv", "ip", "aux"))
    (other, _), _ = step(net.params, inputs, key=jax.random.key(2))
    assert other != loss  # another dropout
    _, twice = net.apply(new, inputs, key=key)
    np.testing.assert_allclose(twice["bn"][2], [1.5])
    with pytest.raises(ValueError, match=r"Net: key is needed: line \d+, layer 'drop' \(Dropout\)"):
        net.loss(net.params, inputs)


def test_a_testing_net_of_the_same_text():
    """Sources of other stages become inputs; sizes are free; a net is pickled, and cut."""
    net = caffe.load(TRAIN_VAL, shapes={"data": (3, 2, 8, 8), "noise": (3, 2)})
    assert net.inputs == {"data": (3, 2, 8, 8), "label": (3,), "noise": (3, 2)}
    assert net.outputs == ("aux", "accuracy")
    assert repr(net).startswith(
        "Net('every construct', TEST, 11 layers, 865 parameters; inputs noise"
    )
    table = net.summary().splitlines()
    assert [line.split()[0] for line in table[:5]] == ["layer", "noise", "data", "label", "conv"]
    assert table[4].split()[-2:] == ["76", f"{3 * 64 * 4 * 18:,}"]
    inputs = given(3)
    again = pickle.loads(pickle.dumps(net))
    tops = net(net.params, inputs)
    for name, top in again(again.params, inputs).items():
        np.testing.assert_array_equal(top, tops[name])
    trunk = caffe.load(TRAIN_VAL, until="pool", shapes={"data": (1, 2, 6, 10)})
    assert (set(trunk.params), set(trunk.inputs)) == ({"conv", "bn"}, {"data"})
    assert trunk.outputs == ("pool", "mask")
    wide = trunk(trunk.params, {"data": jnp.ones((2, 2, 12, 6))})
    assert wide["pool"].shape == (2, 4, 6, 3)
    with pytest.raises(ValueError, match=r"params need shape \(3, 576\) for blob 0 of layer 'ip'"):
        net(net.params, inputs | {"data": jnp.ones((3, 2, 12, 12))})


OPEN = """
layer { name: "data" type: "Python" top: "data" top: "label"
  python_param { module: "m" layer: "l" param_str: "{'a': 1}" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "crf" type: "MultiStageMeanfield" bottom: "conv" top: "crf" multi_stage_meanfield_param { a: 1 } }
layer { name: "mine" type: "Python" bottom: "crf" bottom: "label" top: "mine" loss_weight: 1
  python_param { layer: "l" } }
"""


def test_sizes_that_the_text_leaves_open_and_layers_that_the_caller_brings():
    with pytest.raises(ValueError, match="2 problems") as caught:
        caffe.load(OPEN)
    assert "line 6, layer 'crf' (MultiStageMeanfield): there is no such type; pass layers=" in str(
        caught.value
    )
    assert "line 7, layer 'mine' (Python): there is no such type" in str(caught.value)

    def mine(x, y):
        return ((x - y) ** 2).sum()

    net = caffe.load(OPEN, layers={"MultiStageMeanfield": lambda x: 2 * x, "mine": mine})
    assert net.inputs == {"data": None, "label": None}
    assert net.params is None
    assert "sizes open" in repr(net)
    with pytest.raises(ValueError, match=r"shapes must have the sizes of .'data', 'label'."):
        net.init(jax.random.key(0))
    with pytest.raises(ValueError, match="params are not there yet"):
        net(net.params, {"data": jnp.ones((1, 3, 5, 4)), "label": jnp.zeros((1, 2, 5, 4))})
    params = net.init(jax.random.key(0), {"data": (1, 3, 4, 4), "label": (1, 2, 4, 4)})
    x, y = jnp.ones((1, 3, 5, 4)), jnp.zeros((1, 2, 5, 4))
    tops = net(params, {"data": x, "label": y}, ["conv", "mine"])
    np.testing.assert_allclose(tops["mine"], (4 * tops["conv"] ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(net.loss(params, {"data": x, "label": y})[0], tops["mine"])
    both = caffe.load(
        OPEN.replace('top: "crf"', 'top: "crf" top: "also"'),
        layers={"crf": lambda x: (x, -x), "Python": mine},
    )
    assert both.outputs == ("also", "mine")
    np.testing.assert_array_equal(both(params, {"data": x, "label": y})["also"], -tops["conv"])
    trunk = caffe.load(OPEN, until="conv", shapes={"data": (1, 3, 4, 4)})
    assert set(trunk.inputs) == {"data"}
    with pytest.raises(
        ValueError, match=r"layers must name layers or types of the phase, got .'Foo'."
    ):
        caffe.load(OPEN, until="conv", layers={"Foo": abs})


SOURCES = """
layer { name: "a" type: "MemoryData" top: "a" top: "b"
  memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 } }
layer { name: "c" type: "WindowData" top: "c" top: "d"
  window_data_param { source: "w" batch_size: 2 crop_size: 6 fg_threshold: 0.5 } }
layer { name: "e" type: "HDF5Data" top: "e" top: "f" hdf5_data_param { source: "h" batch_size: 2 } }
layer { name: "g" type: "DenseImageData" top: "g" top: "h"
  dense_image_data_param { batch_size: 2 new_height: 7 new_width: 8 } }
layer { name: "i" type: "Data" top: "i" data_param { batch_size: 2 }
  transform_param { crop_size: 6 mean_value: [1, 2] } }
layer { name: "j" type: "AnnotatedData" top: "j" annotated_data_param { label_map_file: "m" } }
layers { name: "k" type: IMAGE_DATA top: "k" top: "l" image_data_param { batch_size: 2 } }
"""


def test_data_layers_are_inputs():
    expected = {
        "a": (2, 3, 4, 5), "b": (2,), "c": (2, 3, 6, 6), "d": (2,), "e": None, "f": None,
        "g": (2, 3, 7, 8), "h": (2, 1, 7, 8), "i": (2, 2, 6, 6), "j": None,
        "k": (2, 3, None, None), "l": (2,),
    }  # fmt: skip
    assert caffe.load(SOURCES).inputs == expected
    sizes = {"e": (1, 3, 5, 5), "c": (1, 3, 9, 9)}
    assert caffe.load(SOURCES, shapes=sizes).inputs == expected | sizes


def test_dummy_data_is_what_its_fillers_draw():
    fields = """dummy_data_param { shape { dim: 2 dim: 3 }
        data_filler { value: 5 } data_filler { type: "gaussian" std: 2 } }"""
    net = caffe.load(layer_text("d", "DummyData", "", ["five", "noise"], fields))
    assert net.inputs == {}
    one, again, other = (net({}, {}, key=jax.random.key(i)) for i in (1, 1, 2))
    np.testing.assert_array_equal(one["five"], np.full((2, 3), 5))
    np.testing.assert_array_equal(one["noise"], again["noise"])
    assert (one["noise"] != other["noise"]).all()
    assert 0.5 < np.std(one["noise"]) < 4
    with pytest.raises(ValueError, match=r"key is needed: line 1, layer 'd' \(DummyData\) draws"):
        net({}, {})
    old = "dummy_data_param { num: 1 num: 4 channels: 2 height: 3 width: 1 }"
    tops = caffe.load(layer_text("d", "DummyData", "", "ab", old))({}, {})
    assert {name: top.shape for name, top in tops.items()} == {"a": (1, 2, 3, 1), "b": (4, 2, 3, 1)}
    assert not any(top.any() for top in tops.values())
    with pytest.raises(ValueError, match="a shape and a filler for each of 3 tops, or one for all"):
        caffe.load(layer_text("d", "DummyData", "", "abc", old))


STATES = """
state { stage: "deploy" level: 2 }
layer { name: "drop" type: "Dropout" bottom: "x" top: "y" phase: %s }
layer { name: "a" type: "ReLU" bottom: "y" top: "a" include { stage: "deploy" min_level: 2 } }
layer { name: "b" type: "ReLU" bottom: "y" top: "b" include { not_stage: "deploy" } }
layer { name: "c" type: "ReLU" bottom: "y" top: "c" exclude { max_level: 1 } }
layer { name: "d" type: "ReLU" bottom: "y" top: "d" include { stage: "deploy" stage: "val" } }
"""


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_layers_own_phase_says_how_it_computes_and_not_whether_it_is_there(phase):
    """As in Net::FilterNet, which looks at include and exclude only, and at the state of the file."""
    x = jnp.ones((1, 50))
    for net_phase in ("TRAIN", "TEST"):
        net = caffe.load(input_layer("x", (1, 50)) + STATES % phase, phase=net_phase)
        assert net.outputs == ("a", "c")
        drawn = net({}, {"x": x}, key=jax.random.key(0))["a"]
        assert (drawn == 1).all() == (phase == "TEST")


def test_moments_of_pspnet_and_dropout_of_segnet():
    text = input_layer("x", (2, 3, 2, 2))
    text += layer_text(
        "bn", "BN", "x", "b", "bn_param { slope_filler { value: 2 } momentum: 0.75 }"
    )
    text += layer_text("drop", "Dropout", "b", "d", "dropout_param { sample_weights_test: true }")
    x = jnp.asarray(drawn(40, (2, 3, 2, 2)), jnp.float32)
    for phase in ("TRAIN", "TEST"):
        net = caffe.load(text, phase=phase)
        params = net.params | {
            "bn": [*net.params["bn"][:2], jnp.ones((1, 3, 1, 1)), 4 * jnp.ones((1, 3, 1, 1))]
        }
        tops, new = net.apply(params, {"x": x}, ["b", "d"], key=jax.random.key(0))
        mean = np.mean(x, (0, 2, 3), keepdims=True) if phase == "TRAIN" else 1.0
        variance = np.var(x, (0, 2, 3), keepdims=True) if phase == "TRAIN" else 4.0
        np.testing.assert_allclose(
            tops["b"], 2 * (x - mean) / np.sqrt(variance + 1e-5), rtol=1e-4, atol=1e-5
        )
        kept = np.asarray(tops["d"]) != 0
        assert 0 < kept.sum() < kept.size
        np.testing.assert_allclose(tops["d"][kept], 2 * tops["b"][kept], rtol=1e-6)
        if phase == "TRAIN":
            np.testing.assert_allclose(new["bn"][2], 0.75 + 0.25 * mean, rtol=1e-5)
            np.testing.assert_allclose(new["bn"][3], 3 + 0.25 * variance, rtol=1e-5)


HED = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 12 input_dim: 16
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 2 kernel_size: 3 pad: 35 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "up" type: "Deconvolution" bottom: "pool1" top: "up"
  convolution_param { num_output: 1 kernel_size: 4 stride: 2 } }
layer { name: "crop" type: "Crop" bottom: "up" bottom: "data" top: "crop" }
layer { name: "crop1" type: "Crop" bottom: "conv1" bottom: "data" top: "crop1" crop_param { offset: 34 } }
"""


def test_crop_layers_without_an_offset():
    with pytest.warns(
        UserWarning, match=r"line 8, layer 'crop' \(Crop\) has no offset.* take \[35, 35\]"
    ):
        plain = caffe.load(HED)
    hole = HED.replace("kernel_size: 3 pad: 35", "kernel_size: 2 hole: 2 pad: 35")
    depthwise = hole.replace('"Convolution"', '"DepthwiseConvolution"')
    x = {"data": jnp.asarray(drawn(41, (1, 3, 12, 16)), jnp.float32)}
    for text, align in ((HED, False), (HED, True), (hole, True), (depthwise, True)):
        net = plain if not align else caffe.load(text, align=True)
        params = jax.tree.map(
            lambda a: jnp.arange(a.size, dtype=a.dtype).reshape(a.shape) % 3, net.params
        )
        tops, begin = net(params, x, ["up", "crop"]), 35 * align
        cut = slice(begin, begin + 12), slice(begin, begin + 16)
        np.testing.assert_array_equal(tops["crop"], tops["up"][:, :, *cut])


@pytest.mark.parametrize(
    "between",
    [
        'type: "Slice" top: "cut" top: "other" slice_param { axis: 2 slice_point: 5 }',
        'type: "Tile" top: "cut" tile_param { axis: 3 tiles: 2 }',
        'type: "Crop" bottom: "data" top: "cut" crop_param { axis: 3 offset: 2 }',
        'type: "CropCenter" top: "cut" crop_center_param { crop_size: [0, 0, 4, 4] }',
    ],
)
def test_no_offset_is_derived_behind_layers_that_move_cells(between):
    text = HED.replace(
        'layer { name: "crop" type: "Crop" bottom: "up"',
        f'layer {{ name: "cut" bottom: "up" {between} }}\n'
        'layer { name: "crop" type: "Crop" bottom: "cut"',
    )
    with pytest.raises(
        ValueError, match=r"line 9, layer 'crop' \(Crop\): offset cannot be derived"
    ):
        caffe.load(text, align=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            'layer { name: "r" type: "relu" bottom: "x" top: "r" }',
            r"line 2, layer 'r' \(relu\): .* did you mean 'ReLU'",
        ),
        (
            'layer { name: "r" type: "ReLU" bottom: "x" top: "r" relu_param { slope: 2 } }',
            r"2:\d+ : .* no field named .slope",
        ),
        (layer_text("l", "SoftmaxWithLoss", "xx", "l"), "bottom needs a label for each of"),
        (
            input_layer("t", (1, 3, 6, 6)) + layer_text("l", "EuclideanLoss", "xt", "l"),
            r"shapes must hold as many numbers for each item, got 'x' \(1, 3, 4, 4\), 't' \(1, 3, 6, 6\)",
        ),
        (
            layer_text("l", "LRN", "x", "l", "lrn_param { local_size: 4 }"),
            "local_size must be odd, got 4",
        ),
        (
            layer_text("u", "Upsample", "xx", "u", "upsample_param { scale: 2147483647 }"),
            "upsample_param asks for",
        ),
        (
            layer_text("b", "BN", "x", "b", "bn_param { scale_filler { } frozen: true }"),
            "has scale_filler of SegNet",
        ),
        (
            layer_text("d", "Dropout", "x", "d", "dropout_param { dropout_ratio: 1 }"),
            "dropout_ratio must be at least 0",
        ),
        (layer_text("i", "Interp", "x", "i"), "needs height and width"),
        (
            layer_text("r", "ReLU", "x", "r", "propagate_down: true propagate_down: false"),
            "propagate_down needs one value for each bottom",
        ),
        (
            layer_text("a", "ReLU", "x", "a")
            + layer_text("b", "ReLU", "z", "b")
            + layer_text("c", "Nil", "x", "c"),
            "2 problems",
        ),
        ("layer { name: 'l'", "is no net's definition"),
        ("} layer { }", "is no net's definition"),
    ],
)
def test_what_a_text_refuses(text, reason):
    with pytest.raises(ValueError, match=f"(?s)load: prototxt the text:? .*{reason}"):
        caffe.load(input_layer("x", (1, 3, 4, 4)) + text)


def test_an_infinite_power_is_a_power():
    text = input_layer("x", (2,)) + layer_text("p", "Power", "x", "p", "power_param { power: inf }")
    net = caffe.load(text)
    assert net(net.params, {"x": jnp.array([0.5, 2.0])})["p"].tolist() == [0, jnp.inf]


def test_calls_say_what_they_need():
    fields = "inner_product_param { num_output: 2 }"
    text = input_layer("x", (1, 3)) + layer_text("ip", "InnerProduct", "x", ["ip"], fields)
    net, x = caffe.load(text), jnp.ones((1, 3))
    inputs = {"x": x}
    for arguments, kind, reason in (
        (
            (net.params, x),
            TypeError,
            r"inputs must be a dict of arrays, {'x': \.\.\.}, got float32",
        ),
        ((net.params, None), TypeError, r"inputs must be a dict of arrays, .* got None"),
        ((net.params, {"y": x}), ValueError, r"inputs need \['x'\], got \['y'\]"),
        ((None, inputs), TypeError, "params must be a dict of lists of arrays, such as net.params"),
        (({}, inputs), ValueError, "params must have a list of blobs for layer 'ip', .* got None"),
        (({"ip": net.params["ip"][:1]}, inputs), TypeError, "params must have a list of blobs for"),
        ((net.params, inputs, "ip"), TypeError, "tops must be a sequence of names, got 'ip'"),
        ((net.params, inputs, ["pi"]), ValueError, r"tops must be of .*'ip', 'x'.*, got .*'pi'"),
    ):
        with pytest.raises(kind, match=f"Net: {reason}"):
            net(*arguments)
    with pytest.raises(ValueError, match="Net: net has no top with a loss_weight"):
        net.loss(net.params, inputs)
