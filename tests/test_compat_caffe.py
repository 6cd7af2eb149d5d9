"""compat.caffe: layers against jax.vjp, nets against OpenCV's reader, files against damage."""

import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from thinned import thinned

from jdeconv.compat import caffe
from jdeconv.compat.caffe.layers import LAYERS


def drawn(seed, *shapes):
    draw = np.random.default_rng(seed).integers
    return [jnp.asarray(draw(-4, 5, shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("kind", [caffe.Convolution, caffe.Deconvolution])
@pytest.mark.parametrize("axis", [0, 1, 2, -3])
def test_backward_is_the_gradient(kind, axis):
    """Several bottoms, any channel axis, a group, remainders of the stride: jax.vjp of forward agrees."""
    layer = kind(num_output=6, kernel_size=(3, 2), stride=(2,), pad=(1,), group=2, axis=axis)
    shape = {0: (4, 7, 6), 1: (3, 4, 7, 6), 2: (2, 3, 4, 7, 6), -3: (2, 3, 4, 7, 6)}[axis]
    x, z, *blobs = drawn(0, shape, shape, *layer.blob_shapes(shape))
    tops, vjp = jax.vjp(lambda blobs, *bottoms: layer.forward(blobs, *bottoms), blobs, x, z)
    top_diffs = tuple(top % 3 for top in tops)
    blob_diffs, *bottom_diffs = vjp(top_diffs)
    ours = layer.backward(blobs, [x, z], top_diffs)
    jax.tree.map(np.testing.assert_array_equal, ours, (blob_diffs, bottom_diffs))


def test_diffs_of_blobs_accumulate_and_propagate_down_gates():
    layer = caffe.Convolution(num_output=2, kernel_size=(2,))
    x, z, *blobs = drawn(1, (1, 3, 5), (1, 3, 5), *layer.blob_shapes((1, 3, 5)))
    tops = layer.forward(blobs, x, z)
    once, (dx, dz) = layer.backward(blobs, [x, z], tops)
    parts = [layer.backward(blobs, [a], [top])[0] for a, top in zip((x, z), tops, strict=True)]
    jax.tree.map(lambda a, b, c: np.testing.assert_array_equal(a, b + c), once, *parts)
    twice, _ = layer.backward(blobs, [x, z], tops, param_diffs=once)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 2 * b), twice, once)
    options = {"propagate_down": [False, True], "param_propagate_down": [True, False]}
    (weight, bias), bottoms = layer.backward(blobs, [x, z], tops, param_diffs=once, **options)
    np.testing.assert_array_equal(weight, 2 * once[0])
    np.testing.assert_array_equal(bias, once[1])
    assert bottoms[0] is None
    np.testing.assert_array_equal(bottoms[1], dz)
    assert dx.shape == x.shape
    with pytest.raises(ValueError, match="Convolution: propagate_down needs 2"):
        layer.backward(blobs, [x, z], tops, propagate_down=[True])


def test_without_spatial_axes_it_is_a_dense_layer():
    for kind in (caffe.Convolution, caffe.Deconvolution):
        layer = kind(num_output=4, group=2)
        x, *blobs = drawn(2, (3, 6), *layer.blob_shapes((3, 6)))
        (y,), vjp = jax.vjp(lambda b, x, layer=layer: layer.forward(b, x), blobs, x)
        w = blobs[0].reshape(2, -1, blobs[0].shape[1])
        halves = x.reshape(3, 2, 3)
        contract = "ngc,goc->ngo" if kind is caffe.Convolution else "ngc,gco->ngo"
        expected = jnp.einsum(contract, halves, w).reshape(3, 4) + blobs[1][None]
        np.testing.assert_array_equal(y, expected)
        ours = layer.backward(blobs, [x], [y])
        diffs, bottom = vjp((y,))
        jax.tree.map(np.testing.assert_array_equal, ours, (diffs, [bottom]))


def test_sizes_by_height_and_width():
    named = caffe.Convolution(
        num_output=1, kernel_h=3, kernel_w=2, stride_h=2, stride_w=1, pad_h=0, pad_w=1
    )
    listed = caffe.Convolution(num_output=1, kernel_size=(3, 2), stride=(2, 1), pad=(0, 1))
    shape = (1, 2, 7, 6)
    x, *blobs = drawn(3, shape, *named.blob_shapes(shape))
    np.testing.assert_array_equal(named.forward(blobs, x), listed.forward(blobs, x))
    columns = caffe.Im2col(kernel_h=3, kernel_w=2, dilation=(1, 2), axis=-3).forward(x)
    assert columns.shape == (1, 2 * 6, 5, 4)


def test_fillers():
    layer = caffe.Deconvolution(
        num_output=3, kernel_size=(4,), group=3, bias_term=True,
        weight_filler=caffe.Filler("bilinear"), bias_filler=caffe.Filler("constant", value=2),
    )  # fmt: skip
    weight, bias = layer.init(jax.random.key(0), (1, 3, 5, 5))
    assert weight[0, 0, 1].tolist() == [0.1875, 0.5625, 0.5625, 0.1875]
    assert bias.tolist() == [2, 2, 2]
    for kind in ("uniform", "gaussian", "positive_unitball", "xavier", "msra"):
        filled = caffe.Filler(kind)(jax.random.key(1), (40, 30))
        assert filled.shape == (40, 30)
        assert np.std(filled) > 0


# Nets from files.

FCN = """
name: "fcn"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 18 dim: 22 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 } convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 1 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: 0.1 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 8 kernel_h: 3 kernel_w: 1 pad_h: 1 pad_w: 0 group: 2 stride_h: 2 stride_w: 2 } }
layer { name: "bn" type: "BatchNorm" bottom: "conv2" top: "bn" }
layer { name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param { bias_term: true } }
layer { name: "prelu" type: "PReLU" bottom: "bn" top: "prelu" }
layer { name: "up" type: "Deconvolution" bottom: "prelu" top: "up"
  convolution_param { num_output: 6 kernel_size: 4 stride: 2 pad: 1 group: 2 } }
layer { name: "crop" type: "Crop" bottom: "up" bottom: "pool1" top: "crop" crop_param { axis: 2 offset: 0 } }
layer { name: "drop" type: "Dropout" bottom: "crop" top: "drop" dropout_param { dropout_ratio: 0.3 } }
layer { name: "sum" type: "Eltwise" bottom: "drop" bottom: "pool1" top: "sum"
  eltwise_param { operation: SUM coeff: 1 coeff: -0.5 } }
layer { name: "cat" type: "Concat" bottom: "sum" bottom: "pool1" top: "cat" }
layer { name: "ave" type: "Pooling" bottom: "cat" top: "ave"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "score" type: "Convolution" bottom: "ave" top: "score"
  convolution_param { num_output: 4 kernel_size: 1 bias_term: false } }
layer { name: "tanh" type: "TanH" bottom: "score" top: "tanh" }
layer { name: "prob" type: "Softmax" bottom: "tanh" top: "prob" }
"""


def message(prototxt):
    text_format = pytest.importorskip("google.protobuf.text_format")
    from jdeconv.compat.caffe.schema import message_class

    return text_format.Parse(prototxt, message_class("NetParameter")())


def with_weights(net, prototxt, seed=0):
    """The definition with random blobs for every layer that learns, and the blobs."""
    weights, rng = message(prototxt), np.random.default_rng(seed)
    for layer in (*weights.layer, *weights.layers):
        for blob in net.params.get(layer.name, ()):
            values = rng.normal(size=blob.shape) * 0.5
            if layer.type == "BatchNorm":
                values = np.abs(values) + 0.5
            stored = layer.blobs.add()
            stored.shape.dim.extend(blob.shape)
            stored.data.extend(values.ravel().tolist())
    return weights


@pytest.fixture
def files(tmp_path):
    """A folder in which a net is written and loaded."""
    pytest.importorskip("google.protobuf")

    def write(prototxt, seed=0):
        definition, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
        definition.write_text(prototxt)
        message = with_weights(caffe.load(definition), prototxt, seed)
        weights.write_bytes(message.SerializeToString())
        return definition, weights

    return write


def opencv(definition, weights, x, tops):
    cv2 = pytest.importorskip("cv2")
    if int(cv2.__version__.partition(".")[0]) >= 5:
        pytest.skip("OpenCV 5 reads no Caffe")
    net = cv2.dnn.readNetFromCaffe(str(definition), str(weights))
    net.setInput(np.asarray(x))
    return dict(zip(tops, net.forward(list(tops)), strict=True))


def assert_opencv_agrees(paths, tops=None, tolerance=1e-4):
    net = caffe.load(*paths)
    ((name, shape),) = net.inputs.items()
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    ours = jax.jit(lambda p, x: net(p, {name: x}, tops))(net.params, x)
    for top, theirs in opencv(*paths, x, list(ours)).items():
        assert ours[top].shape == theirs.shape
        np.testing.assert_allclose(ours[top], theirs, rtol=tolerance, atol=tolerance)
    return net, x


def test_a_net_beside_opencv(files):
    net, x = assert_opencv_agrees(files(FCN))
    assert net.outputs == ("prob",)
    assert set(net.params) == {"conv1", "conv2", "bn", "scale", "prelu", "up", "score"}
    assert_opencv_agrees(files(FCN), ("ave", "up", "pool1"))

    def loss(params):
        return (net(params, {"data": x})["prob"][:, 0] ** 2).sum()

    gradients = jax.jit(jax.grad(loss))(net.params)
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, net.params)
    assert all(np.abs(g).max() > 0 for name in ("conv1", "conv2", "up") for g in gradients[name])
    two = net(net.params, {"data": np.concatenate([x, 2 * x])})["prob"]  # the batch is free
    np.testing.assert_allclose(two[:1], net(net.params, {"data": x})["prob"], rtol=1e-5)


