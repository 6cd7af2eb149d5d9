"""How the text of a GPU's program is read, what is written down of it, and the command's plain errors."""

import json
import math
from pathlib import Path

import pytest

from benchmarks import architectures, gpu, gpu_times, h100, hlo, operations, peers
from benchmarks.cases import Case, Layer
from benchmarks.tasks import DTYPES, tasks

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PROGRAM = """HloModule jit_f, is_scheduled=true

%fused (p.0: bf16[8,4,4,16], p.1: s32[]) -> bf16[1,4,4,16] {
  %p.0 = bf16[8,4,4,16]{3,2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  ROOT %slice = bf16[1,4,4,16]{3,2,1,0} dynamic-slice(%p.0, %p.1, /*index=2*/%p.1, %p.1, %p.1)
}

%gemm (a: bf16[32,64], b: bf16[64,16]) -> f32[32,16] {
  %a = bf16[32,64]{1,0} parameter(0)
  %b = bf16[64,16]{1,0} parameter(1)
  ROOT %dot.1 = f32[32,16]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (t: (s32[], bf16[8,4,4,16])) -> (s32[], bf16[8,4,4,16]) {
  %t = (s32[], bf16[8,4,4,16]{3,2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = bf16[8,4,4,16]{3,2,1,0} get-tuple-element(%t), index=1
  %one = bf16[1,4,4,16]{3,2,1,0} fusion(%x, %i), kind=kLoop, calls=%fused
  ROOT %tuple = (s32[], bf16[8,4,4,16]{3,2,1,0}) tuple(%i, %x)
}

ENTRY %main (x: bf16[8,4,4,16], k: bf16[32,3,3,16]) -> bf16[8,4,4,32] {
  %x = bf16[8,4,4,16]{3,2,1,0} parameter(0)
  %k = bf16[32,3,3,16]{3,2,1,0} parameter(1)
  %call = (bf16[8,4,4,32]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), FORM="__cudnn$convForward"
  %y = bf16[8,4,4,32]{3,2,1,0} get-tuple-element(%call), index=0
  %back = (bf16[8,4,4,16]{3,2,1,0}, u8[0]{0}) custom-call(%y, %k), FORM="__cudnn$convBackwardInput"
  %zero = s32[] constant(0)
  %t = (s32[], bf16[8,4,4,16]{3,2,1,0}) tuple(%zero, %x)
  %loop = (s32[], bf16[8,4,4,16]{3,2,1,0}) while(%t), body=%body, config={"known_trip_count":{"n":"8"}}
  %a = bf16[32,64]{1,0} bitcast(%x)
  %b = bf16[64,16]{1,0} bitcast(%k)
  %product = f32[32,16]{1,0} fusion(%a, %b), kind=kCustom, calls=%gemm
  ROOT %copy = bf16[8,4,4,32]{3,2,1,0} copy(%y)
}
""".replace("FORM", "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target")


