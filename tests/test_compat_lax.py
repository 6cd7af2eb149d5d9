"""compat.lax and accelerate against jax.lax itself: random arguments, values, vjp and jvp, exactly."""

import inspect
import random
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry import drawn
from jax import lax
from thinned import thinned

from jdeconv import accelerate
from jdeconv.compat import lax as compat

LETTERS = {1: "H", 2: "HW", 3: "DHW"}


def layouts(rng, rank):
    """None, or three strings in any order; space is matched by letters."""
    if rng.random() < 0.3:
        return None
    words = ("NC" + LETTERS[rank], "OI" + LETTERS[rank], "NC" + LETTERS[rank])
    return tuple("".join(rng.sample(word, len(word))) for word in words)


def arguments(seed):
    """Operands and keyword arguments of conv_general_dilated; jax.lax on CPU misreads negative padding."""
    rng = random.Random(seed)
    rank = 1 + seed % 3
    ints = lambda least, most: [rng.randint(least, most) for _ in range(rank)]  # noqa: E731
    groups, batched = rng.choice([(1, 1), (1, 1), (2, 1), (3, 1), (1, 2), (1, 3)])
    n, c, o = batched * rng.randint(1, 3), rng.randint(1, 3), groups * batched * rng.randint(1, 2)
    lhs_dilation, window_strides, rhs_dilation = (
        rng.choice([[1] * rank, ints(1, 3)]) for _ in range(3)
    )
    k = ints(1, 4)
    i = [
        rng.randint(1, 7) + rng.choice([0, d * (k - 1)])
        for k, d in zip(k, rhs_dilation, strict=True)
    ]
    padding = []
    for size, e, k_, d in zip(i, lhs_dilation, k, rhs_dilation, strict=True):
        pair = [rng.randint(0, 3), rng.randint(0, 3)]
        pair[1] += max(0, d * (k_ - 1) + 1 - ((size - 1) * e + 1) - sum(pair))
        padding.append(tuple(pair))
    if set(lhs_dilation) == {1} and rng.random() < 0.3:
        padding = rng.choice(["SAME", "SAME_LOWER", "same"])
    if rng.random() < 0.3:  # as a kernel's gradient is: the right operand is the larger
        k, i = [max(a - 2, 1) for a in i], i
        padding = [
            (2, 2 + max(0, d * (a - 1) + 1 - b)) for a, b, d in zip(k, i, rhs_dilation, strict=True)
        ]
    shapes = {"N": n, "C": groups * c, "O": o, "I": c}
    numbers = layouts(rng, rank)
    lhs_spec, rhs_spec, _ = numbers or ("NC" + LETTERS[rank], "OI" + LETTERS[rank], None)
    # Strides belong to space in the order of the kernel's letters.
    space = [letter for letter in rhs_spec if letter not in "OI"]
    lhs_size, rhs_size = (shapes | dict(zip(space, sizes, strict=True)) for sizes in (i, k))
    lhs = [lhs_size[letter] for letter in lhs_spec]
    rhs = [rhs_size[letter] for letter in rhs_spec]
    if set(rhs_dilation) == {1}:
        rhs_dilation = rng.choice([rhs_dilation, None])
    options = {
        "window_strides": window_strides,
        "padding": padding,
        "lhs_dilation": lhs_dilation,
        "rhs_dilation": rhs_dilation,
        "dimension_numbers": numbers,
        "feature_group_count": groups,
        "batch_group_count": batched,
    }
    return *drawn(seed, lhs, rhs), options


def derivatives(function):
    """Value, both gradients, and a tangent, of all arguments at once."""

    @jax.jit
    def run(lhs, rhs):
        result, vjp = jax.vjp(function, lhs, rhs)
        cotangent = jnp.arange(result.size, dtype=result.dtype).reshape(result.shape) % 7 - 3
        tangents = jax.jvp(function, (lhs, rhs), (lhs % 3, rhs % 3))[1]
        return result, vjp(cotangent), tangents

    return run


def assert_same(ours, theirs, *args):
    expected = derivatives(theirs)(*args)
    for mine in (derivatives(ours), accelerate(derivatives(theirs))):
        result = mine(*args)
        jax.tree.map(np.testing.assert_array_equal, result, expected)
        assert "conv_general_dilated" not in str(jax.make_jaxpr(mine)(*args))


@pytest.mark.parametrize("seed", thinned(range(78), 5))
def test_conv_general_dilated(seed):
    lhs, rhs, options = arguments(seed)
    ours, theirs = (partial(m.conv_general_dilated, **options) for m in (compat, lax))
    assert_same(ours, theirs, lhs, rhs)


