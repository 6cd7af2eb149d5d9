"""Every lowering against the definition, by name, forward and gradients; and which one is chosen when."""

import dataclasses
import itertools
import random
import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry import LAST, Geometry, arranged, columns, letters, problem
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from thinned import thinned

import jdeconv
from jdeconv import Window
from jdeconv.choose import choose
from jdeconv.evaluate import MEMORY, evaluate
from jdeconv.form import Form, Layout
from jdeconv.im2col import fold, unfold
from jdeconv.lowerings import LOWERINGS, cudnn, im2col
from jdeconv.testing import conv_loops

FLOAT = np.dtype("float32")
ROUNDING = ("fft",)  # lowerings whose integers are not exact
MIXED = {1: ("CWN", "WOI"), 2: ("HCNW", "HOIW"), 3: ("WCDNH", "DIHOW")}


def served(name, count, seed):
    """Random geometries that the lowering serves, with windows and paddings that are often larger than x."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        rank = (1, 2, 2, 3)[len(found) % 4]
        stride = [rng.choice((1, 1, 2, 3)) for _ in range(rank)]
        dilation = [rng.choice((1, 1, 2, 3)) for _ in range(rank)]
        kernel = [rng.choice((1, 2, 3, s, 2 * s, 3 * s - 1)) for s in stride]
        padding = [(rng.randint(-3, 4), rng.randint(-3, 4)) for _ in range(rank)]
        big = rng.sample(range(1, 12 if rank < 3 else 7), rank)
        steps = {"stride": stride, "padding": padding, "dilation": dilation}
        try:
            window = Window.of_conv(big, kernel, **steps)
        except ValueError:
            continue
        c, o = rng.sample((1, 2, 3, 4), 2) if rng.random() < 0.8 else (1, 1)
        groups = rng.choice((1, 1, 2, 3))
        if LOWERINGS[name].refuses(problem(window, groups, c, o)) is None:
            found.append(Geometry(window, tuple(padding), groups, rng.choice((1, 2, 3)), c, o))
    return found


def on(platform, form, x, kernel, y):
    """What the form's lowering makes of the three for a platform, evaluated here."""
    pairs = {"conv": (x, kernel), "deconv": (y, kernel), "kernel_grad": (x, y)}
    return [evaluate(name, platform, *pair, form=form, dtype=FLOAT) for name, pair in pairs.items()]


def same(name, ours, truth, text):
    """To the last bit, but for lowerings that round."""
    if name in ROUNDING:
        np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-3, err_msg=text)
    else:
        np.testing.assert_array_equal(ours, truth, text)


@pytest.mark.parametrize("seed", thinned(range(3), 3))
@pytest.mark.parametrize("name", LOWERINGS)
def test_the_definition(name, seed):
    for i, g in enumerate(served(name, 8, seed)):
        x, kernel, y = g.draw(seed=i)
        ours = g.contractions(x, kernel, y, lowering=name)
        truth = g.definition(x, kernel, y)
        for a, b in zip(ours, truth, strict=True):
            same(name, a, b, f"{g} c{g.c} o{g.o}")


@pytest.mark.parametrize("dtype", ["bfloat16", "int32", "complex64"])
@pytest.mark.parametrize("name", sorted(LOWERINGS.keys() - ROUNDING))
def test_dtypes(name, dtype):
    """Many taps, and sums that half precision could not hold on the way: they are rounded once."""
    window = Window.of_conv((9, 8), (5, 5), padding=2)
    g = Geometry(window, ((2, 2), (2, 2)), 2, 2, 3, 2)
    x, kernel, y = (abs(a) for a in g.draw())
    ours = g.contractions(*(jnp.asarray(a, dtype) for a in (x, kernel, y)), lowering=name)
    truth = g.definition(x, kernel, y)
    for a, b in zip(ours, truth, strict=True):
        assert a.dtype == dtype
        assert abs(b).max() > 256
        np.testing.assert_array_equal(a, jnp.asarray(b, dtype))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_what_accelerators_are_given(platform):
    """Their paddings and what is left unread differ from those for a CPU."""
    for i, g in enumerate(served("vendor", 8, 3)):
        x, kernel, y = map(jnp.asarray, g.draw(seed=i))
        layout = Layout.of("conv", None, g.rank)
        ours = on(platform, Form(g.window, g.groups, layout, None, "vendor"), x, kernel, y)
        truth = g.definition(x, kernel, y)
        for a, b in zip(ours, truth, strict=True):
            np.testing.assert_array_equal(a, b, str(g))