def one_layer(kind, options, shape, extra=""):
    dims = " ".join(f"dim: {size}" for size in shape)
    return (
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}\n'
        f'layer {{ name: "one" type: "{kind}" bottom: "data" top: "one" {options} }}\n{extra}'
    )


@pytest.mark.parametrize("seed", thinned(range(24), 5))
def test_random_convolutions_beside_opencv(seed, files):
    rng = random.Random(seed)
    rank = (2, 2, 3, 1)[seed % 4]
    group = rng.choice([1, 2])
    fields = []
    for name, least, most in (
        ("kernel_size", 1, 4),
        ("stride", 1, 3),
        ("pad", 0, 2),
        ("dilation", 1, 2),
    ):
        fields += [f"{name}: {rng.randint(least, most)}" for _ in range(rank)]
    options = " ".join([f"num_output: {2 * group} group: {group}", *fields])
    shape = (2, 2 * group, *(rng.randint(7, 10) for _ in range(rank)))
    assert_opencv_agrees(
        files(one_layer("Convolution", f"convolution_param {{ {options} }}", shape), seed)
    )


@pytest.mark.parametrize("seed", thinned(range(16), 3))
def test_random_deconvolutions_beside_opencv(seed, files):
    rng = random.Random(seed)
    group, k = rng.choice([1, 2]), rng.randint(2, 5)
    options = (
        f"num_output: {2 * group} group: {group} kernel_size: {k} stride: {rng.randint(1, 3)} "
        f"pad: {rng.randint(0, (k - 1) // 2)} bias_term: {rng.choice(['true', 'false'])}"
    )
    shape = (2, 3 * group, rng.randint(3, 6), rng.randint(3, 6))
    assert_opencv_agrees(
        files(one_layer("Deconvolution", f"convolution_param {{ {options} }}", shape), seed)
    )