def test_kernels_their_products_and_their_bytes():
    forward, back, one, product, copy = hlo.kernels(PROGRAM)
    x, k, y = 2 * 8 * 16 * 16, 2 * 32 * 9 * 16, 2 * 8 * 16 * 32
    products = 8 * 16 * 32 * 9 * 16
    assert (forward.kind, forward.dtype, forward.products) == ("forward", "bf16", products)
    assert (back.kind, back.products) == ("backward-input", products)
    assert forward.bytes == back.bytes == x + k + y
    assert (product.kind, product.products) == ("dot", 32 * 16 * 64)
    assert product.bytes == 2 * 32 * 64 + 2 * 64 * 16 + 4 * 32 * 16
    assert copy.bytes == 2 * y
    # A slice reads of its operand what it takes, once a turn of the loop.
    assert (one.times, one.bytes) == (8, 2 * x // 8 + 4)


def test_a_loop_of_unknown_length_is_no_estimate():
    with pytest.raises(ValueError, match="nobody knows how often loop runs"):
        hlo.kernels(PROGRAM.replace("known_trip_count", "unknown"))


def test_the_roofline_takes_the_longer_of_products_and_bytes():
    few = hlo.Kernel("forward", "bf16", 0, 3350, 1, "few")
    many = hlo.Kernel("forward", "bf16", 395 * 10**9, 3350, 1, "many")
    assert math.isclose(h100.seconds(few), 1e-9)
    assert math.isclose(h100.seconds(many), 1e-3)
    assert h100.seconds(hlo.Kernel("naive", "bf16", 30 * 10**9, 0, 1, "slow")) == 1e-3


def test_without_the_packages_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(h100.importlib.util, "find_spec", lambda name: None)
    assert gpu.main(["dense 1x1"]) == 2
    message = capsys.readouterr().err
    assert "jax-cuda12-plugin and nvidia-cuda-nvcc-cu12 missing" in message
    assert "pip install jax-cuda12-plugin==" in message


def test_a_name_that_nothing_has(capsys):
    assert gpu.main(["no such case"]) == 2
    assert "--list" in capsys.readouterr().err


def test_the_list_needs_no_packages(capsys):
    assert gpu.main(["step *", "--list", "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "step ResNet-50, bfloat16"


@pytest.mark.parametrize(
    ("name", "millions"),
    [("ResNet-50", 23.51), ("U-Net", 31.04), ("MobileNetV2", 2.22), ("HiFi-GAN", 13.93)],
)
def test_networks_have_as_many_parameters_as_their_papers_say(name, millions):
    """Without the classifiers' dense layers."""
    numbers = sum(map(math.prod, architectures.steps()[name].kernels))
    assert round(numbers / 1e6, 2) == millions


def _small(kind: str, part: str, dtype: str = "float32") -> Case:
    layer = Layer(kind, 2, (4, 4), (9, 8), 3, groups=4)
    return Case(f"small {kind}", kind, layer, dtype, "NHWC", part)


@pytest.mark.slow
def test_layers_small_enough_for_a_cpu_are_timed():
    cases = (
        _small("conv", "image gradient"),
        _small("deconv", "backward"),
        _small("conv", "forward"),
    )
    rows = [gpu_times.measure(case, ("taps",)) for case in cases]
    assert [gpu_times.named(row) for row in rows] == [case.title for case in cases]
    for row in rows:
        assert {gpu_times.OURS, gpu_times.LAX, "jdeconv by taps"} <= set(row["programs"])
        assert max(found["difference"] for found in row["programs"].values()) < 1e-5
    estimate = {gpu_times.LAX: {"seconds": 3.0}, gpu_times.OURS: {"seconds": 2.0}}
    assert "(1.50)" in gpu_times.line(rows[0], [{**rows[0], "programs": estimate}])
    assert "(" not in gpu_times.line(rows[1], [])


def test_no_time_is_told_of_a_wrong_result(monkeypatch):
    class Wrong(operations.Jdeconv):
        def conv(self, x, kernel, **steps):
            return 2 * super().conv(x, kernel, **steps)

    monkeypatch.setattr(peers, "Jdeconv", Wrong)
    row = gpu_times.measure(_small("conv", "forward"), ())
    assert row["programs"] == {}
    assert "ours is 1.0e+00 away" in gpu_times.line(row, [])


def test_half_precision_is_near_float32():
    found = gpu_times.errors()
    assert len(found) == 6
    assert 0 < min(found.values()) <= max(found.values()) < 0.6


def test_times_need_a_gpu(capsys):
    assert gpu.main(["--minutes", "1"]) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err


def test_what_is_timed_has_an_estimate():
    rows = json.loads((RESULTS / "gpu.json").read_text())["rows"]
    estimated = {(row["name"], row["dtype"], row["layout"]) for row in rows}
    for case, _ in gpu_times.chosen([]):
        if case.name not in gpu_times.OTHERS and case.dtype in DTYPES:
            assert (case.name, case.dtype, case.layout) in estimated
    ((step, lowerings),) = gpu_times.chosen(["step DCGAN"])
    assert gpu_times.DEFAULT in gpu_times.contenders(step, lowerings)


def test_what_is_committed():
    rows = json.loads((RESULTS / "gpu.json").read_text())["rows"]
    found = tasks([], [*DTYPES], None)
    expected = [(case.name, case.part, case.dtype, case.layout) for case in found]
    assert [(r["name"], r["part"], r["dtype"], r["layout"]) for r in rows] == expected
    for row in rows:
        found = gpu.ratio(row, gpu.LAX, gpu.DEFAULT)
        if found is None:
            assert row["refused"]
        else:
            assert round(found, 2) >= gpu.target(row), row["name"]
    assert (RESULTS / "gpu.txt").read_text().splitlines()[0] == gpu.HEADER