SLOW_FOR_CUDNN = {
    "a line": ((13,), (4,), {"padding": [(3, 0)]}, 5, 1),
    "a line with a stride": ((14,), (5,), {"stride": 3, "padding": [(-1, 4)]}, 3, 1),
    "a dilated line": ((17,), (3,), {"dilation": 2, "padding": [(4, 1)]}, 4, 1),
    "phases": ((19, 17), (3, 2), {"dilation": (3, 2), "padding": [(4, 5), (-1, 3)]}, 1, 3),
    "phases of one axis": ((9, 13), (3, 3), {"dilation": (1, 2), "stride": (2, 1)}, 1, 2),
    "phases of a volume": ((8, 9, 5), (2, 2, 3), {"dilation": (2, 2, 1), "padding": 1}, 1, 2),
}


@pytest.mark.parametrize("name", ["vendor", "taps"])
@pytest.mark.parametrize("order", ["first", "last", "mixed", "turned"])
@pytest.mark.parametrize("case", SLOW_FOR_CUDNN)
def test_what_cudnn_is_slow_at(case, order, name):
    """The other forms that it is given are the same contractions, in every order of the axes."""
    big, size, steps, groups, c = SLOW_FOR_CUDNN[case]
    window = Window.of_conv(big, size, **steps)
    rank, pads = window.rank, tuple(window.padding)
    g = Geometry(window, pads, groups, 2, c, c)
    orders = {"first": letters(rank), "last": LAST[rank], "mixed": MIXED[rank]}
    side, kernel = orders.get(order, LAST[rank])
    small = side[::-1] if order == "turned" else side
    layout = Layout.of("conv", (side, kernel, small), rank)
    if LOWERINGS[name].refuses(problem(window, groups, c, c)):
        pytest.skip("taps unrolls fewer products")
    x, k, y = g.draw()
    truth = g.definition(x, k, y)
    first = letters(rank)
    x, y = (jnp.asarray(arranged(a, s, first[0])) for a, s in ((x, side), (y, small)))
    k = jnp.asarray(arranged(k, kernel, first[1]))
    found = jax.jit(partial(on, "cuda", Form(window, groups, layout, None, name)))(x, k, y)
    specs = (small, first[0]), (side, first[0]), (kernel, first[1])
    for result, expected, spec in zip(found, truth, specs, strict=True):
        np.testing.assert_array_equal(result, arranged(expected, *spec))
    if name == "vendor":
        p = problem(window, groups, c, c, platform="cuda")
        assert cudnn.is_slow_line(p) == ("line" in case)
        assert cudnn.is_slow_line(p) or cudnn.has_phases(p)


@pytest.mark.parametrize("layout", [LAST, MIXED], ids=["last", "mixed"])
@pytest.mark.parametrize("name", LOWERINGS)
def test_layouts(name, layout):
    for g in served(name, 4, seed=7):
        x, kernel, y = g.draw()
        truth = g.contractions(x, kernel, y, lowering="im2col")
        sides, kernels = letters(g.rank)
        side, last = layout[g.rank]
        arrays = arranged(x, side, sides), arranged(kernel, last, kernels), arranged(y, side, sides)
        ours = g.contractions(*arrays, lowering=name, layout=(side, last, side))
        places = ((side, sides), (side, sides), (last, kernels))
        for a, b, place in zip(ours, truth, places, strict=True):
            same(name, a, arranged(b, *place), str(g))