@pytest.mark.parametrize("seed", thinned(range(24), 5))
def test_random_poolings_beside_opencv(seed, files):
    rng = random.Random(seed)
    k = rng.randint(2, 4)
    pool, stride, pad = rng.choice(["MAX", "AVE"]), rng.randint(1, k), rng.randint(0, 1)
    options = f"pool: {pool} kernel_size: {k} stride: {stride} pad: {pad}"
    shape = (1, 2, rng.randint(5, 9), rng.randint(5, 9))
    assert_opencv_agrees(files(one_layer("Pooling", f"pooling_param {{ {options} }}", shape)))


@pytest.mark.parametrize(
    ("kind", "options", "shape"),
    [
        ("Pooling", "pooling_param { pool: AVE global_pooling: true }", (2, 3, 5, 4)),
        ("InnerProduct", "inner_product_param { num_output: 5 }", (2, 3, 4, 2)),
        ("InnerProduct", "inner_product_param { num_output: 5 bias_term: false }", (2, 6)),
        ("Sigmoid", "", (2, 3, 4)),
        ("ReLU", "", (2, 3, 4)),
        ("PReLU", "prelu_param { filler { value: 0.5 } }", (2, 3, 4, 2)),
        ("Softmax", "softmax_param { axis: 2 }", (2, 3, 4, 5)),
        ("Flatten", "", (2, 3, 4, 5)),
        ("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 2 } }", (2, 3, 4, 5)),
        ("Scale", "scale_param { bias_term: true }", (2, 3, 4, 5)),
        ("BatchNorm", "batch_norm_param { eps: 0.01 }", (2, 3, 4, 5)),
        ("LRN", "lrn_param { local_size: 3 alpha: 0.5 }", (2, 5, 4, 3)),
        ("LRN", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 }", (2, 2, 6, 5)),
        ("AbsVal", "", (2, 3, 4)),
        ("BNLL", "", (2, 3, 4)),
        ("ELU", "elu_param { alpha: 0.5 }", (2, 3, 4)),
        ("Power", "power_param { power: 2 scale: 0.5 shift: 1 }", (2, 3, 4)),
        ("MVN", "", (2, 3, 4, 5)),
        ("Permute", "permute_param { order: [0, 2, 3, 1] }", (2, 3, 4, 5)),
        ("ReLU6", "", (2, 3, 4)),
    ],
)
def test_other_layers_beside_opencv(kind, options, shape, files):
    assert_opencv_agrees(files(one_layer(kind, options, shape)))


