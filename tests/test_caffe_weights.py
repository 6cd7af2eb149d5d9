"""Weights of Caffe's nets: caffemodel and HDF5, whole, partial, old and damaged; written and read again."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdeconv.compat import caffe

pytest.importorskip("google.protobuf")
TEXT = """
name: "net"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 6 dim: 7 } } }
layer { name: "part/conv" type: "Convolution" bottom: "data" top: "conv" param { name: "w" }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" }
  bias_filler { type: "uniform" } } }
layer { name: "again" type: "Convolution" bottom: "data" top: "again" param { name: "w" }
  convolution_param { num_output: 4 kernel_size: 3 bias_filler { value: 3 } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "up" type: "Deconvolution" bottom: "bn" top: "up"
  convolution_param { num_output: 3 kernel_size: 4 stride: 2 weight_filler { type: "gaussian" } } }
layer { name: "score" type: "InnerProduct" bottom: "up" top: "score"
  inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.01 } } }
"""
X = np.random.default_rng(0).normal(size=(1, 2, 6, 7)).astype(np.float32)


def changed(params, seed=1):
    """Other numbers in every blob; BatchNorm's are positive."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    new = [jnp.asarray(rng.uniform(0.5, 1.5, a.shape), jnp.float32) for a in leaves]
    return structure.unflatten(new)


@pytest.mark.parametrize("ending", ["caffemodel", "caffemodel.h5"])
def test_what_is_saved_is_read_again(ending, tmp_path):
    pytest.importorskip("h5py")
    net, path = caffe.load(TEXT), tmp_path / f"net.{ending}"
    params = changed(net.params)
    net.save(params, path)
    again = caffe.load(TEXT, path)
    jax.tree.map(np.testing.assert_array_equal, again.params, params)
    assert {name: len(blobs) for name, blobs in again.params.items()} == {
        "part/conv": 2, "again": 1, "bn": 3, "up": 2, "score": 2,
    }  # fmt: skip
    assert again.filled == ()
    whole = path.read_bytes()
    again.save(again.params, path)
    assert path.read_bytes() == whole or ending.endswith("h5")  # which keeps the time


def test_an_hdf5_file_is_laid_out_as_caffes(tmp_path):
    h5py = pytest.importorskip("h5py")
    net, path = caffe.load(TEXT), tmp_path / "net.caffemodel.h5"
    net.save(net.params, path)
    with h5py.File(path) as file:
        assert sorted(file) == ["data"]
        assert sorted(file["data"]) == ["again", "bn", "part", "score", "up"]
        assert file["data/up/0"].shape == (4, 3, 4, 4)
        assert file["data/up/0"].dtype == np.float32
        np.testing.assert_array_equal(file["data/part/conv/1"], net.params["part/conv"][1])
    with h5py.File(path, "a") as file:
        del file["data/again/0"]  # Caffe leaves out what another layer owns
    jax.tree.map(np.testing.assert_array_equal, caffe.load(TEXT, path).params, net.params)


@pytest.mark.parametrize("ending", ["caffemodel", "h5"])
def test_layers_that_the_file_lacks_keep_their_fillers(ending, tmp_path):
    pytest.importorskip("h5py")
    net, path = caffe.load(TEXT), tmp_path / f"net.{ending}"
    params = changed(net.params)
    net.save(params, path)
    other = TEXT.replace('name: "score"', 'name: "score_new"').replace(
        "num_output: 5", "num_output: 6"
    )
    tuned = caffe.load(other, path, phase="TRAIN", key=jax.random.key(3))
    assert tuned.filled == ("score_new",)
    assert "score_new" in repr(tuned)
    fresh = caffe.load(other, phase="TRAIN", key=jax.random.key(3))
    assert fresh.filled == tuple(fresh.params)
    for name, blobs in tuned.params.items():
        expected = fresh.params if name == "score_new" else params
        jax.tree.map(np.testing.assert_array_equal, blobs, expected[name])
    with pytest.warns(UserWarning, match=r"'score_new'.* keep their fillers"):
        caffe.load(other, path)
    strange = re.sub(r'name: "(.*?)"', r'name: "other_\1"', TEXT)
    with pytest.raises(
        ValueError, match=r"load: caffemodel '.*' has none of the net's layers, but"
    ):
        caffe.load(strange, path)