@pytest.mark.parametrize("name", LOWERINGS)
def test_gradients(name):
    """Both gradients of conv and deconv, and one of a gradient, against those of the definition."""
    for g in served(name, 4, seed=11):
        x, kernel, y = g.draw()

        def gradients(lowering, g=g, x=x, kernel=kernel, y=y):
            options = g.steps | {"lowering": lowering}

            def conv(x, k):
                return jnp.sum(jdeconv.conv(x, k, **options) * y)

            def deconv(y, k):
                return jnp.sum(jdeconv.deconv(y, k, output_size=g.window.big, **options) * x)

            def twice(k):
                return jnp.sum(jax.grad(conv, 0)(x, k) * x)

            return jax.jit(
                lambda x, k, y: (
                    *jax.grad(conv, (0, 1))(x, k),
                    *jax.grad(deconv, (0, 1))(y, k),
                    jax.grad(twice)(k),
                )
            )(x, kernel, y)

        for a, b in zip(gradients(name), gradients("im2col"), strict=True):
            same(name, a, b, str(g))


BLOCKED = "im2col", "fft", "nhwc"


@pytest.mark.parametrize(
    ("name", "batch", "groups"), thinned(itertools.product(BLOCKED, (1, 4, 5), (1, 3)), 5)
)
def test_blocks(name, batch, groups, monkeypatch):
    """However small the blocks, the results are those of one."""
    window = Window.of_conv((7, 5), (3, 2), padding=1)
    g = Geometry(window, ((1, 1), (1, 1)), groups, batch, 2, 4)
    x, kernel, y = g.draw()
    whole = g.contractions(x, kernel, y, lowering=name)
    monkeypatch.setitem(MEMORY, name, dataclasses.replace(MEMORY[name], block_bytes=1))
    jax.clear_caches()
    blocked = g.contractions(x, kernel, y, lowering=name)
    text = jax.jit(lambda *a: g.contractions(*a, lowering=name)).lower(x, kernel, y).as_text()
    assert ("stablehlo.while" in text) == (batch > 1 or groups > 1)
    for a, b in zip(blocked, whole, strict=True):
        same(name, a, b, str(g))


def test_blocks_of_half_precision_add_up_in_float32(monkeypatch):
    """Where a GPU's convolution answers in bfloat16, too."""
    monkeypatch.setitem(MEMORY, "nhwc", dataclasses.replace(MEMORY["nhwc"], block_bytes=1))
    x, y = np.ones((4, 16, 9, 9), jnp.bfloat16), np.ones((4, 32, 9, 9), jnp.bfloat16)
    f = jax.jit(lambda x, y: jdeconv.kernel_grad(x, y, (3, 3), padding=1, lowering="nhwc"))
    text = f.trace(x, y).lower(lowering_platforms=("cuda",)).as_text()
    sums = re.findall(r"stablehlo.add .* : tensor<3x3x16x32x(\w+)>", text)
    assert "stablehlo.while" in text
    assert sums == ["f32"]


def test_blocks_bound_what_lies_in_memory():
    """Of 64 images no more is laid out than of a few."""
    x, kernel = np.ones((64, 64, 28, 28), np.float32), np.ones((64, 64, 3, 3), np.float32)
    f = jax.jit(lambda x, k: jdeconv.conv(x, k, padding=1, lowering="im2col"))
    temporary = f.lower(x, kernel).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 48 << 20 < 9 * x.nbytes


def test_fft_has_no_dot_and_no_convolution():
    x, kernel = np.ones((2, 1, 40, 30), np.float32), np.ones((1, 1, 21, 17), np.float32)
    text = jax.jit(jdeconv.conv).lower(x, kernel).as_text()
    assert "stablehlo.fft" in text
    assert "stablehlo.convolution" not in text


@pytest.mark.parametrize("name", sorted(LOWERINGS.keys() - ROUNDING))
def test_the_precision_of_every_product(name):
    window = Window.of_conv((9, 8), (5, 5), padding=2)
    g = Geometry(window, ((2, 2), (2, 2)), 2, 2, 3, 2)
    run = jax.jit(lambda *a: g.contractions(*a, lowering=name, precision="highest"))
    lines = run.lower(*g.draw()).as_text().splitlines()
    products = [line for line in lines if re.search(r"stablehlo\.(dot_general|convolution)", line)]
    assert bool(products) == (name != "taps")  # which multiplies number by number
    assert all("HIGHEST" in line for line in products)


def test_more_precision_means_the_definition():
    """What rounds more than the definition is not chosen when precision is asked for.

    tests/test_arguments.py has that it is not served by its name either.
    """
    x, kernel = np.ones((1, 1, 48, 48), np.float32), np.ones((1, 1, 31, 31), np.float32)
    for precision, is_fft in ((None, True), ("highest", False)):
        call = partial(jdeconv.conv, precision=precision)
        assert ("stablehlo.fft" in jax.jit(call).lower(x, kernel).as_text()) == is_fft