def test_old_files_read_as_new_ones(files, tmp_path):
    """V1 layers, input_dim, blobs of four sizes: the same net."""
    new = one_layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", (2, 3, 6, 5),
        'layer { name: "ip" type: "InnerProduct" bottom: "one" top: "ip" inner_product_param { num_output: 3 } }')  # fmt: skip
    definition, weights = files(new)
    net = caffe.load(definition, weights)
    old = message("""
        input: "data" input_dim: 2 input_dim: 3 input_dim: 6 input_dim: 5
        layers { name: "one" type: CONVOLUTION bottom: "data" top: "one"
          convolution_param { num_output: 4 kernel_size: 3 } }
        layers { name: "ip" type: INNER_PRODUCT bottom: "one" top: "ip" inner_product_param { num_output: 3 } }
    """)
    (tmp_path / "old.prototxt").write_text(str(old))
    for layer in old.layers:
        for blob in net.params[layer.name]:
            stored = layer.blobs.add()
            sizes = [1] * (4 - blob.ndim) + list(blob.shape)
            stored.num, stored.channels, stored.height, stored.width = sizes
            stored.data.extend(np.ravel(blob).tolist())
    (tmp_path / "old.caffemodel").write_bytes(old.SerializeToString())
    again = caffe.load(tmp_path / "old.prototxt", tmp_path / "old.caffemodel")
    x = jnp.arange(180.0).reshape(2, 3, 6, 5) % 7
    np.testing.assert_array_equal(
        again(again.params, {"data": x})["ip"], net(net.params, {"data": x})["ip"]
    )
    assert_opencv_agrees((tmp_path / "old.prototxt", tmp_path / "old.caffemodel"))


