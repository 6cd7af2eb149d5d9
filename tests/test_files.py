"""Files from strangers: whatever their bytes, a reader answers or refuses, and soon, and in little memory.

As a program it searches longer, guided by the coverage of the readers: `python tests/test_files.py --help`.
"""

import argparse
import ast
import importlib.util
import io
import random
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
guided = nullcontext()
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if "--folder" in sys.argv:
        import atheris

        guided = atheris.instrument_imports(
            include=["jdeconv.compat.caffe", "docs.examples", "google", "PIL"]
        )

with guided:
    from PIL import Image

    from docs.examples.ncnn_model import read_ncnn
    from docs.examples.torchscript import read_torchscript
    from jdeconv.cli import photographs
    from jdeconv.compat import caffe

MAX_NUMBERS = 1 << 16  # in a net, in place of 2**29, so that nothing here takes a second
PROTOTXT = b"""
name: "net"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 name: "w" }
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 1 weight_filler { type: "xavier" }
    bias_filler { type: "constant" value: 0.5 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "up" type: "Deconvolution" bottom: "pool" top: "up" include { phase: TEST }
  convolution_param { num_output: 4 kernel_size: 4 stride: 2 group: 4 bias_term: false
    weight_filler { type: "bilinear" } } }
layer { name: "crop" type: "Crop" bottom: "up" bottom: "conv" top: "crop" crop_param { axis: 2 offset: 0 } }
layer { name: "both" type: "Concat" bottom: "crop" bottom: "conv" top: "both" concat_param { axis: 1 } }
"""
SOLVER = b"""
net: "train_val.prototxt" type: "SGD" base_lr: 0.01 lr_policy: "multistep" gamma: 0.1 stepvalue: 10
stepvalue: 20 momentum: 0.9 weight_decay: 0.0005 regularization_type: "L2" clip_gradients: 35 iter_size: 2
max_iter: 100 display: 20 snapshot: 50 snapshot_prefix: "net" solver_mode: GPU
"""
POOLING = b"kernel_size: 2 stride: 2"
NCNN = (
    b"7767517\n3 3\nInput data 0 1 data 0=4 1=4 2=3\n"
    b"Convolution a 1 1 data a 0=2 1=3 4=1 5=1 6=54 -23310=1,1.000000e-01\n"
    b"Deconvolution b 1 1 a b 0=1 1=4 3=2 4=3 5=1 6=32\n"
)


def picture(kind):
    stream = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(stream, kind)
    return stream.getvalue()


def caffemodel():
    """The net's own weights, as Caffe stores them."""
    from google.protobuf import text_format

    from jdeconv.compat.caffe.schema import message_class

    message = text_format.Parse(PROTOTXT.decode(), message_class("NetParameter")())
    for layer, shapes in zip(
        message.layer[1::3], (((4, 3, 3, 3), (4,)), ((4, 1, 4, 4),)), strict=False
    ):
        for shape in shapes:
            blob = layer.blobs.add()
            blob.shape.dim.extend(shape)
            blob.data.extend([0.5] * int(np.prod(shape)))
    return message.SerializeToString()


def hdf5():
    """The net's own weights in HDF5."""
    net = caffe.load(PROTOTXT.decode())
    with tempfile.TemporaryDirectory() as folder:
        net.save(net.params, Path(folder, "net.h5"))
        return Path(folder, "net.h5").read_bytes()


