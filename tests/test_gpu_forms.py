"""The text that a GPU's compiler is given: every convolution in a form that it has a cuDNN routine for.

XLA's rewriter looks for three patterns (FORMS), and leaves all else to a forward convolution over zeros. The
text is that of an export for cuda, so no GPU is needed.
"""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jdeconv

FORWARD, INPUT, FILTER = "forward", "backward-input", "backward-filter"
FORMS = {"conv": [FORWARD, INPUT, FILTER], "deconv": [INPUT, FORWARD, FILTER]}
CONVOLUTION = re.compile(
    r"stablehlo\.convolution\((?P<lhs>%\w+), (?P<rhs>%\w+)\) dim_numbers = \[(?P<dims>.*)\], "
    r"window = \{(?P<window>[^}]*)\}.*batch_group_count = (?P<batch_groups>\d+).*"
    r"feature_group_count = (?P<groups>\d+)"
)
LAYOUTS = {
    "first": [("NCH", "OIH", "NCH"), ("NCHW", "OIHW", "NCHW"), ("NCDHW", "OIDHW", "NCDHW")],
    "last": [("NHC", "HIO", "NHC"), ("NHWC", "HWIO", "NHWC"), ("NDHWC", "DHWIO", "NDHWC")],
}


def text(function, *args):
    return jax.export.export(jax.jit(function), platforms=["cuda"])(*args).mlir_module()


def forms(module):
    """What the rewriter would make of each convolution; None for what it has no backward routine for."""
    defined = dict(re.findall(r"(%\w+) = (stablehlo\.\w+ %?\w+)", module))
    return Counter(_form(m.groupdict(), defined) for m in CONVOLUTION.finditer(module))


def _form(conv, defined):
    window = dict(re.findall(r"(\w+) = \[([\d, \[\]-]*?)\](?:,|$)", conv["window"] + ","))
    steps = {
        name: {int(n) for n in re.findall(r"\d+", window.get(name, ""))} - {1}
        for name in ("stride", "lhs_dilate", "rhs_dilate")
    }
    is_reversed = defined.get(conv["rhs"], "").startswith("stablehlo.reverse")
    if conv["dims"].startswith("f,"):  # channels stand for the batch that is summed over
        is_filter = not steps["stride"] and not steps["lhs_dilate"] and not is_reversed
        return FILTER if is_filter else None
    if steps["lhs_dilate"] or is_reversed:
        source = defined.get(conv["rhs"], " ").split()[1]
        # Two reversals would cancel, and take away the mark that all but stride 1 need.
        is_guarded = defined.get(source, "").startswith("stablehlo.optimization_barrier")
        kept = is_guarded or not steps["lhs_dilate"]
        plain = not steps["stride"] and not steps["rhs_dilate"] and conv["groups"] == "1"
        return INPUT if is_reversed and kept and plain else None
    return FORWARD