def test_shared_blobs_phases_and_several_inputs(tmp_path):
    pytest.importorskip("google.protobuf")
    pair = """
        input: "a" input_shape { dim: 1 dim: 2 dim: 5 dim: 4 }
        input: "b" input_shape { dim: 1 dim: 2 dim: 5 dim: 4 }
        layer { name: "one" type: "Convolution" bottom: "a" bottom: "b" top: "one" top: "other"
          param { name: "w" } param { name: "b" } convolution_param { num_output: 3 kernel_size: 2
          weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.5 } } }
        layer { name: "two" type: "Convolution" bottom: "b" top: "two" param { name: "w" } param { name: "b" }
          convolution_param { num_output: 3 kernel_size: 2 } }
        layer { name: "cut" type: "Slice" bottom: "two" top: "first" top: "rest" slice_param { slice_point: 1 } }
        layer { name: "copy" type: "Split" bottom: "first" top: "c" top: "d" }
        layer { name: "columns" type: "Im2col" bottom: "rest" top: "columns"
          convolution_param { kernel_size: 2 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "one" include { phase: TRAIN } }
        layer { name: "prod" type: "Eltwise" bottom: "c" bottom: "d" top: "prod" eltwise_param { operation: PROD }
          exclude { phase: TRAIN } }
    """
    path = tmp_path / "pair.prototxt"
    path.write_text(pair)
    net = caffe.load(path, key=jax.random.key(2))
    assert set(net.params) == {"one"}
    assert net.outputs == ("one", "other", "columns", "prod")
    a, b = drawn(0, (1, 2, 5, 4), (1, 2, 5, 4))
    tops = net(net.params, {"a": a, "b": b}, ("one", "other", "two", "c", "prod", "columns"))
    np.testing.assert_array_equal(tops["other"], tops["two"])
    np.testing.assert_array_equal(tops["prod"], tops["c"] ** 2)
    assert tops["columns"].shape == (1, 8, 3, 2)
    assert np.abs(tops["one"] - tops["two"]).max() > 0
    with pytest.raises(ValueError, match=r"Net: inputs need \['a', 'b'\], got \['a'\]"):
        net(net.params, {"a": a})
    with pytest.raises(ValueError, match=r"Net: inputs need shape \(1, 2, 5, 4\) for 'b' .*, got"):
        net(net.params, {"a": a, "b": b[:, :1]})
    with pytest.raises(ValueError, match="Net: tops must be of"):
        net(net.params, {"a": a, "b": b}, ["x"])


def test_a_layer_that_shares_one_blob_lends_another(tmp_path):
    """The second layer keeps only its bias, which the third finds there."""
    pytest.importorskip("google.protobuf")
    layer = """layer {{ name: "{0}" type: "Convolution" bottom: "x" top: "{0}" {1}
        convolution_param {{ num_output: 3 kernel_size: 2 weight_filler {{ type: "xavier" }}
        bias_filler {{ type: "constant" value: {2} }} }} }}"""
    shared = ('param { name: "w" }', 'param { name: "w" } param { name: "v" }')
    path = tmp_path / "chain.prototxt"
    path.write_text(
        'input: "x" input_shape { dim: 1 dim: 2 dim: 5 dim: 4 }'
        + layer.format("one", shared[0], 1)
        + layer.format("two", shared[1], 2)
        + layer.format("three", shared[1], 3)
    )
    net = caffe.load(path)
    assert {name: len(blobs) for name, blobs in net.params.items()} == {"one": 2, "two": 1}
    tops = net(net.params, {"x": drawn(0, (1, 2, 5, 4))[0]})
    np.testing.assert_array_equal(tops["two"], tops["three"])
    np.testing.assert_allclose(tops["two"], tops["one"] + 1, rtol=1e-6)


CONV = "convolution_param { num_output: 4 kernel_size: 3 }"


