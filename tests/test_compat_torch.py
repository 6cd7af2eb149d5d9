"""compat.torch against torch itself: random arguments, values, gradients and tangents, exactly."""

import inspect
import random
import re
from functools import partial

import jax
import numpy as np
import pytest
from geometry import drawn
from thinned import thinned

from jdeconv.compat import torch as compat

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def assert_same(ours, theirs, arrays, has_tangents=True):
    """Values and all gradients by a cotangent, and a tangent in the first operand."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = theirs(*tensors)
    ours = jax.jit(ours)  # compiles once, and not each of its operations
    result, vjp = jax.vjp(ours, *arrays)
    np.testing.assert_array_equal(result, expected.detach().numpy())
    cotangent = (np.arange(result.size) % 7 - 3).reshape(result.shape).astype(np.float32)
    expected.backward(torch.tensor(cotangent))
    for mine, tensor in zip(vjp(cotangent), tensors, strict=True):
        np.testing.assert_array_equal(mine, tensor.grad.numpy())
    if has_tangents:
        tangent = jax.jvp(lambda x: ours(x, *arrays[1:]), (arrays[0],), (arrays[0] + 1,))[1]
        more, base = (ours(x, *arrays[1:]) for x in (2 * arrays[0] + 1, arrays[0]))
        np.testing.assert_array_equal(tangent, more - base)


def one_or_each(rng, rank, least, most):
    """An int for all axes, or one for each."""
    return rng.choice(
        [rng.randint(least, most), tuple(rng.randint(least, most) for _ in range(rank))]
    )


def geometry(seed):
    rng = random.Random(seed)
    rank = 1 + seed % 3
    value = partial(one_or_each, rng, rank)
    per_axis = lambda v: (v,) * rank if isinstance(v, int) else v  # noqa: E731
    groups, c, o = rng.choice([1, 1, 2, 3]), rng.randint(1, 3), rng.randint(1, 3)
    batch = rng.choice([(), (1,), (2,)])
    return rng, rank, value, per_axis, groups, c, o, batch


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("seed", thinned(range(45), (0, 3, 7, 8, 14, 24, 35, 40)))
def test_conv(seed):
    rng, rank, value, per_axis, groups, c, o, batch = geometry(seed)
    k, stride, dilation = per_axis(value(1, 3)), value(1, 3), value(1, 2)
    padding = rng.choice([value(0, 2), "valid", "same"])
    if padding == "same":
        stride = 1
    i = [d * (a - 1) + 1 + rng.randint(0, 4) for a, d in zip(k, per_axis(dilation), strict=True)]
    arrays = drawn(seed, (*batch, groups * c, *i), (groups * o, c, *k), (groups * o,))
    arrays = arrays[: rng.choice([2, 3])]
    ours, theirs = (getattr(module, f"conv{rank}d") for module in (compat, functional))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    assert_same(lambda *a: ours(*a, **options), lambda *a: theirs(*a, **options), arrays)


@pytest.mark.parametrize("seed", thinned(range(45), (0, 3, 7, 8, 14, 24, 35, 40)))
def test_conv_transpose(seed):
    rng, rank, value, per_axis, groups, c, o, batch = geometry(seed)
    k, stride, dilation = per_axis(value(1, 4)), value(1, 3), value(1, 2)
    i = [rng.randint(2, 4) for _ in range(rank)]
    steps = list(zip(k, per_axis(stride), per_axis(dilation), strict=True))
    output_padding = tuple(rng.randint(0, max(s, d) - 1) for _, s, d in steps)
    padding = tuple(rng.randint(0, d * (a - 1) // 2) for a, _, d in steps)
    arrays = drawn(seed, (*batch, groups * c, *i), (groups * c, o, *k), (groups * o,))
    arrays = arrays[: rng.choice([2, 3])]
    ours, theirs = (getattr(module, f"conv_transpose{rank}d") for module in (compat, functional))
    options = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "groups": groups,
        "dilation": dilation,
    }
    assert_same(lambda *a: ours(*a, **options), lambda *a: theirs(*a, **options), arrays)


@pytest.mark.parametrize("seed", thinned(range(20), 3))
def test_unfold_and_fold(seed):
    rng = random.Random(seed)
    value = partial(one_or_each, rng, 2)
    pair = lambda v: (v, v) if isinstance(v, int) else v  # noqa: E731
    options = {
        "kernel_size": value(1, 3),
        "stride": value(1, 3),
        "padding": value(0, 2),
        "dilation": value(1, 2),
    }
    size = tuple(
        d * (k - 1) + 1 + rng.randint(0, 4)
        for k, d in zip(pair(options["kernel_size"]), pair(options["dilation"]), strict=True)
    )
    if rng.random() < 0.3:
        size = (max(size),) * 2
    batch = rng.choice([(), (2,)])
    (x,) = drawn(seed, (*batch, 3, *size))

    def unfold(x):
        return compat.unfold(x, **options)

    # im2col and col2im are custom_vjp functions.
    assert_same(unfold, lambda x: functional.unfold(x, **options), [x], has_tangents=False)
    columns = np.asarray(unfold(x)) + 1
    output_size = rng.choice([size, size[0]]) if size[0] == size[1] else size

    def fold(columns):
        return compat.fold(columns, output_size, **options)

    theirs = lambda columns: functional.fold(columns, output_size, **options)  # noqa: E731
    assert_same(fold, theirs, [columns], has_tangents=False)


@pytest.mark.parametrize("rank", [1, 3])
def test_fold_is_unfold_s_adjoint_in_other_ranks(rank):
    x = drawn(0, (2, 3, *(5, 4, 6)[:rank]))[0]
    options = {"kernel_size": (2, 1, 3)[:rank], "stride": 2, "padding": 1, "dilation": 1}
    columns, vjp = jax.vjp(lambda x: compat.unfold(x, **options), x)
    cotangent = np.asarray(columns) * 2 + 1
    folded = compat.fold(cotangent, x.shape[2:], **options)
    np.testing.assert_array_equal(folded, vjp(cotangent)[0])


@pytest.mark.parametrize("rank", thinned([1, 2, 3], {1}))
def test_output_size_is_that_of_torch_s_layers(rank):
    layer = getattr(torch.nn, f"ConvTranspose{rank}d")(2, 3, 3, stride=3, padding=1, dilation=2)
    x, w, b = drawn(rank, (1, 2, *(3, 2, 4)[:rank]), (2, 3, *[3] * rank), (3,))
    layer.load_state_dict({"weight": torch.tensor(w), "bias": torch.tensor(b)})
    ours = getattr(compat, f"conv_transpose{rank}d")
    options = {"stride": 3, "padding": 1, "dilation": 2}
    size = layer(torch.tensor(x)).shape[2:]
    for more in (0, 2):
        wanted = [s + more for s in size]
        expected = layer(torch.tensor(x), wanted).detach().numpy()
        for given in (wanted, (1, 3, *wanted)):
            found = ours(x, w, b, output_size=given, **options)
            np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match=f"conv_transpose{rank}d: output_size needs"):
        ours(x, w, output_size=[s + 3 for s in size], **options)


def pooled(seed):
    """The rank, an input with equal numbers, and arguments that max_pool and avg_pool share."""
    rng = random.Random(seed)
    rank = 1 + seed % 3
    value = partial(one_or_each, rng, rank)
    kernel = value(1, 3)
    least = kernel if isinstance(kernel, int) else min(kernel)
    options = {
        "kernel_size": kernel,
        "stride": rng.choice([None, value(1, 3)]),
        "padding": rng.randint(0, least // 2),
        "ceil_mode": rng.random() < 0.5,
    }
    batch = rng.choice([(), (2,)])
    return rng, rank, drawn(seed, (*batch, 2, *(7, 6, 5)[:rank])), options


@pytest.mark.parametrize("seed", thinned(range(36), 7))
def test_max_pool(seed):
    rng, rank, arrays, options = pooled(seed)
    options["dilation"] = rng.randint(1, 2)
    ours, theirs = (getattr(module, f"max_pool{rank}d") for module in (compat, functional))
    options["return_indices"] = True
    found = jax.jit(lambda x: ours(x, **options))(arrays[0])
    for mine, expected in zip(found, theirs(torch.tensor(arrays[0]), **options), strict=True):
        np.testing.assert_array_equal(mine, expected.numpy())
    del options["return_indices"]
    arrays[0] *= np.float32(0.5)  # so that equal numbers are more than once the largest
    assert_same(
        lambda x: ours(x, **options), lambda x: theirs(x, **options), arrays, has_tangents=False
    )


@pytest.mark.parametrize("seed", thinned(range(36), 7))
def test_avg_pool(seed):
    rng, rank, arrays, options = pooled(seed)
    options["count_include_pad"] = rng.random() < 0.5
    if rank > 1:
        options["divisor_override"] = rng.choice([None, 3])
    ours, theirs = (getattr(module, f"avg_pool{rank}d") for module in (compat, functional))
    x = torch.tensor(arrays[0], requires_grad=True)
    expected = theirs(x, **options)
    found, vjp = jax.vjp(jax.jit(lambda x: ours(x, **options)), arrays[0])
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-6)
    expected.backward(expected.detach())
    np.testing.assert_allclose(vjp(found)[0], x.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_pools_of_half_precision_integers_and_nan():
    x = np.full((1, 1, 512), 1.25, np.float16)
    assert compat.avg_pool1d(x, 512).tolist() == [[[1.25]]]
    assert compat.max_pool1d(np.array([[[-7, -9, 3]]]), 2, 1, 1).tolist() == [[[-7, -7, 3, 3]]]
    assert np.isnan(compat.max_pool1d(np.array([[[1.0, np.nan, 2.0]]]), 3)).all()
    for module, array in ((compat, np.asarray), (functional, torch.tensor)):
        with pytest.raises((ValueError, RuntimeError), match="half of"):
            module.max_pool1d(array(np.ones((1, 1, 5), np.float32)), 3, padding=2)


MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (2,),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "trilinear": (3,),
    "bicubic": (2,),
}
RESIZED = [
    (mode, rank, how, aligned, antialias)
    for mode, ranks in MODES.items()
    for rank in ranks
    for how in ("up", "down", "factor", "recomputed")
    for aligned in ((None, True, False) if mode.endswith(("linear", "cubic")) else (None,))
    for antialias in ((False, True) if mode in ("bilinear", "bicubic") else (False,))
]


@pytest.mark.parametrize(("mode", "rank", "how", "aligned", "antialias"), thinned(RESIZED, 7))
def test_interpolate(mode, rank, how, aligned, antialias):
    (x,) = drawn(rank, (2, 3, *(7, 6, 5)[:rank]))
    options = {"mode": mode, "align_corners": aligned, "antialias": antialias}
    options |= {
        "up": {"size": (13, 12, 8)[:rank]},
        "down": {"size": 3},
        "factor": {"scale_factor": (1.7, 2, 0.61)[:rank]},
        "recomputed": {"scale_factor": 0.45, "recompute_scale_factor": True},
    }[how]
    tensor = torch.tensor(x, requires_grad=True)
    expected = functional.interpolate(tensor, **options)
    found, vjp = jax.vjp(jax.jit(lambda x: compat.interpolate(x, **options)), x)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=2e-5, atol=2e-5)
    expected.backward(expected.detach())
    np.testing.assert_allclose(vjp(found)[0], tensor.grad.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factor", [1.1, 1 / 3, 3.3, 0.7])
def test_nearest_takes_torch_s_cells(factor):
    for size in (30, 49, 97):
        x = np.arange(size, dtype=np.float32).reshape(1, 1, -1)
        for mode in ("nearest", "nearest-exact"):
            expected = functional.interpolate(torch.tensor(x), scale_factor=factor, mode=mode)
            found = compat.interpolate(x, scale_factor=factor, mode=mode)
            np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("size", {}),
        ("size", {"size": 3, "scale_factor": 2}),
        ("input", {"size": 3, "mode": "bilinear"}),
        ("align_corners", {"size": 3, "align_corners": True}),
        ("antialias", {"size": 3, "antialias": True}),
        ("scale_factor", {"scale_factor": (2, 2)}),
        ("recompute_scale_factor", {"size": 3, "recompute_scale_factor": True}),
        ("mode", {"size": 3, "mode": "lanczos"}),
    ],
)
def test_interpolate_refuses(argument, options):
    with pytest.raises(ValueError, match=f"^interpolate: {argument} "):
        compat.interpolate(np.ones((1, 1, 4), np.float32), **options)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4), (2, 3, 2, 4)])
@pytest.mark.parametrize("count", [2, 4])
def test_batch_norm(training, shape, count):
    x, mean, var, weight, bias = drawn(len(shape), shape, (3,), (3,), (3,), (3,))
    arrays = (mean, abs(var) + 1, weight, bias)[:count]
    options = {"training": training, "momentum": 0.3, "eps": 1e-3}
    tensor = torch.tensor(x, requires_grad=True)
    tensors = [torch.tensor(a) for a in arrays]
    expected = functional.batch_norm(tensor, *tensors, **options)

    def ours(x):
        found = compat.batch_norm(x, *arrays, **options)
        return (found[0], found[1:]) if training else (found, ())

    found, vjp, new = jax.vjp(jax.jit(ours), x, has_aux=True)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    expected.backward(torch.tensor(2 * x))
    np.testing.assert_allclose(vjp(2 * x)[0], tensor.grad.numpy(), rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(new, tensors, strict=False):  # which torch has changed
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-5)
    if training:
        alone = compat.batch_norm(x, None, None, *arrays[2:], training=True, eps=1e-3)
        np.testing.assert_allclose(alone, found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("argument", "args"),
    [
        ("running_mean", (None, None)),
        ("running_var", (np.ones(3), None)),
        ("running_var", (np.ones(3), np.ones(2))),
        ("weight", (np.ones(3), np.ones(3), np.ones((1, 3)))),
        ("input", (None, None, None, None, True)),
    ],
)
def test_batch_norm_refuses(argument, args):
    with pytest.raises(ValueError, match=f"^batch_norm: {argument} "):
        compat.batch_norm(np.ones((1, 3), np.float32), *args)


def signature(name):
    """Names and defaults of torch's parameters, from its signature or the first line of its text."""
    function = getattr(functional, name)
    if name.startswith("max_pool"):  # which returns another function for other flags
        function = getattr(functional, f"{name}_with_indices")
    if callable(function) and name.startswith(("unfold", "fold", "interpolate", "batch", "max")):
        found = inspect.signature(function).parameters.values()
        return [(p.name, str(p.default)) for p in found]
    documented = function.__doc__.strip().splitlines()[0]
    names = re.findall(r"(\w+)(?:=([^,)]+))?[,)]", documented[documented.index("(") :])
    return [(n, default or str(inspect.Parameter.empty)) for n, default in names]


@pytest.mark.parametrize("name", compat.__all__)
def test_signatures_are_torch_s(name):
    parameters = inspect.signature(getattr(compat, name)).parameters.values()
    ours = [(p.name, str(p.default)) for p in parameters if p.kind != p.KEYWORD_ONLY]
    if name == "avg_pool1d":  # which torch gives no divisor
        ours.remove(("divisor_override", "None"))
    assert ours == signature(name)


def test_max_pool_refuses_complex_numbers():
    with pytest.raises(TypeError, match="input needs real numbers"):
        compat.max_pool1d(np.ones((1, 1, 4), np.complex64), 2)