def test_fft_serves_three_axes():
    """tests/test_errors.py has the groups that nhwc does not serve."""
    x, kernel = np.ones((1, 1, 3, 3, 3, 3), np.float32), np.ones((1, 1, 2, 2, 2, 2), np.float32)
    text = "conv: lowering 'fft' cannot serve: .*up to 3 axes, not of 4"
    with pytest.raises(NotImplementedError, match=text):
        jdeconv.conv(x, kernel, lowering="fft")


def test_integers_are_exact_in_a_float_result(rng):
    """What rounds is not chosen for them, whatever dtype the result has."""
    g = Geometry(Window.of_conv((40, 40), (15, 15)), ((0, 0), (0, 0)), 1, 1, 1, 2)
    x, kernel = (rng.integers(-99, 99, s, np.int8) for s in ((1, 1, 40, 40), (2, 1, 15, 15)))
    y = jdeconv.conv(x, kernel, preferred_element_type=np.float32)
    truth = conv_loops(x.astype(int), kernel.astype(int), g.window.small, **g.loops)
    np.testing.assert_array_equal(y, truth)


def test_integers_stay_integers():
    x, kernel = np.arange(9, dtype=np.int32)[None, None], np.array([[[1, 2, 3]]], np.int32)
    with pytest.raises(NotImplementedError, match="int"):
        jdeconv.conv(x, kernel, lowering="fft")
    assert jdeconv.conv(x, kernel).dtype == np.int32


CHOICES = [
    # c, o, big, kernel, steps of the window, groups, layout, lowering
    (1, 1, (9, 9), (3, 3), {}, 4, None, "taps"),
    (4, 4, (9, 9), (3, 3), {}, 2, None, "taps"),
    (1, 5, (9, 9), (3, 3), {}, 2, None, "im2col"),
    (1, 1, (48, 48), (31, 31), {}, 4, None, "fft"),
    (1, 64, (64, 64), (16, 16), {"stride": 16}, 1, None, "im2col"),
    (8, 8, (33, 33), (33, 33), {}, 1, None, "im2col"),
    (8, 8, (4096, 4096), (11, 11), {}, 1, None, "im2col"),
    (16, 16, (33, 33), (3, 3), {"dilation": 36, "padding": 36}, 1, "last", "nhwc"),
    (16, 16, (10, 10), (3, 3), {}, 1, "last", "nhwc"),
    (16, 16, (20, 20), (3, 3), {"dilation": 2}, 1, "last", "nhwc"),
    (64, 64, (64, 64), (3, 3), {}, 1, None, "nhwc"),  # 8.4 MiB of columns
    (64, 64, (62, 62), (3, 3), {}, 1, None, "im2col"),  # 7.9 MiB
    (3, 16, (9, 9), (3, 3), {}, 1, None, "im2col"),
    (16, 16, (9, 9), (3, 3), {"stride": 2}, 1, None, "im2col"),
    (16, 16, (10, 10), (4, 4), {"stride": 2}, 1, None, "im2col"),
    (8, 8, (9, 9), (3, 3), {}, 4, None, "nhwc"),
    (32, 32, (9, 9), (3, 3), {}, 4, "last", "nhwc"),
    (7, 8, (9, 9), (3, 3), {}, 4, None, "im2col"),
    (64, 64, (9, 9), (3, 3), {}, 4, None, "im2col"),
    (16, 16, (9, 9), (3, 3), {}, 17, None, "im2col"),
    (16, 16, (7, 7), (3, 3), {"padding": 1}, 1, None, "im2col"),
    (16, 16, (7, 7), (3, 3), {"padding": 1}, 1, "last", "nhwc"),
    (32, 32, (9, 9), (2, 2), {"stride": 2}, 1, None, "im2col"),
    (64, 64, (5, 5), (3, 3), {"padding": 1}, 1, None, "im2col"),  # 25 positions
    (64, 64, (9, 9), (3, 3), {"stride": 2, "padding": 1}, 1, "last", "im2col"),  # 25 positions
    (3, 64, (32, 32), (7, 7), {"stride": 2, "padding": 3}, 1, "last", "nhwc"),
    (16, 16, (9, 9), (3, 3), {"stride": 2}, 2, "last", "im2col"),
    (3, 63, (32, 32), (7, 7), {"stride": 2, "padding": 3}, 1, "last", "im2col"),
    (16, 16, (3, 3), (5, 5), {"padding": 2}, 1, None, "im2col"),
    (32, 32, (9, 9), (2, 2), {"stride": 2}, 1, "last", "im2col"),
    (1, 1, (64,), (16,), {"stride": 8}, 21, None, "taps"),
    (32, 32, (64,), (9,), {}, 1, "last", "nhwc"),
    (32, 32, (64,), (9,), {}, 1, None, "im2col"),
    (32, 32, (9, 9, 9), (5, 5, 5), {}, 1, "last", "nhwc"),
    (16, 16, (9, 9), (1, 1), {}, 1, None, "im2col"),
]