def archive():
    """A TorchScript archive's bytes: a zip with a pickle of one module, and one array."""
    program = (
        b"\x80\x02c__torch__\nNet\nq\x00)\x81}(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
        b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRub."
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("net/data.pkl", program)
        file.writestr("net/data/0", np.arange(6, dtype=np.float32).tobytes())
        file.writestr("net/version", "3\n")
    return stream.getvalue()


CAFFES = {  # the beginning of what is said of a file
    "prototxt": "load: prototxt ",
    "caffemodel": "load: caffemodel ",
    "hdf5": "load: caffemodel ",
    "solver": "load_solver: prototxt ",
}

# A target writes bytes to a file and reads it. What it may raise, all readers say in their docstrings.


def read_prototxt(data, folder):
    path = folder / "net.prototxt"
    path.write_bytes(data)
    with mock.patch("jdeconv.compat.caffe.plan.MAX_NUMBERS", MAX_NUMBERS):
        caffe.load(path)


def read_caffemodel(data, folder):
    definition, weights = folder / "net.prototxt", folder / "net.caffemodel"
    definition.write_bytes(PROTOTXT)
    weights.write_bytes(data)
    params = caffe.load(definition, weights).params
    assert jax.tree.map(np.shape, params) == {"conv": [(4, 3, 3, 3), (4,)], "up": [(4, 1, 4, 4)]}


def read_hdf5(data, folder):
    (folder / "weights.h5").write_bytes(data)
    caffe.load(PROTOTXT.decode(), folder / "weights.h5")


def read_solver(data, folder):
    (folder / "solver.prototxt").write_bytes(data)
    caffe.load_solver(folder / "solver.prototxt")


def read_ncnn_param(data, folder):
    (folder / "net.param").write_bytes(data)
    (folder / "net.bin").write_bytes(bytes(4 + 4 * 54 + 8 + 4 + 4 * 32 + 4))
    read_ncnn(folder / "net.param", folder / "net.bin")


def read_ncnn_bin(data, folder):
    (folder / "net.param").write_bytes(NCNN)
    (folder / "net.bin").write_bytes(data)
    read_ncnn(folder / "net.param", folder / "net.bin")


def read_archive(data, folder):
    (folder / "net.pt").write_bytes(data)
    read_torchscript(folder / "net.pt", limit=1 << 20)


def read_picture(data, folder):
    (folder / "picture").write_bytes(data)
    with mock.patch.object(Image, "MAX_IMAGE_PIXELS", 1 << 16):
        photographs.opened(folder / "picture")


REFUSALS = (ValueError, TypeError, NotImplementedError)
TARGETS = {  # reader, what it may raise, real files
    "prototxt": (read_prototxt, ValueError, lambda: [PROTOTXT]),
    "caffemodel": (read_caffemodel, ValueError, lambda: [caffemodel()]),
    "hdf5": (read_hdf5, ValueError, lambda: [hdf5()]),
    "solver": (read_solver, ValueError, lambda: [SOLVER]),
    "ncnn_param": (read_ncnn_param, REFUSALS, lambda: [NCNN]),
    "ncnn_bin": (read_ncnn_bin, REFUSALS, lambda: [bytes(4 + 4 * 54 + 8 + 4 + 4 * 32 + 4)]),
    "torchscript": (read_archive, REFUSALS, lambda: [archive()]),
    "picture": (
        read_picture,
        (OSError, Image.DecompressionBombError),
        lambda: [picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "DDS", "PPM")],
    ),
}


def attempt(name, data, folder):
    """Read; whether it was refused, by Caffe's reader with the file. All else that is raised is a fault."""
    reader, refusals, _ = TARGETS[name]
    try:
        reader(data, folder)
    except refusals as error:
        text = str(error)
    else:
        return False
    assert name not in CAFFES or text.startswith(f"{CAFFES[name]}'{folder}"), text
    return True


def resident():
    """The most memory that this process ever had, in KiB; ru_maxrss would begin at the parent's."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def told_by(script, *arguments):
    """The numbers that a script prints in a process of its own, which would die of a fault in a library too."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return map(float, done.stdout.split())


