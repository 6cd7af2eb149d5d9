"""compat.torch against torch itself: random arguments, values, gradients and tangents, exactly."""

import inspect
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from thinned import thinned

from jdeconv.compat import torch as compat

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def drawn(seed, *shapes):
    draw = np.random.default_rng(seed).integers
    return [draw(-4, 5, shape).astype(np.float32) for shape in shapes]


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


def geometry(seed):
    rng = random.Random(seed)
    rank = 1 + seed % 3
    value = lambda least, most: rng.choice(  # noqa: E731
        [rng.randint(least, most), tuple(rng.randint(least, most) for _ in range(rank))]
    )
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
    value = lambda least, most: rng.choice(  # noqa: E731
        [rng.randint(least, most), (rng.randint(least, most), rng.randint(least, most))]
    )
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


@pytest.mark.parametrize("name", compat.__all__)
def test_signatures_are_torch_s(name):
    parameters = inspect.signature(getattr(compat, name)).parameters.values()
    if name in ("unfold", "fold"):
        theirs = list(inspect.signature(getattr(functional, name)).parameters.values())
        assert [(p.name, p.default) for p in parameters] == [(p.name, p.default) for p in theirs]
        return
    documented = getattr(functional, name).__doc__.strip().splitlines()[0]
    names = re.findall(r"(\w+)(?:=([^,)]+))?[,)]", documented[documented.index("(") :])
    assert [p.name for p in parameters] == [n for n, _ in names]
    for parameter, (_, default) in zip(parameters, names, strict=True):
        assert str(parameter.default) == default or parameter.default is inspect.Parameter.empty


X, W = jnp.ones((1, 4, 5, 6), jnp.float32), jnp.ones((2, 2, 3, 3), jnp.float32)
ROWS = jnp.ones((1, 6, 4), jnp.float32)


@pytest.mark.parametrize(
    ("call", "args", "options", "text"),
    [
        ("conv1d", (X, W), {}, r"conv1d\(weight=float32\[2,2,3,3\]\): needs 3 axes, 1 of them spatial"),
        ("conv2d", (X, W), {}, r"conv2d\(weight=.*axis 1 has 2 channels; input's 4 channels in 1 group need 4"),
        ("conv2d", (X[0, 0], W), {}, r"conv2d\(input=float32\[5,6\]\): needs 4 axes, 2 of them spatial, or 3"),
        ("conv2d", (X, W), {"groups": 3}, r"conv2d\(groups=3\): must divide input's 4 channels"),
        ("conv2d", (X, W), {"padding": "SAME"}, r"conv2d\(padding='SAME'\): the names are valid, same"),
        ("conv2d", (X, W), {"padding": "same", "stride": 2}, r"conv2d\(padding='same'\): needs stride 1"),
        ("conv2d", (X, W), {"padding": -1}, r"conv2d\(padding=-1\): must be at least 0"),
        ("conv2d", (X, W, X), {"groups": 2}, r"conv2d\(bias=float32\[1,4,5,6\]\): needs shape \(2,\)"),
        ("conv2d", (X, W), {"groups": 2, "dilation": 4}, r"conv2d\(padding=.*larger than the padded input"),
        ("conv_transpose2d", (X, W), {}, r"conv_transpose2d\(weight=.*axis 0 has 2 channels; input's 4"),
        ("conv_transpose2d", (X[:, :2], W), {"output_padding": 1}, r"output_padding=1\): .* allow 0..0"),
        ("conv_transpose3d", (X, W), {}, r"conv_transpose3d\(weight=.*needs 5 axes, 3 of them spatial"),
        ("unfold", (X, 6), {}, r"unfold\(padding=.*the kernel spans 6"),
        ("unfold", (X, (2, 2, 2, 2)), {}, r"unfold\(input=.*needs 6 axes, 4 of them spatial, or 5"),
        ("unfold", (X, 0), {}, r"unfold\(kernel_size=0\): must be at least 1"),
        ("fold", (X, 3, 2), {}, r"fold\(input=float32\[1,4,5,6\]\): needs 3 axes, or 2 without a batch"),
        ("fold", (ROWS, (3, 4), 2), {}, r"fold\(input=.*output_size \(3, 4\) has \[2, 3\] windows"),
        ("fold", (ROWS, 3, 2), {}, r"fold\(input=.*must hold a multiple of the kernel_size's 4 taps"),
        ("fold", (ROWS, (3, 3, 3), (2, 2)), {}, r"fold\(kernel_size=\(2, 2\)\): expected an int or one int"),
    ],
)  # fmt: skip
def test_what_is_refused(call, args, options, text):
    with pytest.raises(ValueError, match=text):
        getattr(compat, call)(*args, **options)