def problem_of(row):
    c, o, big, kernel, steps, groups, layout, _ = row
    side, last = LAST[len(big)]
    numbers = layout and (side, last, side)
    return problem(Window.of_conv(big, kernel, **steps), groups, c, o, numbers, platform="cpu")


@pytest.mark.parametrize("row", CHOICES, ids=str)
def test_choice_on_cpu(row):
    p, name = problem_of(row), row[-1]
    assert choose(p) == name
    assert LOWERINGS[name].refuses(p) is None


@pytest.mark.parametrize(
    ("platform", "size", "c", "name"),
    [
        ("cuda", (9,), 1, "taps"),
        ("cuda", (10,), 1, "vendor"),
        ("cuda", (3,), 2, "vendor"),
        ("cuda", (3, 3), 1, "vendor"),
        ("cuda", (2, 2, 2, 2), 1, "im2col"),
        ("tpu", (9,), 1, "vendor"),
        ("rocm", (9,), 1, "vendor"),
    ],
)
def test_choice_on_accelerators(platform, size, c, name):
    rank = len(size)
    window = Window.of_conv((16,) * rank, size)
    assert choose(problem(window, 8, c, 1, None, "bfloat16", platform)) == name


def test_the_choice_in_an_export():
    """A batch of unknown size counts as one image; with unknown channels nothing is known."""
    n, c = jax.export.symbolic_shape("n, c")
    for row in CHOICES:
        p = problem_of(row)
        assert choose(dataclasses.replace(p, n=n)) == choose(dataclasses.replace(p, n=1))
        assert choose(dataclasses.replace(p, n=n, c=c)) == "im2col"
        assert choose(dataclasses.replace(p, n=n, c=c, platform="cuda")) == "vendor"


@pytest.mark.parametrize("dtype", ["int32", "float16", "complex64"])
def test_every_choice_serves_every_dtype(dtype):
    for c, o, big, kernel, steps, groups, _, _ in CHOICES:
        p = problem(Window.of_conv(big, kernel, **steps), groups, c, o, None, dtype, "cpu")
        assert LOWERINGS[choose(p)].refuses(p) is None


def test_a_1x1_conv_with_channels_last_is_a_product_of_matrices():
    """Its program, forward and both gradients, moves no array that the product's does not move."""
    x, kernel = jnp.ones((2, 6, 5, 16)), jnp.ones((1, 1, 16, 24))
    numbers = ("NHWC", "HWIO", "NHWC")

    def ours(x, kernel):
        return jdeconv.conv(x, kernel, dimension_numbers=numbers, lowering="im2col")

    def product(x, kernel):
        return (x.reshape(-1, 16) @ kernel.reshape(16, 24)).reshape(2, 6, 5, 24)

    def moves(function):
        def loss(x, kernel):
            return (function(jnp.tanh(x), kernel) ** 2).sum()

        step = jax.jit(jax.value_and_grad(loss, (0, 1)))
        return len(re.findall(r" (?:copy|transpose)\(", step.lower(x, kernel).compile().as_text()))

    assert moves(ours) <= moves(product)