@st.composite
def damaged(draw, whole):
    """Real bytes after a few cuts, swaps, repeats, flips and numbers of a stranger."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, max(len(data) - 1, 0))), draw(st.integers(1, 24))
        piece = data[at : at + length]
        data[at : at + length] = draw(
            st.sampled_from((b"", piece + piece, piece[::-1], b"-1", b"99999999999", b"nan", b"}"))
            | st.binary(max_size=9)
        )
    ends = st.sampled_from((len(data), len(data) // 2, len(data) - 1))
    return bytes(data[: draw(ends | st.integers(0, len(data)))])


NUMBERS = (b"-1", b"0", b"2000000000", b"4294967295", b"9" * 5000, b"1e39", b"nan", b"-inf")
PATTERNS = rb"(?<!\w)[\d.]+(?!\w)", rb"\w+(?=:)", rb"\w+(?= {)", rb'"\w+"'


@st.composite
def misspelt(draw, whole):
    """A real definition with other numbers, and with fields, messages and names in one another's places."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        pattern = draw(st.sampled_from(PATTERNS))
        found = list(re.finditer(pattern, data))
        words = NUMBERS if pattern is PATTERNS[0] else sorted({match[0] for match in found})
        match = draw(st.sampled_from(found))
        data = data[: match.start()] + draw(st.sampled_from(words)) + data[match.end() :]
    return data


def test_misspelt_definitions_are_read_or_refused(tmp_path):
    pytest.importorskip("google.protobuf")
    outcomes = []

    @settings(derandomize=True, max_examples=250, deadline=10_000)
    @given(misspelt(PROTOTXT))
    def tried(data):
        outcomes.append(attempt("prototxt", data, tmp_path))

    tried()
    assert len(outcomes) // 8 < sum(outcomes) < len(outcomes)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore::UserWarning")
def test_damaged_files_are_read_or_refused(name, tmp_path):
    if name in CAFFES:
        pytest.importorskip("google.protobuf")
    if name == "hdf5":
        pytest.importorskip("h5py")
    outcomes = []

    @settings(derandomize=True, max_examples=250, deadline=10_000)
    @given(st.data())
    def tried(data):
        outcomes.append(
            attempt(name, data.draw(st.sampled_from(wholes).flatmap(damaged)), tmp_path)
        )

    wholes = TARGETS[name][2]()
    assert not any(attempt(name, whole, tmp_path) for whole in wholes)
    tried()
    assert sum(outcomes) > len(outcomes) // 8


DAMAGED = """
import random, sys
from pathlib import Path

from tests.test_files import TARGETS, attempt, resident

name, folder = sys.argv[1], Path(sys.argv[2])
(whole,), rng, refusals = TARGETS[name][2](), random.Random(0), 0
assert not attempt(name, whole, folder)
before = resident()
for _ in range(1000):
    data = bytearray(whole)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(min(len(data), 2048))
        data[at : at + rng.randint(1, 8)] = rng.choice((
            bytes(4), b"\\xff" * 8, rng.randbytes(4), rng.randbytes(1), data[at : at + 8][::-1], b"99999"))
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    refusals += attempt(name, data, folder)
print(refusals, resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.slow
@pytest.mark.parametrize("name", CAFFES)
def test_a_thousand_damaged_files_are_read_or_refused_in_little_memory(name, tmp_path):
    for package in ("google.protobuf", "h5py"):
        pytest.importorskip(package)
    refusals, memory = told_by(DAMAGED, name, tmp_path)
    assert 250 < refusals < 1000
    assert memory < 64 << 10


GREEDY = (  # a change of a few bytes, and what is read next takes gigabytes, were it not refused
    (b"num_output: 4", b"num_output: 2000000000"),
    (b"num_output: 4 kernel_size: 3", b"num_output: 4 kernel_size: 60000"),
    (b"dim: 8 dim: 8", b"dim: 2000000000 dim: 2000000000"),
    (b"pad: 1", b"pad: 2000000000"),
    (POOLING, b"kernel_size: 2000000000 pad: 1999999999"),
    (POOLING, b"kernel_h: 200000000 pad_h: 199999999 kernel_w: 1 pad_w: 0"),
    (b"MAX " + POOLING, b"AVE kernel_size: 20000 pad: 19999"),
    (
        b'"Pooling" bottom: "conv" top: "pool"\n  pooling_param { pool: MAX ' + POOLING,
        b'"Im2col" bottom: "conv" top: "pool" convolution_param { kernel_size: 20000 pad: 20000',
    ),
)
PEAK = """
import sys, tracemalloc

