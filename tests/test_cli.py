"""python -m jdeconv, as a user runs it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from thinned import thinned

from jdeconv.__main__ import main
from jdeconv.cli import check

ROOT = Path(__file__).parents[1]


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert re.search(r"demo\s+train", text)
    assert re.search(r"check\s+compare", text)


@pytest.mark.parametrize(
    "arguments",
    [["jdeconv", "check"], ["benchmarks", "--list"], ["benchmarks.gpu", "--list"]],
)
def test_a_command_ends_quietly_when_nobody_reads_it(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", *arguments]
    run = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (run.returncode, run.stderr) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize("every", thinned([4, 1], 2))
def test_check_passes(every, monkeypatch, capsys):
    monkeypatch.setattr(check, "GEOMETRIES", check.GEOMETRIES[::every])
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(check.GEOMETRIES)} geometries, 0 failures"
    assert sum("FAIL" in line for line in lines) == 0
    assert sum(line.count(" ok") for line in lines) >= 4 * len(check.GEOMETRIES)
    assert "kernel (k), stride (s)" in "".join(lines)


def test_check_finds_a_wrong_result(monkeypatch, capsys):
    """A kernel flipped on its way in, which leaves the inner-product identity whole."""
    right = check.conv
    monkeypatch.setattr(check, "conv", lambda x, k, **o: right(x, k[..., ::-1], **o))
    monkeypatch.setattr(check, "GEOMETRIES", check.GEOMETRIES[1:2])
    assert main(["check", "--lowering", "vendor", "--seed", "3"]) == 1
    assert re.search(r"k4 s2 p1\s+FAIL\s+FAIL\s+ok\s+FAIL\s+FAIL", capsys.readouterr().out)


def test_check_passes_over_what_a_lowering_does_not_serve(monkeypatch, capsys):
    monkeypatch.setattr(check, "GEOMETRIES", (check.GEOMETRIES[27], check.GEOMETRIES[4]))
    assert main(["check", "--lowering", "taps"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[-5:] == ["-"] * 5
    assert lines[4].split()[-5:] == ["ok"] * 5


def test_check_refuses_a_seed_that_is_no_number(ends_with_2):
    ends_with_2(main, ["check", "--seed", "-1"], "'-1' is not a number from 0 up")


def test_check_covers_every_kind_of_geometry():
    for wanted in (r"d\d", r"g\d", "SAME_LOWER", "p-1", r"\dx\dx\dx\d", "s2x1"):
        assert any(re.search(wanted, str(geometry)) for geometry in check.GEOMETRIES), wanted


@pytest.fixture
def no_picture(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a picture")
    return path


def test_demo_refuses_a_file_that_is_no_picture(no_picture, capsys):
    assert main(["demo", "--image", str(no_picture)]) == 2
    text = capsys.readouterr().err
    assert (
        text
        == f"jdeconv demo: --image {no_picture}: this file is not a picture that Pillow can read\n"
    )


def test_demo_refuses_a_missing_file(tmp_path, capsys):
    assert main(["demo", "--image", str(tmp_path / "absent.png")]) == 2
    assert re.fullmatch(r"jdeconv demo: --image .*No such file.*\n", capsys.readouterr().err)


def test_demo_names_the_extra_that_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(["demo"]) == 2
    assert "pip install '.[demo]'" in capsys.readouterr().err


def test_demo_reads_16_bits_and_transparency(tmp_path):
    image = pytest.importorskip("PIL.Image")
    photographs = pytest.importorskip("jdeconv.cli.photographs")
    deep = np.array([[0, 257, 514], [12850, 25700, 65535]], np.uint16)
    image.fromarray(deep).save(tmp_path / "deep.png")
    opened = np.asarray(photographs.opened(tmp_path / "deep.png"))
    np.testing.assert_array_equal(opened[..., 1], [[0, 1, 2], [50, 100, 255]])
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [10, 20, 30, 51]]], np.uint8)
    image.fromarray(pixels).save(tmp_path / "clear.png")
    opened = np.asarray(photographs.opened(tmp_path / "clear.png"))
    assert opened.tolist() == [[[10, 20, 30], [255, 255, 255], [206, 208, 210]]]


def test_the_network_of_the_demo_is_of_float32_whatever_the_default():
    network = pytest.importorskip("jdeconv.cli.network")
    with jax.enable_x64(True):
        params = network.init(jax.random.key(0))
        for layers in (network.JDECONV, network.LAX):
            out = network.apply(params, np.zeros((1, 1, 9, 8), np.float32), layers)
            assert out.dtype == np.float32


def test_demo_refuses_no_steps(capsys):
    assert main(["demo", "--steps", "0"]) == 2
    assert "--steps 0: must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "least"), [(30, -1.5), pytest.param(250, 0.5, marks=pytest.mark.slow)]
)
def test_demo_trains_beats_bicubic_and_upscales(steps, least, tmp_path):
    """Fewer steps than the default, in a process of its own, with a picture of odd sizes and with alpha.

    After one step the gain is -2.9 dB, after 30 it is -0.5.
    """
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 4), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "own.png")
    command = [sys.executable, "-W", "error", "-m", "jdeconv", "demo", "--steps", str(steps)]
    command += ["--image", str(tmp_path / "own.png"), "--output", str(tmp_path / "out")]
    environment = os.environ | {"JAX_NUMPY_DTYPE_PROMOTION": "standard"}  # optax.adam promotes
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    gain = float(re.search(r"mean gain\s+([+-][\d.]+)", run.stdout)[1])
    assert gain >= least
    assert re.search(r"training step.*jdeconv [\d.]+ ms, jax.lax [\d.]+ ms", run.stdout)
    assert f"{steps}/{steps}" in run.stderr
    with image.open(tmp_path / "out" / "own-2x.png") as own:
        assert own.size == (102, 74)
    with image.open(tmp_path / "out" / "comparison.png") as sheet:
        assert np.asarray(sheet).std() > 20