@pytest.mark.parametrize(
    ("numbers", "shapes"),
    [
        (("NCHW", "OIHW", "NCHW"), ((1, 80, 2, 2), (96, 80, 1, 1))),
        (("NHWC", "HWIO", "NHWC"), ((1, 2, 2, 80), (1, 1, 80, 96))),
    ],
)
def test_no_kernel_is_moved_that_is_larger_than_the_images(numbers, shapes):
    """XLA's CPU backend would transpose it, or take a product that is ten times slower."""
    rng = np.random.default_rng(0)
    x, kernel = (rng.integers(-3, 4, shape).astype(np.float32) for shape in shapes)

    def loss(x, kernel):
        return (lax.conv_general_dilated(x, kernel, (1, 1), "SAME", None, None, numbers) ** 2).sum()

    step = jax.jit(jdeconv.accelerate(jax.grad(loss)))
    text = step.lower(x, kernel).compile().as_text()
    moved = re.findall(r"= f32\[([\d,]+)\]\S* (?:copy|transpose)\(", text)
    assert all(np.prod([*map(int, shape.split(","))]) < kernel.size for shape in moved)
    assert "lhs_contracting_dims={0}" not in text
    np.testing.assert_array_equal(step(x, kernel), jax.grad(loss)(x, kernel))


def test_direct_in_a_loop_keeps_channels_last():
    """With channels first, XLA's CPU convolution takes 20 to 40 times as long in a loop."""
    x, kernel = np.ones((1, 16, 30), np.float32), np.ones((16, 16, 9), np.float32)

    def loop(x, kernel):
        step = lambda _, x: jdeconv.conv(x, kernel, padding=4, lowering="nhwc")  # noqa: E731
        return lax.fori_loop(0, 3, step, x)

    text = jax.jit(loop).lower(x, kernel).compile().as_text()
    assert "dim_labels=b0f_0io->b0f" in text
    assert "dim_labels=bf0" not in text


def test_one_table_lists_all():
    assert LOWERINGS["im2col"] is im2col
    for name, module in LOWERINGS.items():
        assert module.__name__ == f"jdeconv.lowerings.{name}"
        for function in ("conv", "deconv", "kernel_grad", "refuses"):
            assert callable(getattr(module, function))


@pytest.mark.parametrize("part", thinned(range(3), 3))
@pytest.mark.parametrize("name", ["im2col", "nhwc"])
def test_slabs(name, part, monkeypatch):
    """A large image is cut along its first axis, with the same results."""
    monkeypatch.setattr("jdeconv.evaluate.MAX_BYTES", 0)
    monkeypatch.setattr("jdeconv.evaluate.SLAB_BYTES", 1)
    cut = 0
    for i, g in enumerate(served(name, 24, seed=23)[part::3]):
        x, kernel, y = g.draw(seed=i)
        ours = g.contractions(x, kernel, y, lowering=name)
        for a, b in zip(ours, g.definition(x, kernel, y), strict=True):
            same(name, a, b, str(g))
        cut += max(g.window.small) > 4
    assert cut > 2


