"""compat.torch against torch itself: random arguments, values, gradients and tangents, exactly."""

import inspect
import random
import re

import jax
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
