"""The estimates of a TPU's compiler: how they are read, and those that are committed."""

from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import cases, tpu
from jdeconv.evaluate import evaluate
from jdeconv.form import Form, Layout
from jdeconv.testing import kernel_grad_loops
from jdeconv.window import Window

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PROGRAM = """HloModule jit_f, is_scheduled=true

%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.1 = f32[8] fusion(%p), kind=kLoop, backend_config={"estimated_cycles":"10"}
}

%wide.condition (p: (s32[], f32[8])) -> pred[] {
  %constant.1 = s32[] constant(7)
  ROOT %lt = pred[] compare(%i, %constant.1), direction=LT
}

ENTRY %main.2 (x: f32[8]) -> f32[8] {
  %fusion.2 = f32[8] fusion(%x), kind=kOutput, backend_config={"estimated_cycles":"3"}
  %while.3 = (s32[], f32[8]) while(%tuple), condition=%wide.condition, body=%body.1
  ROOT %fusion.4 = f32[8] fusion(%x), kind=kOutput, backend_config={"estimated_cycles":"200"}
}
"""


def test_loops_count_as_often_as_they_run():
    assert tpu.cycles(PROGRAM) == 203 + 7 * 10


def test_a_loop_of_unknown_length_is_no_estimate():
    with pytest.raises(ValueError, match="does not count to a constant"):
        tpu.cycles(PROGRAM.replace("constant(7)", "parameter(0)"))


def test_without_the_compiler_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(tpu.importlib.util, "find_spec", lambda name: None)
    assert tpu.main([]) == 2
    assert "pip install libtpu==" in capsys.readouterr().err


def test_no_case_is_expected_to_take_longer_than_with_lax():
    rows = [line.split("|") for line in (RESULTS / "tpu.txt").read_text().splitlines()[2:]]
    found = {row[1].strip(): float(row[4]) for row in rows if len(row) == 8}
    assert list(found) == [str(case) for case in cases.CASES if case.dtype != "float64"]
    half = (RESULTS / "tpu-bfloat16.txt").read_text().splitlines()[2:]
    for ratios in (found.values(), [float(line.split("|")[4]) for line in half if "|" in line]):
        assert len(ratios) > 70
        assert max(ratios) <= tpu.LIMIT
        assert min(ratios) < 0.7


@pytest.mark.parametrize("numbers", [("NCH", "OIH", "NCH"), ("NHC", "HIO", "NHC")])
@pytest.mark.parametrize(
    ("kernel", "stride", "low"), [(16, 8, 4), (4, 2, 1), (3, 2, 0), (2, 5, 0), (3, 3, -1)]
)
def test_kernel_gradients_over_one_axis_have_the_cheaper_form(numbers, kernel, stride, low):
    """x is the window and y has the gaps; the values are those of the other form."""
    window = Window((520 * stride,), (520,), (kernel,), (stride,), (1,), (low,))
    draw = np.random.default_rng(0).integers
    x = draw(-3, 4, (2, 3, *window.big)).astype("float32")
    y = draw(-3, 4, (2, 4, *window.small)).astype("float32")
    truth = kernel_grad_loops(x, y, window.kernel, stride=(stride,), dilation=(1,), low=(low,))
    if numbers[0] == "NHC":
        x, y, truth = x.swapaxes(1, 2), y.swapaxes(1, 2), truth.transpose(2, 1, 0)

    def grad(platform):
        layout = Layout.of("conv", numbers, 1)
        form = Form(window, 1, layout, None, "vendor")
        return lambda x, y: evaluate("kernel_grad", platform, x, y, form=form, dtype=x.dtype)

    np.testing.assert_array_equal(grad("tpu")(x, y), truth)
    np.testing.assert_array_equal(grad("cuda")(x, y), truth)
    texts = [str(jax.make_jaxpr(grad(platform))(x, y)) for platform in ("tpu", "cuda")]
    assert [f"lhs_dilation=({stride},)" in text for text in texts] == [True, False]


@pytest.mark.parametrize(
    ("channels", "images", "is_over_y"), [(127, 2, True), (128, 2, False), (3, 1, False)]
)
def test_where_the_cheaper_form_is_known_to_be_cheaper(channels, images, is_over_y):
    """Below 128 channels of x and from 1024 positions of the batch on."""
    window = Window((1040,), (520,), (4,), (2,), (1,), (1,))
    form = Form(window, 1, Layout.of("conv", None, 1), None, "vendor")
    x, y = np.ones((images, channels, 1040), "float32"), np.ones((images, 2, 520), "float32")
    text = str(
        jax.make_jaxpr(partial(evaluate, "kernel_grad", "tpu", form=form, dtype=x.dtype))(x, y)
    )
    assert ("lhs_dilation=(2,)" in text) == is_over_y
