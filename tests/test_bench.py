"""The benchmark: that its work is what it says, and that it stops where a time would mean nothing."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import (
    architectures,
    cases,
    chart,
    machine,
    models,
    operations,
    peers,
    ratios,
    report,
    suite,
    timing,
)
from benchmarks.__main__ import main
from benchmarks.peers import LAX, OURS
from jdeconv import evaluate

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"

SMALL = [
    cases.Layer("conv", 2, (4, 6), (7, 5), 3, stride=2, padding=1, groups=2),
    cases.Layer("conv", 2, (3, 6), (9,), 3, padding=2, dilation=2),
    cases.Layer("deconv", 2, (4, 6), (4, 3), 3, stride=2, padding=1, output_padding=1),
    cases.Layer("deconv", 2, (4, 6), (3, 4, 2), 2, stride=2, groups=2),
    cases.Layer("conv", 2, (4, 4), (5, 6), 3, padding=1, scan=3),
    cases.Layer("conv", 1, (2, 3), (5, 6), 3, padding=1, examples=4),
    cases.Layer("deconv", 2, (2, 3), (5, 6), 2, ensemble=3),
]


@pytest.fixture
def small(monkeypatch):
    """One small case instead of all, and a machine that needs no measuring."""
    case = cases.Case("small", "dense", SMALL[0])
    monkeypatch.setattr(suite, "CASES", [case])
    rates = dict.fromkeys(("float32", "float64", "bfloat16"), 1e11)
    monkeypatch.setattr(machine, "measure", lambda: machine.Machine(rates, 1e11, 1e10, 2 << 20))
    monkeypatch.setattr(timing, "TURN_SECONDS", 0.0)
    return case


def results(peer, case):
    program = peer.program(case, case.work.arrays(np.random.default_rng(0)))
    return program.fetch(program.run())


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("work", SMALL, ids=str)
def test_all_peers_do_the_same_work(work, layout):
    case = cases.Case("case", "dense", work, layout=layout)
    there = {
        name: peer
        for name, peer in peers.peers().items()
        if not peers.missing(peer) and peer.refuses(case) is None
    }
    found = {name: results(peer, case) for name, peer in there.items()}
    timing.compare(case, found)
    assert {"jdeconv", "jax.lax"} <= set(found)


def test_the_column_im2col_is_of_the_definition_alone(monkeypatch):
    names, choose = set(), evaluate.choose

    def chosen(p):
        names.add(name := choose(p))
        return name

    monkeypatch.setattr(evaluate, "choose", chosen)
    case = cases.Case("case", "dense", SMALL[5], layout="NHWC")
    for peer, expected in ((peers.Im2colPeer, {"im2col"}), (peers.AcceleratedPeer, {"taps"})):
        names.clear()
        results(peer(operations.Lax), case)
        assert names == expected


@pytest.mark.parametrize("name", models.MODELS)
def test_flops_of_the_training_steps_are_those_of_xla(name):
    """XLA counts other arithmetic too, and leaves out the taps that lie in the padding."""
    work = cases.STEPS[name]
    arrays = [np.float32(a.value) for a in work.arrays(np.random.default_rng(0))]
    forward = jax.jit(lambda image, *kernels: work.model(operations.Lax("NCHW"), image, kernels))
    counted = forward.lower(*arrays).compile().cost_analysis()["flops"]
    assert 0.5 < 3 * counted / work.flops < 1.7


def test_cases_have_names_of_their_own_and_both_layouts():
    names = list(map(str, cases.CASES))
    assert len(set(names)) == len(names)
    assert set(cases.QUICK) <= {case.name for case in cases.CASES}
    families = {case.family for case in cases.CASES if case.layout == "NHWC"}
    assert {case.family for case in cases.CASES} - families == {"large kernel"}


def test_a_wrong_result_stops_it(small, monkeypatch, capsys):
    right = operations.Jdeconv.conv
    monkeypatch.setattr(operations.Jdeconv, "conv", lambda s, x, k, **o: 1.01 * right(s, x, k, **o))
    assert main(["--peers", ""]) == 1
    out = capsys.readouterr()
    assert "small, NCHW: result 0 of jdeconv is 1.0e-02 of its largest value away" in out.err
    assert "geometric mean" not in out.out


@pytest.mark.usefixtures("small")
def test_zeros_are_never_timed(monkeypatch, capsys):
    """Not even where all peers agree on them."""
    for ops in (operations.Jdeconv, operations.Lax):
        right = ops.conv
        monkeypatch.setattr(ops, "conv", lambda s, x, k, right=right, **o: 0 * right(s, x, k, **o))
    assert main(["--peers", ""]) == 1
    assert "is zero, or not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ours", "text"),
    [
        ([np.full(3, np.nan)], "result 0 of jdeconv is zero, or not finite"),
        ([np.ones(4)], r"shape \(4,\), jax.lax's \(3,\)"),
        ([np.ones(3), np.ones(3)], "jdeconv gave 2 results, not 1"),
        ([np.array([1.0, 2.0, 3.001])], "away from jax.lax's"),
    ],
)
def test_what_is_refused(ours, text):
    with pytest.raises(timing.WrongResultError, match=text):
        timing.compare(
            cases.Case("case", "dense", SMALL[0]),
            {"jdeconv": ours, "jax.lax": [np.array([1.0, 2.0, 3.0])]},
        )


def test_im2col_is_left_out_where_it_takes_minutes():
    peer = peers.peers()["im2col"]
    left_out = {case.name for case in cases.CASES if peer.refuses(case)}
    assert left_out == {"large k71", "large k101", "large k101 float64"}


@pytest.mark.usefixtures("small")
def test_a_missing_peer_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(peers.EquinoxPeer, "package", "no_such_package")
    path = tmp_path / "run.json"
    assert main(["--peers", "equinox", "--json", str(path)]) == 0
    out = capsys.readouterr()
    assert "missing: equinox is not installed and so not timed" in out.err
    assert "missing: equinox (not installed)" in out.out
    assert json.loads(path.read_text())["missing"] == {"equinox": "not installed"}


def test_a_run_is_written_and_read_back(small, tmp_path, capsys):
    paths = {name: tmp_path / f"run.{name}" for name in ("json", "txt", "svg", "png")}
    arguments = ["small", "--peers", "", "--json", str(paths["json"])]
    arguments += ["--table", str(paths["txt"]), "--chart", str(paths["svg"])]
    assert main(arguments) == 0
    run = report.Run.load(paths["json"])
    (row,) = run.rows
    assert set(row.seconds) == {"jdeconv", "jax.lax"}
    assert row.flops == small.flops == 3 * 2 * 2 * (6 * 2 * 9) * (4 * 3)
    assert row.ratio("jax.lax") == row.seconds["jax.lax"] / row.seconds["jdeconv"]
    assert run.mean("jax.lax") == pytest.approx(row.ratio("jax.lax"))
    assert report.table(run) == paths["txt"].read_text()
    assert report.line(row, ["jax.lax"]) in capsys.readouterr().out
    assert "small, NCHW" in paths["svg"].read_text()
    report.chart(run, paths["png"])
    assert paths["png"].read_bytes().startswith(b"\x89PNG")


def test_the_floor():
    limits = machine.Machine({"float32": 100.0}, cache=1e9, memory=10.0, cache_bytes=1 << 20)
    assert limits.floor(1000, 1, "float32") == 10
    assert limits.bound(1000, 1, "float32") == "compute"
    large = 4 << 20
    assert limits.floor(1, large, "float32") == large / 10
    assert limits.bound(1, large, "float32") == "memory"


def test_the_machine_is_measured_in_the_dtypes_of_its_cases():
    found = machine.measure(machine.Sizes(1 << 12, 1 << 14, {"float16": (8, 16), "float64": (8,)}))
    assert set(found.peak) == {"float16", "float64"}
    assert min(*found.peak.values(), found.cache, found.memory) > 0
    for platform, all_cases in (
        ("cpu", cases.CASES),
        ("accelerator", cases.for_accelerator(cases.CASES)),
    ):
        assert {case.dtype for case in all_cases} <= set(machine.SIZES[platform].dots)


def test_an_accelerator_gets_larger_cases_in_narrow_floats_too(monkeypatch, capsys):
    monkeypatch.setattr(suite.jax, "default_backend", lambda: "gpu")
    found = suite.chosen(["deconv k2 s2*", "step DCGAN"], "NCHW", None, False)
    assert [(case.name, case.dtype) for case in found] == [
        ("deconv k2 s2", "float32"),
        ("deconv k2 s2 bfloat16", "bfloat16"),
        ("deconv k2 s2 float16", "float16"),
        ("step DCGAN", "float32"),
    ]
    one, large = cases.DECONV["k2 s2"], found[0].work
    assert large == cases.dataclasses.replace(one, batch=16 * one.batch)
    assert found[0].flops == 16 * one.flops
    assert found[3].flops == pytest.approx(16 * cases.STEPS["DCGAN"].flops)
    pytest.importorskip("torch")
    assert "no GPU" in peers.peers()["torch"].refuses(found[0])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no such case"], "no case of that name"),
        (["--peers", "tensorflow"], "--peers tensorflow: there are jdeconv, jax.lax"),
        (["--chart", "run.gif"], "must end in .png or .svg"),
        (["--json", "no/such/folder/run.json"], "expected the name of a file in a folder"),
        (["--table", "."], "expected the name of a file in a folder"),
        (["--readme", "CHANGELOG.md"], "there are no lines <!-- bench -->"),
        (["depthwise 3x3*", "--peers", "", "--lowering", "nhwc"], "nhwc unrolls up to 16"),
    ],
)
def test_what_the_command_refuses(arguments, text, ends_with_2):
    ends_with_2(main, arguments, text)


def test_list(capsys):
    assert main(["deconv k?*", "--layout", "NCHW", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "deconv k4 s2 p1, NCHW"
    assert all("deconv k" in line and "NCHW" in line for line in lines)


def test_readme_has_the_tables_of_the_committed_run():
    readme = (RESULTS.parent.parent / "README.md").read_text()
    table = readme.partition("<!-- bench -->\n")[2].partition("<!-- /bench -->")[0]
    assert table.strip() == report.markdown(report.Run.load(RESULTS / "cpu.json")).strip()


NETWORKS = report.Run.load(RESULTS / "networks.json", ratios.Row)


def test_readmes_first_numbers_are_of_the_committed_run():
    """Each library in its faster layout."""
    readme = (RESULTS.parent.parent / "README.md").read_text()
    for name, start in (
        ("ResNet-50", "| ResNet-50, a training step"),
        ("3x3 conv through scan", "| eight convs in a"),
    ):
        rows = [row for row in NETWORKS.rows if row.name == name]
        ours, lax = (
            1e3 * min(np.median(row.seconds[peer]) for row in rows) for peer in (OURS, LAX)
        )
        [line] = [line for line in readme.splitlines() if line.startswith(start)]
        assert f"| {ours:.0f} ms | {lax:.0f} ms | {lax / ours:.2g} |" in line
    means = [NETWORKS.mean(peer, "network") for peer in (LAX, "torch")]
    assert f"{means[0]:.1f} times as fast as with jax.lax and {means[1]:.2f} times" in readme
    networks = [row for row in NETWORKS.rows if row.family == "network"]
    assert min(row.bound(LAX) for row in networks) > 1


def test_the_committed_table_of_networks_is_that_of_the_committed_run():
    assert (RESULTS / "networks.txt").read_text() == ratios.table(NETWORKS)
    assert {row.name for row in NETWORKS.rows} == set(architectures.small_steps())


def test_readmes_chart_is_of_the_committed_run(tmp_path):
    times = chart.milliseconds(NETWORKS)
    assert len(times) == 14
    labels = [chart.label(*pair) for of_network in times.values() for pair in of_network.items()]
    chart.draw(times, tmp_path / "chart.svg")
    for drawn in (RESULTS / "steps.svg", tmp_path / "chart.svg"):
        text = drawn.read_text()
        assert sorted(re.findall(r">(\S+ \d+ ms)<", text)) == sorted(labels)
        assert len(text) < 200_000


def test_the_committed_table_is_that_of_the_committed_run():
    run = report.Run.load(RESULTS / "cpu.json")
    assert (RESULTS / "cpu.txt").read_text() == report.table(run)
    assert {(row.name, row.layout) for row in run.rows} == {
        (case.name, case.layout) for case in cases.CASES
    }


@pytest.mark.parametrize(
    ("folder", "other"), [("benchmarks", r"jdeconv(\.| import )cli"), ("jdeconv", "benchmarks")]
)
def test_imports_that_are_forbidden(folder, other):
    found = re.compile(rf"^\s*(from|import) {other}\b", re.MULTILINE)
    paths = sorted((RESULTS.parent.parent / folder).rglob("*.py"))
    assert len(paths) > 10
    assert [path.name for path in paths if found.search(path.read_text())] == []