@pytest.mark.parametrize(
    ("prototxt", "text"),
    [
        ("layer { name: 3 }", r"load: prototxt '.*net.prototxt' is no net's definition: 1:15"),
        ("layer { nmae: 'a' }", r"line 1, layer '' \(\): 1:9 : .* has no field named .nmae"),
        ("layer { convolution_param { pad: -1 } }", r"no net's definition: 1:34 .*out of range"),
        (one_layer("Convolutoin", CONV, (1, 3, 5, 5)), r"layer 'one' \(Convolutoin\): there is no such type"),
        (one_layer("Convolution", CONV, (1, 3, 5, -5)), r"input 'data': shape \[1, 3, 5, -5\]; sizes are at"),
        (one_layer("Convolution", CONV, (1, 3, 1 << 20, 1 << 20)), r"input 'data': shape .* numbers the most"),
        (one_layer("Convolution", "convolution_param { num_output: 2000000000 kernel_size: 3 }", (1, 3, 5, 5)),
         r"layer 'one' \(Convolution\), blob 0: shape \[2000000000, 3, 3, 3\]"),
        (one_layer("Convolution", "", (1, 3, 5, 5)), r"layer 'one' \(Convolution\): num_output must be"),
        (one_layer("Convolution", "convolution_param { num_output: 1 kernel_size: 7 }", (1, 3, 5, 5)),
         r"layer 'one' \(Convolution\): pad is too small"),
        (one_layer("Convolution", CONV, (1, 3, 5, 5)) + 'layer { name: "x" type: "ReLU" bottom: "y" top: "x" }',
         r"layer 'x' \(ReLU\): bottom 'y' is no top of a layer before"),
        (one_layer("ReLU", "", (1, 3)) + 'layer { name: "x" type: "ReLU" bottom: "one" top: "data" }',
         r"layer 'x' \(ReLU\): top 'data' is one of another layer already"),
        (one_layer("ReLU", 'top: "two"', (1, 3)), r"layer 'one' \(ReLU\): top names \['one', 'two'\], and the layer has 1"),
        (one_layer("ReLU", 'bottom: "data"', (1, 3)), r"ReLU\): bottom needs 1, got"),
        (one_layer("Pooling", "", (1, 3, 5, 5)), r"Pooling\): kernel_size is needed, or"),
        (one_layer("Pooling", "pooling_param { kernel_size: 2 pad: 2 }", (1, 3, 5, 5)), r"a pad of less than"),
        (one_layer("Pooling", "pooling_param { kernel_size: 2 pool: STOCHASTIC }", (1, 3, 5, 5)), r"STOCHASTIC"),
        (one_layer("Pooling", "pooling_param { kernel_size: 2 }", (1, 3, 5)), r"Pooling\): bottom needs 4 axes"),
        (one_layer("Pooling", "pooling_param { kernel_size: 2 pool: AVE } top: 'm'", (1, 3, 5, 5)), r"top is one for AVE"),
        (one_layer("Pooling", "pooling_param { kernel_size: 9 }", (1, 3, 5, 5)), r"kernel_size must fit into the padded bottom"),
        (one_layer("Eltwise", "", (1, 3)), r"Eltwise\): bottom needs 2"),
        (one_layer("Eltwise", 'bottom: "data" eltwise_param { coeff: 1 }', (1, 3)), r"Eltwise\): coeff needs one for each"),
        (one_layer("Slice", "top: 'two'", (1, 3)), r"Slice\): top count must divide 3"),
        (one_layer("Slice", "top: 'b' slice_param { slice_point: 3 }", (1, 3)), r"needs 1 rising points inside of 3"),
        (one_layer("Crop", "bottom: 'data' crop_param { offset: 1 }", (1, 3, 5, 5)), r"Crop\): offset must let"),
        (one_layer("Crop", "bottom: 'data' crop_param { offset: [1, 2, 3] }", (1, 3, 5, 5)), r"one value or 2"),
        (one_layer("Softmax", "softmax_param { axis: 4 }", (1, 3)), r"Softmax\): axis is out of range, got 4"),
        (one_layer("InnerProduct", "", (1, 3)), r"InnerProduct\): num_output must be at least 1"),
        (one_layer("Reshape", "reshape_param { shape { dim: -1 dim: -1 } }", (4, 3)), r"one -1 at most"),
        (one_layer("Reshape", "reshape_param { shape { dim: 5 dim: -1 } }", (4, 3)), r"must hold the 12 numbers"),
        (one_layer("Reshape", "reshape_param { shape { dim: 4 dim: 3 dim: 0 } }", (4, 3)), r"axis that the bottom"),
        (one_layer("Flatten", "flatten_param { axis: 2 end_axis: 1 }", (1, 2, 3)), r"must not lie in front of axis 2"),
        (one_layer("Scale", "scale_param { num_axes: 4 }", (1, 2, 3)), r"Scale\): num_axes is out of range"),
        (one_layer("PReLU", "", (3,)), r"PReLU\): bottom needs 2 axes or more"),
        ("input: 'a' input: 'b' input_shape { dim: 1 }", r"input has 1 shapes for 2 inputs"),
        ("layer { name: 'd' type: 'Input' top: 'd' }", r"layer 'd' \(Input\): top names \['d'\], and there are 0 shapes"),
    ],
)  # fmt: skip
def test_what_a_definition_refuses(prototxt, text, tmp_path):
    pytest.importorskip("google.protobuf")
    path = tmp_path / "net.prototxt"
    path.write_text(prototxt)
    with pytest.raises(ValueError, match=text):
        caffe.load(path)