def transposed(seed):
    """Operands and keyword arguments of conv_transpose."""
    rng = random.Random(seed)
    rank = 1 + seed % 3
    ints = lambda least, most: tuple(rng.randint(least, most) for _ in range(rank))  # noqa: E731
    i, k, strides, dilation = ints(2, 5), ints(1, 5), ints(1, 3), rng.choice([None, ints(1, 2)])
    span = [d * (size - 1) + 1 for size, d in zip(k, dilation or (1,) * rank, strict=True)]
    consistent = rng.random() < 0.5
    padding = rng.choice(["SAME", "VALID", "pairs"])
    if padding == "pairs":
        padding = [(rng.randint(0, s - 1), rng.randint(0, s - 1)) for s in span]
        if not consistent:  # zeros around the dilated input, which must hold the kernel
            padding = [(s - 1 - a, s - 1 - b) for s, (a, b) in zip(span, padding, strict=True)]
        # What is left must be there.
        i = tuple(size + s for size, s in zip(i, span, strict=True))
    c, o = rng.randint(1, 3), rng.randint(1, 3)
    options = {
        "strides": strides,
        "padding": padding,
        "rhs_dilation": dilation,
        "transpose_kernel": rng.random() < 0.5,
        "use_consistent_padding": consistent,
    }
    channels = (o, c) if options["transpose_kernel"] else (c, o)
    return *drawn(seed, (2, *i, c), (*k, *channels)), options


QUICK = (0, 1, 2, 3, 5, 6, 10, 20)  # every kind of padding, consistent or not, in every rank


@pytest.mark.parametrize("seed", thinned(range(42), QUICK))
def test_conv_transpose(seed):
    lhs, rhs, options = transposed(seed)
    ours, theirs = (partial(m.conv_transpose, **options) for m in (compat, lax))
    assert_same(ours, theirs, lhs, jnp.asarray(rhs))


@pytest.mark.parametrize("seed", thinned(range(24), 5))
def test_patches(seed):
    lhs, rhs, options = arguments(seed)
    numbers, rank = options["dimension_numbers"], lhs.ndim - 2
    spec = numbers[1] if numbers else "OI" + LETTERS[rank]
    taps = [size for size, letter in zip(rhs.shape, spec, strict=True) if letter not in "OI"]
    for name in ("feature_group_count", "batch_group_count"):
        del options[name]

    @partial(jax.jit, static_argnums=0)
    def all_of(module, a):
        """The patches, a tangent and a gradient."""
        patches = partial(module.conv_general_dilated_patches, filter_shape=taps, **options)
        result, tangent = jax.jvp(patches, (a,), (a + 1,))
        weights = jnp.arange(result.size, dtype=np.float32).reshape(result.shape) % 7
        return result, tangent, jax.vjp(patches, a)[1](weights)

    jax.tree.map(np.testing.assert_array_equal, all_of(compat, lhs), all_of(lax, lhs))
    assert "conv_general" not in str(jax.make_jaxpr(all_of, static_argnums=0)(compat, lhs))
    assert "conv_general" in str(jax.make_jaxpr(all_of, static_argnums=0)(lax, lhs))


@pytest.mark.parametrize("seed", thinned(range(24), 6))
def test_local(seed):
    lhs, rhs, options = arguments(seed)
    for name in ("feature_group_count", "batch_group_count"):
        del options[name]
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, options["dimension_numbers"])
    taps = [rhs.shape[axis] for axis in numbers.rhs_spec[2:]]
    patches = jax.eval_shape(
        lambda a: lax.conv_general_dilated_patches(a, filter_shape=taps, **options), lhs
    )
    shape = [0] * rhs.ndim
    sizes = [3, *(patches.shape[axis] for axis in numbers.out_spec[1:])]
    for axis, size in zip(numbers.rhs_spec, sizes, strict=True):
        shape[axis] = size
    (kernels,) = drawn(seed, shape)
    ours, theirs = (
        derivatives(partial(m.conv_general_dilated_local, filter_shape=taps, **options))
        for m in (compat, lax)
    )
    jax.tree.map(np.testing.assert_array_equal, ours(lhs, kernels), theirs(lhs, kernels))


def test_local_needs_a_kernel_for_each_position():
    lhs, rhs = jnp.ones((1, 2, 5)), jnp.ones((3, 6, 2))
    text = r"rhs needs shape \(3, 6, 3\), a kernel for each position"
    with pytest.raises(ValueError, match=text):
        compat.conv_general_dilated_local(lhs, rhs, (1,), "VALID", (3,))


def test_patches_dtype_and_refusal():
    lhs = jnp.arange(12, dtype=jnp.int8).reshape(1, 2, 6)
    options = {"window_strides": (2,), "padding": "VALID", "preferred_element_type": np.int32}
    result = compat.conv_general_dilated_patches(lhs, (3,), **options)
    expected = lax.conv_general_dilated_patches(lhs, (3,), **options)
    assert result.dtype == expected.dtype == np.int32
    np.testing.assert_array_equal(result, expected)
    with pytest.raises(ValueError, match="conv_general_dilated_patches: lhs has no patch"):
        compat.conv_general_dilated_patches(lhs, (9,), (1,), "VALID")