@pytest.mark.parametrize("name", ["im2col", "nhwc"])
def test_slabs_in_shard_map(name, monkeypatch):
    """A sum over slabs varies over the mesh as its terms do."""
    monkeypatch.setattr("jdeconv.evaluate.MAX_BYTES", 0)
    monkeypatch.setattr("jdeconv.evaluate.SLAB_BYTES", 1)
    jax.clear_caches()
    mesh = jax.make_mesh((2,), ("i",), axis_types=(AxisType.Auto,))
    g = Geometry(Window.of_conv((9, 7), (3, 2)), ((0, 0), (0, 0)), 1, 2, 3, 4)
    x, kernel, y = g.draw()

    def gradients(x, kernel, y):
        return jax.vjp(lambda x, k: jdeconv.conv(x, k, lowering=name), x, kernel)[1](y)

    specs = {"in_specs": (P("i"), P(), P("i")), "out_specs": (P("i"), P())}
    found = jax.jit(jax.shard_map(gradients, mesh=mesh, **specs))(x, kernel, y)
    jax.tree.map(np.testing.assert_array_equal, found, g.definition(x, kernel, y)[1:])


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5)], ids=str)
def test_slabs_bound_what_one_image_takes(kernel):
    """The columns of this image would take 302 MiB and more."""
    x = jax.ShapeDtypeStruct((1, 32, 512, 512), np.float32)
    k = jax.ShapeDtypeStruct((8, 32, *kernel), np.float32)

    def step(x, k):
        y, vjp = jax.vjp(lambda x, k: jdeconv.conv(x, k, padding=kernel[0] // 2), x, k)
        return y, *vjp(y)

    temporary = jax.jit(step).lower(x, k).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 160 << 20


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "steps",
    [{}, {"stride": (2, 3)}, {"stride": (3, 2), "dilation": (2, 3)}, {"dilation": (3, 1)}],
    ids=str,
)
@pytest.mark.parametrize("most", [128, 1], ids=["slices", "gather"])
def test_columns_in_both_orders(last, steps, most, monkeypatch):
    """Axis after axis, by slices or by a gather, x unfolds to what the definition says."""
    monkeypatch.setattr(sys.modules["jdeconv.im2col"], "MAX_BLOCKS", most)
    w = Window.of_conv((13, 12), (4, 3), padding=((2, -1), (-2, 3)), **steps)
    x = np.arange(2 * 3 * 13 * 12).reshape(2, 3, 13, 12)
    truth = columns(x, w)
    order = {"space": 1, "tap": 3} if last else {"space": 2, "tap": 2}
    x, truth = (np.moveaxis(a, 1, -1) if last else a for a in (x, truth))
    truth = truth.transpose(0, 3, 4, 1, 2, 5) if last else truth
    np.testing.assert_array_equal(unfold(jnp.asarray(x), w, **order), truth)
    drawn = jnp.asarray(np.random.default_rng(0).integers(-9, 9, truth.shape), np.float32)
    _, adjoint = jax.vjp(lambda x: unfold(x, w, **order), x.astype(np.float32))
    np.testing.assert_array_equal(fold(drawn, w, **order), *adjoint(drawn))


@pytest.mark.parametrize("stride", [1, 2])
def test_no_columns_between_dilated_taps(stride):
    steps = {"stride": stride, "dilation": 50}
    w = Window.of_conv((200,), (3,), **steps)
    unfolded = partial(unfold, window=w, space=2, tap=2)
    x = jax.ShapeDtypeStruct((1, 5, 200), np.float32)
    sizes = [variable.aval.size for e in jax.make_jaxpr(unfolded)(x).eqns for variable in e.outvars]
    assert max(sizes) <= max(5 * 200, 5 * 3 * w.small[0])


@pytest.mark.parametrize(
    ("images", "c", "o", "big", "kernel", "stride", "is_convolution"),
    [
        (16, 32, 32, (24, 24), (3, 3), 1, True),  # the demo's
        (8, 64, 128, (28, 28), (3, 3), 1, True),  # blocks of 4 images
        (7, 64, 128, (28, 28), (3, 3), 1, False),  # blocks of 1
        (3, 16, 16, (24, 24), (3, 3), 1, False),
        (1, 32, 64, (24, 24), (3, 3), 1, True),
        (1, 64, 64, (112, 112), (3, 3), 1, False),  # more than a cache
        (2, 3, 64, (224, 224), (7, 7), 2, True),
        (4, 8, 8, (100,), (9,), 1, True),
        (3, 8, 8, (100,), (9,), 1, False),
        (4, 8, 8, (9, 9, 9), (3, 3, 3), 1, False),
    ],
)
def test_nhwc_takes_a_kernel_gradient_as_a_convolution_where_that_is_fast(
    images, c, o, big, kernel, stride, is_convolution
):
    small = Window.of_conv(big, kernel, stride=stride).small
    space = "DHW"[3 - len(big) :]
    numbers = (f"N{space}C", f"N{space}C", f"{space}IO")
    gradient = partial(
        jdeconv.kernel_grad,
        kernel_size=kernel,
        stride=stride,
        dimension_numbers=numbers,
        lowering="nhwc",
    )
    shapes = [jax.ShapeDtypeStruct(s, np.float32) for s in ((images, *big, c), (images, *small, o))]
    text = jax.jit(gradient).lower(*shapes).as_text()
    assert ("stablehlo.convolution" in text) == is_convolution
    assert ("stablehlo.dot_general" in text) != is_convolution