def layer(kind, rank, steps, last, lowering=None):
    numbers = LAYOUTS["last" if last else "first"][rank - 1]
    sizes, groups = (9, 8, 7)[:rank], steps.get("groups", 1)
    kernel = (8, 16 // groups, *(3, 4, 2)[:rank])
    if last:
        kernel = (*kernel[2:], kernel[1], kernel[0])
    into = 16 if kind == "conv" else 8
    a = (2, *sizes, into) if last else (2, into, *sizes)
    options = {**steps, "dimension_numbers": numbers, "lowering": lowering}
    function = getattr(jdeconv, kind)

    def forward_and_gradients(a, kernel):
        result, vjp = jax.vjp(lambda a, k: function(a, k, **options), a, kernel)
        return result, *vjp(result)

    return forward_and_gradients, jnp.ones(a), jnp.ones(kernel)


STEPS = [{}, {"stride": 2, "padding": 1}, {"stride": 4, "padding": "SAME"}, {"padding": (0, 1)}]


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", FORMS)
def test_dense_layers_and_their_gradients(kind, rank, last):
    for steps in STEPS:
        if isinstance(steps.get("padding"), tuple):
            steps = {"padding": [steps["padding"]] * rank}
        function, *args = layer(kind, rank, steps, last)
        assert forms(text(function, *args)) == Counter(FORMS[kind]), steps


def test_gradients_of_gradients():
    function, a, kernel = layer("deconv", 2, {"stride": 2, "padding": 1}, False)

    def twice(a, kernel):
        return jax.grad(lambda *args: sum((r**2).sum() for r in function(*args)), (0, 1))(a, kernel)

    found = forms(text(twice, a, kernel))
    assert set(found) == {FORWARD, INPUT, FILTER}
    assert found.total() > 6


def test_kernel_gradients_of_groups_have_a_routine():
    """Batch groups, in the place of which XLA's own gradient has a feature group for every group."""
    for kind in FORMS:
        function, *args = layer(kind, 2, {"groups": 4, "stride": 2}, False)
        found = forms(text(function, *args))
        assert found[FILTER] == 1


def test_lax_has_none_for_its_transpose():
    """So the classes above say something: what jax.lax derives for the same layer is in none of them."""
    y, kernel = jnp.ones((2, 8, 9, 8)), jnp.ones((8, 16, 3, 4))

    def theirs(y, kernel):
        def f(y, k):
            numbers = ("NCHW", "OIHW", "NCHW")
            return lax.conv_transpose(
                y, k, (2, 2), "SAME", dimension_numbers=numbers, transpose_kernel=False
            )

        result, vjp = jax.vjp(f, y, kernel.swapaxes(0, 1))
        return result, *vjp(result)

    assert forms(text(theirs, y, kernel))[None] >= 2


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize(
    ("steps", "size"), [({}, 1), ({"stride": 2}, 2)], ids=["1x1", "kernel as stride"]
)
def test_windows_that_do_not_overlap_are_calls_too(steps, size, kind):
    """As dots, results would be laid out once more, in float32."""
    numbers = LAYOUTS["last"][1]
    a = jnp.ones((2, 8, 8, 16 if kind == "conv" else 8))
    kernel = jnp.ones((size, size, 16, 8))

    def gradients(a, kernel):
        def f(a, k):
            return getattr(jdeconv, kind)(a, k, dimension_numbers=numbers, **steps)

        result, vjp = jax.vjp(f, a, kernel)
        return result, *vjp(result)

    module = text(gradients, a, kernel)
    assert forms(module) == Counter(FORMS[kind])
    assert "stablehlo.dot_general" not in module


@pytest.mark.parametrize(("platform", "wide"), [("cuda", False), ("tpu", False), ("cpu", True)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_wide_on_a_cpu_only(dtype, platform, wide):
    """What an accelerator's routines add up in float32 they answer in the operands' dtype."""
    function, *args = layer("deconv", 2, {"stride": 2, "padding": 1}, True, "vendor")
    args = [a.astype(dtype) for a in args]
    module = jax.export.export(jax.jit(function), platforms=[platform])(*args).mlir_module()
    results = re.findall(r"stablehlo\.convolution.*-> tensor<\w+x(\w+)>", module)
    short = {"bfloat16": "bf16", "float16": "f16"}[dtype]
    assert results == ["f32" if wide else short] * 3


def test_more_axes_than_cudnn_has_are_dots():
    a, kernel = jnp.ones((2, 3, 5, 4, 4, 3)), jnp.ones((2, 3, 2, 2, 2, 2))
    module = text(lambda a, k: jax.grad(lambda a: jdeconv.conv(a, k).sum())(a), a, kernel)
    assert "stablehlo.convolution" not in module
    assert "stablehlo.dot_general" in module


def test_the_regular_expressions_see_everything():
    function, *args = layer("conv", 2, STEPS[1], False)
    module = text(function, *args)
    assert forms(module).total() == module.count("stablehlo.convolution(") == 3
    assert np.ndim(args[0]) == 4