def test_conv_and_conv_with_general_padding():
    lhs, rhs = drawn(0, (2, 3, 7, 6), (4, 3, 3, 2))
    for name, args in {
        "conv": ((2, 1), "SAME"),
        "conv_with_general_padding": ((1, 2), [(1, 2), (0, 1)], (2, 1), (1, 2)),
    }.items():
        ours, theirs = (getattr(module, name)(lhs, rhs, *args) for module in (compat, lax))
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", compat.__all__)
def test_signatures_are_those_of_jax_lax(name):
    ours, theirs = (inspect.signature(getattr(module, name)) for module in (compat, lax))
    assert list(ours.parameters) == list(theirs.parameters)
    for mine, yours in zip(ours.parameters.values(), theirs.parameters.values(), strict=True):
        assert (mine.kind, mine.default) == (yours.kind, yours.default)


@pytest.mark.parametrize("padding", ["valid", "same", "SAME_LOWER", "Same"])
def test_what_lax_misreads_is_refused(padding):
    with pytest.raises(ValueError, match="conv_transpose: padding must be one of SAME, VALID"):
        compat.conv_transpose(jnp.ones((1, 4, 1)), jnp.ones((2, 1, 1)), (1,), padding)


@pytest.mark.parametrize("call", [compat.conv_general_dilated, lax.conv_general_dilated])
def test_other_errors_are_lax_s(call):
    lhs, rhs = jnp.ones((1, 3, 4)), jnp.ones((2, 2, 3))
    with pytest.raises(ValueError, match="feature_group_count"):
        call(lhs, rhs, (1,), "VALID")
    with pytest.raises(TypeError, match="dimension_numbers"):
        call(lhs, rhs, (1,), "VALID", dimension_numbers=("NCH", "OIW", "NCH"))


@pytest.mark.parametrize("dtype", ["int8", "int32", "float16", "bfloat16", "complex64"])
@pytest.mark.parametrize("preferred", [None, "wide"])
def test_dtypes(dtype, preferred):
    wide = {"int8": "int32", "float16": "float32", "bfloat16": "float32"}.get(dtype, dtype)
    draw = np.random.default_rng(0).integers
    lhs, rhs = (jnp.asarray(draw(-3, 4, s), dtype) for s in ((2, 3, 7), (4, 3, 3)))
    options = {"preferred_element_type": wide if preferred else None, "precision": "highest"}
    ours, theirs = (
        module.conv_general_dilated(lhs, rhs, (1,), "SAME", **options) for module in (compat, lax)
    )
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "precision", [None, "high", ("default", "highest"), lax.Precision.HIGHEST], ids=str
)
def test_the_higher_of_two_precisions_holds(precision):
    lhs, rhs = jnp.ones((1, 2, 5)), jnp.ones((3, 2, 2))
    options = {"window_strides": (1,), "padding": "SAME", "precision": precision}
    text = str(jax.make_jaxpr(partial(compat.conv_general_dilated, **options))(lhs, rhs))
    expected = {None: "precision=None,", "high": "Precision.HIGH,"}
    assert expected.get(precision, "Precision.HIGHEST,") in text


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 3, 0), (2, 0, 5)])
def test_empty_arrays(shape):
    lhs, rhs = jnp.ones(shape), jnp.ones((4, shape[1], 3))
    for padding in ([(2, 2)], "SAME"):
        ours, theirs = (
            module.conv_general_dilated(lhs, rhs, (1,), padding) for module in (compat, lax)
        )
        np.testing.assert_array_equal(ours, theirs)


def test_out_sharding():
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    P = jax.sharding.PartitionSpec
    with jax.set_mesh(mesh):
        lhs = jax.device_put(jnp.arange(48.0).reshape(4, 2, 6), P("a", None, None))
        rhs = jax.device_put(jnp.arange(24.0).reshape(4, 2, 3), P(None, None, None))
        for spec in (P("a", None, None), P("a", "b", None)):
            options = {"window_strides": (1,), "padding": "SAME", "out_sharding": spec}
            convs = (partial(m.conv_general_dilated, **options) for m in (compat, lax))
            ours, theirs = (jax.jit(conv)(lhs, rhs) for conv in convs)
            assert ours.sharding.spec == theirs.sharding.spec
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["FULL", "CAUSAL"])
def test_padding_names_that_lax_lacks_are_refused(name):
    with pytest.raises(ValueError, match="padding must be one of SAME, SAME_LOWER, VALID"):
        compat.conv_general_dilated(np.ones((1, 1, 5)), np.ones((1, 1, 3)), (1,), name)