DATA = """
layer {
  name: "data" type: "Data" top: "data" top: "label"
  data_param {
    source: "x"
    batch_size: 4
  }
  include { phase: TEST }
}
layer { name: "relu" type: "ReLU" bottom: "data" top: "relu" }
"""


@pytest.mark.parametrize(
    ("whole", "damaged", "text"),
    [
        ("batch_size: 4", "batch_size 4", "6:16 "),
        ("batch_size: 4", "batch_size: 4x", "6:17 .*4x"),
        ('"x"\n    batch_size: 4', '"4x"  # 4x\n    batch_size: 4x', "6:17 .*4x"),
        ("batch_size: 4", "batch_size:", "7:3 "),
        ('"x"', '"x', '5:13 .*"x'),
        ('bottom: "data"', 'bottom "data"', "10:42 "),
        ("include {", "include 3 {", "8:11 "),
        ("  }\n  include", "  include", "2:7 : this brace is left open"),
        ("TEST }\n}", "TEST }\n", "2:7 : this brace is left open"),
        ("  }\n  include", "  }}}\n  include", "7:5 : no brace opens what this one closes"),
        ("include {", "exclude { phase: TRAIN } include {", "line 2, layer 'data' .* include and exclude"),
    ],
)  # fmt: skip
def test_errors_name_the_line_that_is_wrong(whole, damaged, text):
    pytest.importorskip("google.protobuf")
    assert caffe.load(DATA).outputs == ("label", "relu")
    with pytest.raises(ValueError, match=f"is no net's definition: {text}"):
        caffe.load(DATA.replace(whole, damaged))


def test_what_weights_refuse(files, tmp_path):
    prototxt = one_layer("Convolution", CONV, (1, 3, 5, 5))
    definition, weights = files(prototxt)
    with pytest.raises(ValueError, match=r"load: prototxt 'nowhere.prototxt': No such file"):
        caffe.load("nowhere.prototxt")
    with pytest.raises(ValueError, match=r"load: caffemodel '.*': No such file"):
        caffe.load(definition, tmp_path / "no.caffemodel")
    with pytest.raises(ValueError, match=r"load: prototxt '.*caffemodel' is no net's definition"):
        caffe.load(weights)
    for change, text in (
        (lambda net: net.layer[1].ClearField("blobs"), r"layer 'one': 0 blobs, where .* needs 2"),
        (
            lambda net: net.layer[1].blobs[0].data.pop(),
            r"layer 'one', blob 0: \[4, 3, 3, 3\] with 107 numbers",
        ),
        (
            lambda net: net.layer[1].blobs[1].shape.dim.append(2),
            r"blob 1: \[4, 2\] with 4 numbers, needed is \[4\]",
        ),
        (
            lambda net: net.layer[1].blobs[1].shape.dim.append(1 << 40),
            r"blob 1: \[4, 1099511627776\] with 4",
        ),
    ):
        changed = with_weights(caffe.load(definition), prototxt)
        change(changed)
        weights.write_bytes(changed.SerializeToString())
        with pytest.raises(ValueError, match=text):
            caffe.load(definition, weights)


def test_without_protobuf_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "google.protobuf", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "\.\[caffe\]"'):
        caffe.load(tmp_path / "net.prototxt")


def test_every_layer_of_the_table_is_tried():
    here = Path(__file__).parent
    tried = "".join(path.read_text() for path in here.glob("test_compat_caffe*.py"))
    assert all(f'"{name}"' in tried for name in LAYERS)