@pytest.mark.parametrize("ending", ["caffemodel", "h5"])
def test_blobs_of_another_shape_are_refused(ending, tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / f"net.{ending}"
    caffe.load(TEXT).save(caffe.load(TEXT).params, path)
    for change, reason in (
        (
            ("num_output: 5", "num_output: 6"),
            r"'score', blob 0: \[5, 360\] with 1800 numbers, needed is",
        ),
        (
            ("num_output: 3 kernel", "bias_term: false num_output: 3 kernel"),
            r"'up': 2 blobs, .* needs 1",
        ),
    ):
        assert change[0] in TEXT
        with pytest.raises(ValueError, match=rf"load: caffemodel '.*': layer {reason}"):
            caffe.load(TEXT.replace(*change), path)


def test_saving_says_what_it_cannot(tmp_path):
    net = caffe.load(TEXT)
    with pytest.raises(ValueError, match=r"Net: path '.*': No such file"):
        net.save(net.params, tmp_path / "no" / "net.caffemodel")
    with pytest.raises(ValueError, match=r"Net: params .*'up'"):
        net.save(
            {name: blobs for name, blobs in net.params.items() if name != "up"}, tmp_path / "x"
        )
    with pytest.raises(ValueError, match="Net: params need shape"):
        net.save(net.params | {"up": net.params["up"][::-1]}, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("ending", ["caffemodel", "h5"])
def test_without_its_package_a_kind_of_file_names_the_extra(ending, monkeypatch, tmp_path):
    net = caffe.load(TEXT)
    package = {"caffemodel": "google.protobuf", "h5": "h5py"}[ending]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "\.\[caffe\]"'):
        net.save(net.params, tmp_path / f"net.{ending}")


@pytest.mark.slow
def test_opencv_reads_what_is_saved(tmp_path):
    """A net of these layers without a shared blob, whose second use OpenCV does not know."""
    cv2 = pytest.importorskip("cv2")
    if int(cv2.__version__.partition(".")[0]) >= 5:
        pytest.skip("OpenCV 5 reads no Caffe")
    definition, path = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    definition.write_text(TEXT)
    net = caffe.load(definition)
    params = changed(net.params)
    net.save(params, path)
    theirs = cv2.dnn.readNetFromCaffe(str(definition), str(path))
    theirs.setInput(X)
    ours = net(params, {"data": X}, ("score", "again", "up"))
    for top, blob in ours.items():
        np.testing.assert_allclose(blob, theirs.forward(top), rtol=1e-4, atol=1e-4)


SMALL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 3 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "b" type: "Convolution" bottom: "a" top: "b"
  convolution_param { num_output: 3 kernel_size: 2 } }
"""


def test_a_dataset_of_more_than_the_file_is_refused(tmp_path):
    """Chunks that were never written, numbers that are compressed, numbers of another file."""
    h5py = pytest.importorskip("h5py")
    path, other = tmp_path / "net.h5", tmp_path / "other.bin"
    other.write_bytes(bytes(16))
    for options, reason in (
        ({"shape": (1 << 20, 1 << 20), "chunks": (1, 1), "dtype": "f4"}, "more numbers"),
        ({"data": np.zeros((1000, 1000), "f4"), "compression": "gzip"}, "more numbers"),
        (
            {"shape": (2, 2, 1, 1), "dtype": "f4", "external": [(str(other), 0, 16)]},
            "no blob of floats",
        ),
        ({"data": np.zeros((2, 2, 1, 1), int)}, "no blob of floats"),
    ):
        with h5py.File(path, "w") as file:
            file.create_group("data/a").create_dataset("0", **options)
        with pytest.raises(ValueError, match=f"load: caffemodel .*/data/a/0 .*{reason}"):
            caffe.load(SMALL, path)
    path.write_text("no weights")
    with pytest.raises(ValueError, match=r"load: caffemodel .* is no net's weights in HDF5"):
        caffe.load(SMALL, path)


def test_blobs_of_doubles_and_of_old_files(tmp_path):
    from jdeconv.compat.caffe.schema import message_class

    message = message_class("StoredNet")()
    a, b = message.layers.add(name="a"), message.layer.add(name="b")
    weight, bias = np.arange(4.0), np.array([0.5, 0.25])
    a.blobs.add(num=2, channels=2, height=1, width=1, double_data=weight.tobytes())
    a.blobs.add(num=1, channels=1, height=1, width=2, data=bias.astype("<f4").tobytes())
    for shape in ((3, 2, 2, 2), (3,)):
        b.blobs.add(data=np.ones(shape, "<f4").tobytes()).shape.dim.extend(shape)
    path = tmp_path / "old.caffemodel"
    path.write_bytes(message.SerializeToString())
    params = caffe.load(SMALL, path).params
    np.testing.assert_array_equal(params["a"][0].ravel(), weight)
    np.testing.assert_array_equal(params["a"][1], bias)
    assert params["a"][0].dtype == np.float32