import numpy as np

from jdeconv.compat import caffe
from tests.test_files import resident

caffe.load(sys.argv[1])
before = resident()
tracemalloc.start()
for path in sys.argv[2:]:
    try:
        caffe.load(path)
    except ValueError as error:
        assert str(error).startswith(f"load: prototxt {path!r}")
    else:
        raise AssertionError(path)
print(resident() - before, tracemalloc.get_traced_memory()[1] >> 10)
held = np.ones(16 << 20)
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_few_bytes_ask_for_no_memory(tmp_path):
    """Neither of numpy, touched or not, nor of XLA; in KiB."""
    pytest.importorskip("google.protobuf")
    paths = [tmp_path / f"{i}.prototxt" for i in range(len(GREEDY) + 1)]
    for path, change in zip(paths, ((b"", b""), *GREEDY), strict=True):
        assert change[0] in PROTOTXT
        path.write_bytes(PROTOTXT.replace(*change, 1))
    most, traced, of_128_mib = told_by(PEAK, *paths)
    assert max(most, traced) < 64 << 10
    assert of_128_mib > 120 << 10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b'"xavier"', b'"xaver"'), r"layer 'conv', filler of blob 0: must be one of"),
        ((b"value: 0.5", b"value: nan"), r"layer 'conv', filler of blob 1: must be finite, got nan"),
        ((b'"Concat" bottom: "crop" bottom: "conv" top: "both"', b'"Slice" bottom: "crop"'),
         r"line \d+, layer 'both' \(Slice\): top count must divide"),
    ],
)  # fmt: skip
def test_fillers_and_tops_are_refused_with_file_and_layer(change, reason, tmp_path):
    pytest.importorskip("google.protobuf")
    assert change[0] in PROTOTXT
    path = tmp_path / "net.prototxt"
    path.write_bytes(PROTOTXT.replace(*change, 1))
    with pytest.raises(ValueError, match=r"load: prototxt '.*net.prototxt': " + reason):
        caffe.load(path)


def test_a_blob_of_more_axes_than_numpy_has(tmp_path):
    pytest.importorskip("google.protobuf")
    from jdeconv.compat.caffe.schema import message_class

    path, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    head = b'layer { type: "Input" top: "x" input_param { shape { ' + b"dim: 1 " * 70 + b"} } }"
    layer = b"""layer { name: "y" type: "Convolution" bottom: "x" top: "y"
        convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }"""
    path.write_bytes(head + layer)
    message = message_class("NetParameter")()
    blob = message.layer.add(name="y").blobs.add(data=[2])
    blob.shape.dim.extend([1] * 70)
    weights.write_bytes(message.SerializeToString())
    with jax.debug_nans(False):  # which looks at them through numpy
        assert caffe.load(path, weights).params["y"][0].shape == (1,) * 70


def test_many_layers_ask_for_no_more_than_one(tmp_path):
    pytest.importorskip("google.protobuf")
    head, body = PROTOTXT.split(b'layer { name: "relu"')[0].split(b'layer { name: "conv"')
    body = body.replace(b'name: "w"', b"").replace(b'top: "conv"', b'top: "%d"')
    layers = (b'layer { name: "%d"' % i + body % i for i in range(9))
    path = tmp_path / "net.prototxt"
    path.write_bytes(head + b"".join(layers).replace(b"num_output: 4", b"num_output: 5000"))
    with (
        mock.patch("jdeconv.compat.caffe.plan.MAX_NUMBERS", 1 << 20),
        pytest.raises(ValueError, match=r"layer '7'.*1048576 numbers the most"),
    ):
        caffe.load(path)


