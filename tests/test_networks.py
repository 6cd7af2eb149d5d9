"""The measure of whole networks: its architectures, its arithmetic, and its command on a tiny network."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import architectures, networks, operations, peers, ratios, report, timing
from benchmarks.cases import Case

TINY = "eight 3>3 filters"
ROOT = Path(__file__).parents[1]
FROZEN = (
    "ResNet-50",
    "ResNeXt-50",
    "U-Net 16-64",
    "U-Net 64-1024",
    "MobileNetV2",
    "EfficientNet-B0",
    "ConvNeXt-T",
    "FSRCNN",
    "eight 3>3 filters",
    "DCGAN",
    "autoencoder",
    "HiFi-GAN",
    "TCN",
    "V-Net",
    "1>1 stencil, 50 times",
    "3x3 conv through scan",
)


def tiny(net, x):
    """A conv and a deconv with a stride, and every operation that only new networks use."""
    x = net.prelu(net.conv(x, 4, 3, stride=2, padding=1, bias=True))
    x = x * net.ops.sigmoid(net.ops.average(net.ops.silu(x)))
    return net.deconv(x, 2, 4, stride=2, padding=1)


@pytest.fixture
def small(monkeypatch):
    """Two tiny networks in the place of all."""
    steps = {TINY: architectures.step(tiny, (2, 3, 8, 6))}
    steps[networks.APART[0]] = architectures.step(architectures.stencil, (1, 1, 6, 5), times=3)
    monkeypatch.setattr(architectures, "small_steps", lambda: steps)
    monkeypatch.setattr(timing, "TURN_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("ResNet-50", 25_557_032 - 2_049_000),
        ("ResNeXt-50", 25_028_904 - 2_049_000),
        ("EfficientNet-B0", 5_288_548 - 1_281_000),
        ("MobileNetV2", 3_504_872 - 1_281_000),
        # The head, the norm before it and the scales of the blocks are left out.
        ("ConvNeXt-T", 28_589_128 - 769_000 - 1536 - 6624),
        ("FSRCNN", 12_464 + 173 + 172),  # the paper's, without biases and slopes
        ("TCN", 66_250),
        ("eight 3>3 filters", 8 * 81),
    ],
)
def test_parameters_are_those_of_the_papers_without_classifiers(name, numbers):
    assert sum(map(math.prod, architectures.small_steps()[name].kernels)) == numbers


def test_the_list_is_the_frozen_one():
    assert tuple(architectures.small_steps()) == FROZEN
    assert set(networks.APART) | set(networks.QUICK) < set(FROZEN)


@pytest.mark.parametrize("layout", networks.LAYOUTS)
@pytest.mark.parametrize(
    ("network", "image", "sizes"),
    [
        (tiny, (2, 3, 8, 6), {}),
        (architectures.tcn, (2, 1, 40), {"width": 3, "levels": 2, "taps": 3}),
        (architectures.fsrcnn, (1, 1, 5, 4), {"d": 4, "s": 2, "m": 1}),
        (architectures.stencil, (1, 1, 6, 5), {"times": 3}),
        (architectures.recurrent, (2, 3, 6, 5), {"times": 3}),
    ],
)
def test_all_peers_do_the_same_work(network, image, sizes, layout):
    work = architectures.step(network, image, **sizes)
    arrays, found = work.arrays(np.random.default_rng(0)), {}
    case = Case("case", "step", work, layout=layout)
    known = {
        "jax.lax": peers.JaxPeer(operations.Lax),
        "jdeconv": peers.AcceleratedPeer(operations.Lax),
    }
    for name, peer in (known | {"torch": peers.TorchPeer()}).items():
        if not peers.missing(peer) and peer.refuses(case) is None:
            program = peer.program(case, arrays)
            found[name] = program.fetch(program.run())
    timing.compare(case, found)
    assert timing.compare_networks(case, found) == "loss and gradients"
    assert len(found["jdeconv"]) == 1 + len(work.kernels)


def test_a_causal_network_does_not_see_the_future():
    work = architectures.step(architectures.tcn, (1, 1, 30), width=3, levels=2, taps=3)
    x, *kernels = (np.float32(a.value) for a in work.arrays(np.random.default_rng(0)))
    later = x.copy()
    later[..., 20:] += 1
    a, b = (np.asarray(work.model(operations.Lax("NCHW"), x, kernels)) for x in (x, later))
    np.testing.assert_array_equal(a[..., :20], b[..., :20])
    assert (a[..., 20:] != b[..., 20:]).any()


@pytest.mark.parametrize(
    ("n", "k"), [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (20, 6)]
)
def test_the_lower_bound_is_that_of_the_tables_of_order_statistics(n, k):
    values = np.random.default_rng(n).permutation(n) + 1.0
    assert ratios.lower_bound(values) == k


def made_up(name="a", layout="NHWC", family="network", **seconds):
    filled = {"jdeconv": [1.0, 2.0, 4.0]} | seconds
    extras = {"jdeconv": 3.0, "jax.lax": 2.0}, {"jdeconv": 2**20, "jax.lax": 2**22}
    return ratios.Row(name, family, layout, "float32", "loss", "NHWC", filled, *extras)


def test_ratios_are_paired_by_rounds_and_means_leave_out_what_is_apart():
    rows = [
        made_up("a", **{"jax.lax": [2.0, 8.0, 12.0]}),  # 2, 4, 3; the medians' ratio is 4
        made_up("b", "NCHW", **{"jax.lax": [12.0, 24.0, 48.0]}),
        made_up("c", family="apart", **{"jax.lax": [100.0, 200.0, 400.0]}),
    ]
    assert rows[0].ratio("jax.lax") == 3.0
    assert rows[0].bound("jax.lax") == 2.0
    assert rows[0].ratio("torch") is None
    run = report.Run({}, {}, {}, rows)
    text = ratios.summary(run).splitlines()
    assert text[1].split() == ["geometric", "mean,", "NHWC", "3.00"]
    assert text[5].split() == ["geometric", "mean,", "both", "layouts", "6.00"]
    assert text[6].split() == ["least,", "both", "layouts", "3.00"]
    assert "Not in the means: c." in text
    assert ratios.line(rows[0], ["jax.lax", "torch"]).split()[2:] == (
        ["2000.0", "3.00", "(2.00)", "-", "3.0", "1.50", "1.0", "0.25"]
    )


@pytest.mark.usefixtures("small")
@pytest.mark.slow
def test_a_run_is_written(tmp_path, monkeypatch, capsys):
    class Earlier(peers.AcceleratedPeer):
        def __init__(self, path):
            super().__init__(operations.Lax)

        def close(self):
            closed.append(self)

    closed = []
    monkeypatch.setattr(networks, "EarlierPeer", Earlier)
    paths = {kind: tmp_path / f"run.{kind}" for kind in ("json", "txt", "svg")}
    arguments = ["--rounds", "2", "--against", str(ROOT), "--json", str(paths["json"])]
    arguments += ["--table", str(paths["txt"]), "--chart", str(paths["svg"])]
    assert networks.main(arguments) == 0
    out = capsys.readouterr().out
    run = report.Run.load(paths["json"], ratios.Row)
    assert [(row.name, row.layout) for row in run.rows] == [
        (name, layout) for name in architectures.small_steps() for layout in networks.LAYOUTS
    ]
    for row in run.rows:
        assert set(row.seconds) - {"torch"} == {"jdeconv", "jax.lax", "im2col", "earlier"}
        assert {len(times) for times in row.seconds.values()} == {2}
        assert set(row.compile_seconds) == {"jdeconv", "jax.lax", "im2col", "earlier"}
        assert row.compared == "loss and gradients"
    assert len(closed) == 1
    assert paths["txt"].read_text() == ratios.table(run) == out
    assert f"Not in the means: {networks.APART[0]}." in out
    assert "eight 3&gt;3 filters, NHWC" in paths["svg"].read_text()


@pytest.mark.usefixtures("small")
def test_half_precision_compares_losses(capsys):
    assert networks.main([TINY, "--dtype", "bfloat16", "--rounds", "1", "--layout", "NCHW"]) == 0
    out = capsys.readouterr().out
    assert f"the loss of: {TINY}." in out
    assert "NHWC" not in out


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("which", "factor", "text"),
    [
        (0, 1.001, "result 0 of jdeconv is 1.0e-03"),
        (1, 1.2, "gradient 0 of jdeconv is 2.0e-01"),
        (2, 0.0, "gradient 1 of jdeconv is 1.0e+00"),
    ],
)
def test_no_time_is_told_of_a_wrong_peer(which, factor, text, monkeypatch, capsys):
    right = peers.AcceleratedPeer.function

    def wrong(self, case):
        def function(*arrays):
            results = list(right(self, case)(*arrays))
            results[which] = factor * results[which]
            return results

        return function

    monkeypatch.setattr(peers.AcceleratedPeer, "function", wrong)
    assert networks.main([TINY, "--rounds", "1", "--layout", "NHWC"]) == 1
    out = capsys.readouterr()
    assert f"{TINY}, NHWC: {text}" in out.err
    assert "geometric mean" not in out.out


def test_the_list(capsys):
    assert networks.main(["ResNe?t*", "U-Net*", "--list"]) == 0
    assert capsys.readouterr().out.split("\n") == ["ResNeXt-50", "U-Net 16-64", "U-Net 64-1024", ""]
    assert networks.main(["--list", "--quick"]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == [*networks.QUICK]


@pytest.mark.usefixtures("small")
def test_a_missing_torch_is_told(monkeypatch, capsys):
    monkeypatch.setattr(networks.importlib.util, "find_spec", lambda name: None)
    assert networks.main([TINY, "--rounds", "1", "--layout", "NHWC"]) == 0
    out = capsys.readouterr()
    assert out.err.splitlines()[0] == "torch is not installed and so not timed"
    assert "missing: torch is not installed" in out.out
    assert "/ torch" not in out.out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no such network"], "no network of that name"),
        (["--rounds", "0"], "--rounds 0: expected 1 or more"),
        (["--chart", "run.gif"], "must end in .png or .svg"),
        (["--json", "no/such/folder/run.json"], "expected the name of a file in a folder"),
        (["--against", "docs"], "--against docs: there is no jdeconv in it"),
    ],
)
def test_what_the_command_refuses(arguments, text, ends_with_2):
    ends_with_2(networks.main, arguments, text)


@pytest.mark.slow
def test_an_earlier_commit_takes_turns(tmp_path):
    """Here the same commit; the other process has compiled for itself."""
    path = tmp_path / "run.json"
    arguments = ["FSRCNN", "--layout", "NHWC", "--rounds", "1", "--json", str(path)]
    assert networks.main([*arguments, "--against", str(ROOT)]) == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert row["seconds"]["earlier"][0] > 0
    assert row["temporary_bytes"]["earlier"] == row["temporary_bytes"]["jdeconv"]
