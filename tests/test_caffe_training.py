"""A net and its solver from Caffe's files: updates beside torch and plain loops, and the whole example."""

import re
import sys

import jax
import numpy as np
import pytest
from caffe_loops import Caffes

from docs.examples import caffe_fcn
from jdeconv.compat import caffe

pytest.importorskip("google.protobuf")
pytest.importorskip("optax")
SHAPE = (2, 1, 16, 20)
SOLVER = (caffe_fcn.FOLDER / "solver.prototxt").read_text().replace("stepsize: 200", "stepsize: 3")


def inputs(seed):
    rng = np.random.default_rng(seed)
    data, label = rng.normal(size=SHAPE), rng.integers(0, 4, SHAPE)
    return {
        "data": data.astype(np.float32),
        "label": np.where(label == 3, 255, label).astype(np.float32),
    }


def gradients(params, data, label):
    """By torch: the loss, and the gradient of every blob that learns."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    w = {
        name: [torch.tensor(np.asarray(a), requires_grad=name != "upscore") for a in blobs]
        for name, blobs in params.items()
    }
    x = torch.tensor(data)
    x = f.max_pool2d(f.relu(f.conv2d(x, *w["conv1"], padding=2)), 2)
    x = f.max_pool2d(f.relu(f.conv2d(x, *w["conv2"], padding=1)), 2)
    x = f.conv2d(f.relu(f.conv2d(x, *w["conv3"], padding=1)), *w["score_fr"])
    x = f.conv_transpose2d(x, *w["upscore"], stride=4, groups=3)[:, :, 2:-2, 2:-2]
    loss = f.cross_entropy(x, torch.tensor(label[:, 0]).long(), ignore_index=255)
    loss.backward()
    return loss.item(), {
        name: [np.zeros(a.shape, np.float32) if a.grad is None else a.grad.numpy() for a in blobs]
        for name, blobs in w.items()
    }


@pytest.mark.slow
def test_a_training_takes_caffes_steps():
    """Five iterations, the last two of which have a tenth of the rate."""
    solver = caffe.load_solver(SOLVER)
    net = caffe.load(
        caffe_fcn.FOLDER / "train_val.prototxt",
        phase="TRAIN",
        shapes={"data": SHAPE, "label": SHAPE},
    )
    optimizer = solver.optimizer(net.lr_mult, net.decay_mult)
    step, held = caffe_fcn.stepper(net, optimizer), (net.params, optimizer.init(net.params))
    structure = jax.tree.structure(net.params)
    mults = (dict(sorted(tree.items())) for tree in (net.lr_mult, net.decay_mult))
    theirs = Caffes(solver, dict(sorted(net.params.items())), *mults)
    for i in range(5):
        batch = inputs(i)
        loss, found = gradients(structure.unflatten(theirs.data), **batch)
        theirs.backward(found)
        theirs.apply_update()
        held, ours = step(held, batch, None)
        np.testing.assert_allclose(ours, loss, rtol=1e-4)
        for blob, expected in zip(jax.tree.leaves(held[0]), theirs.data, strict=True):
            np.testing.assert_allclose(blob, expected, rtol=1e-3, atol=2e-6)
    assert np.array_equal(held[0]["upscore"][0], net.params["upscore"][0])
    assert np.abs(held[0]["conv1"][0] - net.params["conv1"][0]).max() > 1e-4


STATISTICS = """
layer { name: "data" type: "Input" top: "x" top: "y"
  input_param { shape { dim: 6 dim: 3 } shape { dim: 6 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "ip" top: "ip" }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "drop" }
layer { name: "loss" type: "EuclideanLoss" bottom: "drop" bottom: "y" top: "loss" }
"""


def test_statistics_are_collected_and_not_trained():
    """Neither momentum nor weight decay reaches them, and the key decides what is dropped."""
    net = caffe.load(STATISTICS, phase="TRAIN")
    solver = caffe.Solver(base_lr=0.1, momentum=0.9, weight_decay=0.5)
    optimizer = solver.optimizer(net.lr_mult, net.decay_mult)
    step = caffe_fcn.stepper(net, optimizer)
    held, params = (net.params, optimizer.init(net.params)), net.params
    rng = np.random.default_rng(0)
    for i in range(3):
        batch = {"x": rng.normal(size=(6, 3)) + 5, "y": rng.normal(size=(6, 2))}
        batch = {name: a.astype(np.float32) for name, a in batch.items()}
        _, expected = net.loss(held[0], batch, key=jax.random.key(i))
        held, loss = step(held, batch, jax.random.key(i))
        for ours, collected in zip(held[0]["bn"], expected["bn"], strict=True):
            np.testing.assert_allclose(ours, collected, rtol=1e-5)
        assert (held[0]["ip"][0] != params["ip"][0]).all()
        params = held[0]
    np.testing.assert_allclose(params["bn"][2], 1 + 0.999 + 0.999**2, rtol=1e-5)
    assert loss != step(held, batch, jax.random.key(7))[1]


@pytest.mark.slow
def test_a_training_goes_on_and_opencv_reads_its_end(tmp_path, capsys):
    cv2 = pytest.importorskip("cv2")
    for name in caffe_fcn.NEEDS:
        pytest.importorskip(name)
    quick = ["--size", "32", "--batch", "4", "--steps"]
    assert caffe_fcn.main([*quick, "40", "--out", str(tmp_path / "whole")]) == 0
    assert caffe_fcn.main([*quick, "25", "--out", str(tmp_path / "part")]) == 0
    capsys.readouterr()
    assert caffe_fcn.main([*quick, "40", "--out", str(tmp_path / "part")]) == 0
    assert "goes on from the snapshot of iteration 25" in capsys.readouterr().out
    whole, part = (tmp_path / name / "fcn.caffemodel" for name in ("whole", "part"))
    assert whole.read_bytes() == part.read_bytes()
    if int(cv2.__version__.partition(".")[0]) >= 5:
        pytest.skip("OpenCV 5 reads no Caffe")
    deploy = caffe_fcn.FOLDER / "deploy.prototxt"
    theirs, data = (
        cv2.dnn.readNetFromCaffe(str(deploy), str(whole)),
        caffe_fcn.mosaics(0, 1, 192)["data"],
    )
    theirs.setInput(data)
    net = caffe.load(deploy, whole)
    ours = net(net.params, {"data": data})["prob"]
    np.testing.assert_allclose(ours, theirs.forward(), rtol=1e-4, atol=1e-5)


def test_the_script(tmp_path, capsys):
    for name in caffe_fcn.NEEDS:
        pytest.importorskip(name)
    arguments = ["--size", "16", "--batch", "2", "--steps", "3", "--out", str(tmp_path)]
    assert caffe_fcn.main(arguments) == 0
    out = capsys.readouterr().out
    assert "Net('fcn-textures', TRAIN, 12 layers, 11,131 parameters" in out
    assert re.search(r"iteration 3, lr 0.02, loss \d\.\d{4}", out)
    assert re.search(r"\d\d\.\d% of the pixels of a mosaic that it never saw are right", out)
    from PIL import Image

    with Image.open(tmp_path / "fcn.png") as picture:
        assert picture.size == (3 * 192, 192)
    assert (tmp_path / "snapshots" / "3").is_dir()


def test_the_script_says_what_it_cannot_do(tmp_path, monkeypatch, capsys, ends_with_2):
    for name in caffe_fcn.NEEDS:
        pytest.importorskip(name)
    for arguments, reason in (
        (["--weights", "no/such"], "caffemodel 'no/such': No such file"),
        (["--solver", str(caffe_fcn.FOLDER / "deploy.prototxt")], "is no solver's definition"),
        (["--deploy", "no/such"], "prototxt 'no/such': No such file"),
    ):
        assert caffe_fcn.main([*arguments, "--out", str(tmp_path / "x")]) == 2
        assert reason in capsys.readouterr().err
    ends_with_2(caffe_fcn.main, ["--steps", "0"], "--steps 0: must be")
    ends_with_2(caffe_fcn.main, ["--size", "500"], "--size 500: must")
    monkeypatch.setitem(sys.modules, "optax", None)
    assert caffe_fcn.main(["--out", str(tmp_path / "x")]) == 2
    assert "optax is missing; pip install '.[examples]'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_mosaics_have_their_labels():
    """Pieces of every texture, the same for the same seed, and others where they are held out."""
    pytest.importorskip("skimage")
    one, again, other = (caffe_fcn.mosaics(3, 2, 48, held) for held in (False, False, True))
    assert one["data"].shape == one["label"].shape == (2, 1, 48, 48)
    np.testing.assert_array_equal(one["data"], again["data"])
    assert (one["label"] != other["label"]).any()
    assert set(np.unique(one["label"])) == {0, 1, 2, 255}
    label, picture = one["label"][0, 0], one["data"][0, 0]
    beside = label[:, 1:] != label[:, :-1]
    assert (np.minimum(label[:, 1:], label[:, :-1])[beside] < 3).all()
    assert ((label[:, 1:] == 255) | (label[:, :-1] == 255))[
        beside
    ].all()  # a border lies between classes
    textures = caffe_fcn.textures()[:, : caffe_fcn.TRAINING_ROWS]
    for kind in range(3):
        assert np.isin(picture[label == kind], textures[kind]).all()