def test_a_net_of_very_many_layers_is_refused(tmp_path):
    pytest.importorskip("google.protobuf")
    path = tmp_path / "net.prototxt"
    path.write_bytes(
        b"".join(b'layer { type: "ReLU" bottom: "x" top: "x" }\n' for _ in range(8193))
    )
    with pytest.raises(ValueError, match=r"net\.prototxt': 8193 layers, 8192 are the most"):
        caffe.load(path)


PICTURES = """
import sys

from jdeconv.cli import photographs
from tests.test_files import resident

for path in sys.argv[1:]:
    before = resident()
    picture = photographs.opened(path)
    print((resident() - before) * 1024 / (picture.width * picture.height))
    del picture
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_pictures_of_few_bytes_take_few_bytes_a_pixel(tmp_path):
    """The largest that Pillow opens, of 179 million pixels, then take 2 GB."""
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("skimage")
    paths = [tmp_path / "one bit.png", tmp_path / "clear.png"]
    image.new("1", (6000, 5000)).save(paths[0])
    image.new("RGBA", (6000, 5000), (1, 2, 3, 4)).save(paths[1])
    assert max(path.stat().st_size for path in paths) < 1 << 18
    one_bit, clear = told_by(PICTURES, *paths)
    assert 4 < one_bit < 7  # Pillow keeps 4 of a pixel in RGB, and 1 of one in black and white
    assert clear < 13


FORBIDDEN_IMPORTS = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "joblib",
    "yaml",
    "builtins",
    "importlib",
}
EVALUATORS = {"eval", "exec", "compile", "__import__"}


def test_nothing_is_ever_unpickled_or_evaluated():
    for path in (ROOT / "jdeconv").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.partition(".")[0] for name in names}
            assert not roots & FORBIDDEN_IMPORTS, path
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", "") not in EVALUATORS, path
                assert "allow_pickle" not in {k.arg for k in node.keywords}, path
                # By position it would be numpy.load's third.
                assert getattr(node.func, "attr", "") != "load" or len(node.args) < 3, path


@pytest.mark.slow
def test_a_minute_of_search_guided_by_coverage():
    pytest.importorskip("atheris")
    command = [sys.executable, __file__, "--seconds", str(60 // len(TARGETS))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count(" files, none ") == len(TARGETS)


def main(arguments=None):
    """Search every target, each in a process of its own, since libFuzzer ends it."""
    parser = argparse.ArgumentParser(
        description="Damage real files, guided by the coverage of the readers (by atheris, libFuzzer), "
        "and read them. Exit code 1 where a reader crashed, hung for 10 s, took 2 GiB, or raised what it does "
        "not promise."
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.folder:
        return search(options.target, options.folder, options.seconds)
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is missing; pip install atheris")
    failures = 0
    for name in [options.target] if options.target else TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--target", name, "--folder", folder]
            command += ["--seconds", str(options.seconds)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            runs = [
                line.split()[1] for line in done.stderr.splitlines() if line.startswith("Done ")
            ]
            if done.returncode or not runs:
                failures += 1
                kept = Path(tempfile.mkdtemp(prefix=f"jdeconv-{name}-"))
                for path in Path(folder).glob("fault-*"):
                    shutil.move(path, kept)
                found = ", ".join(map(str, kept.iterdir())) or "none was kept"
                print(f"{name}: a fault; the file: {found}\n{done.stderr[-3000:]}", flush=True)
            else:
                print(f"{name}: {int(runs[0]):,} files, none at fault", flush=True)
    return int(failures > 0)


def search(name, folder, seconds):
    warnings.simplefilter("ignore")
    seeds = folder / "seeds"
    seeds.mkdir()
    for i, whole in enumerate(TARGETS[name][2]()):
        (seeds / str(i)).write_bytes(whole)
    random.seed(0)
    flags = [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/fault-", "-timeout=10"]
    flags += ["-rss_limit_mb=2048", "-print_final_stats=0", "-seed=1", "-max_len=4096"]
    atheris.Setup(
        [sys.argv[0], *flags, str(seeds)], lambda data: attempt(name, data, folder) and None
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
