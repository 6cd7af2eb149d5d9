"""compat.onnx against the cases that ONNX generates and against onnxruntime."""

import random
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry import drawn
from thinned import thinned

from jdeconv.compat import onnx as compat

onnx = pytest.importorskip("onnx")
OPERATORS = {name: getattr(compat, name) for name in compat.__all__}


def node_cases():
    """Every generated model of a single Conv, ConvTranspose or Col2Im."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of other operators' cases
        cases = [*load_model_tests(kind="node"), *load_model_tests(kind="pytorch-converted")]
    for case in cases:
        if "onv" in case.name or "col2im" in case.name:
            model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
            if len(model.graph.node) == 1 and model.graph.node[0].op_type in OPERATORS:
                yield pytest.param(case, model, id=f"{case.kind}-{case.name}")


CASES = list(node_cases())


def attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def data(case, model):
    """Inputs by name, initializers among them, and outputs, of each data set."""
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in weights]
    for inputs, outputs in case.data_sets or []:
        yield weights | dict(zip(names, inputs, strict=True)), outputs
    folder = Path(case.model_dir or "")
    for part in sorted(folder.glob("test_data_set_*")) if case.model_dir else []:
        arrays = {
            kind: [
                onnx.numpy_helper.to_array(onnx.load_tensor(part / f"{kind}_{i}.pb"))
                for i in range(len(list(part.glob(f"{kind}_*.pb"))))
            ]
            for kind in ("input", "output")
        }
        yield weights | dict(zip(names, arrays["input"], strict=True)), arrays["output"]


def test_the_cases_are_there():
    names = [case.values[1].graph.node[0].op_type for case in CASES]
    for name, least in {"Conv": 30, "ConvTranspose": 13, "Col2Im": 5}.items():
        assert names.count(name) >= least


@pytest.mark.parametrize(("case", "model"), CASES)
def test_generated(case, model):
    (node,), sets = model.graph.node, list(data(case, model))
    assert sets
    for inputs, (expected,) in sets:
        args = [inputs[name] for name in node.input]
        result = OPERATORS[node.op_type](*args, **attributes(node))
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def runtime(operator, arrays, options):
    """onnxruntime's answer."""
    ort = pytest.importorskip("onnxruntime")
    names = ["X", "W", "B"][: len(arrays)]
    node = onnx.helper.make_node(operator, names, ["Y"], **options)
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [tensor(n, onnx.TensorProto.FLOAT, a.shape) for n, a in zip(names, arrays, strict=True)],
        [tensor("Y", onnx.TensorProto.FLOAT, None)],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    quiet = ort.SessionOptions()
    quiet.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), quiet, ["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def geometry(seed):
    rng = random.Random(seed)
    rank = 1 + seed % 3
    ints = lambda least, most: [rng.randint(least, most) for _ in range(rank)]  # noqa: E731
    group, c, o, n = (
        rng.choice([1, 1, 2, 3]),
        rng.randint(1, 3),
        rng.randint(1, 3),
        rng.randint(1, 2),
    )
    options = {"strides": ints(1, 3), "dilations": ints(1, 2), "group": group}
    options = {name: v for name, v in options.items() if rng.random() < 0.8 or name == "group"}
    return rng, rank, ints, (n, group * c, group * o), (c, o), options


def tangents_agree(function, *arrays):
    """Forward mode is linear in the first operand, and reverse mode its transpose."""
    x, *rest = (jnp.asarray(a) for a in arrays)
    function = jax.jit(function)  # compiles once, and not each of its operations
    out, tangent = jax.jvp(lambda x: function(x, *rest), (x,), (x,))
    bias = rest[1] if len(rest) > 1 else 0.0
    shape = (1, -1, *[1] * (out.ndim - 2))
    np.testing.assert_array_equal(tangent, out - (bias.reshape(shape) if len(rest) > 1 else 0))
    (gradient,) = jax.vjp(lambda x: function(x, *rest), x)[1](tangent)
    np.testing.assert_array_equal(jnp.vdot(gradient, x), jnp.vdot(tangent, tangent))


@pytest.mark.parametrize("seed", thinned(range(42), 3))
def test_random_conv(seed):
    rng, rank, ints, (n, c_all, o_all), (c, _), options = geometry(seed)
    k = ints(1, 4)
    span = [d * (a - 1) + 1 for a, d in zip(k, options.get("dilations", [1] * rank), strict=True)]
    auto_pad = rng.choice(compat.AUTO_PADS)
    options["auto_pad"] = auto_pad
    if "SAME" in auto_pad:  # together with dilation, onnxruntime refuses it
        options.pop("dilations", None)
    i = [s + rng.randint(0, 5) for s in span]
    if auto_pad == "NOTSET":
        options["pads"] = ints(0, 3) + ints(0, 3)
    x, w, b = drawn(seed, (n, c_all, *i), (o_all, c, *k), (o_all,))
    arrays = (x, w, b) if rng.random() < 0.5 else (x, w)
    result = compat.Conv(*arrays, **options)
    np.testing.assert_array_equal(result, runtime("Conv", arrays, options))
    tangents_agree(lambda *a: compat.Conv(*a, **options), *arrays)


@pytest.mark.parametrize("seed", thinned(range(60), 4))
def test_random_conv_transpose(seed):
    rng, rank, ints, (n, c_all, _), (_, o), options = geometry(seed)
    k, i = ints(1, 4), ints(1, 5)
    s, d = options.get("strides", [1] * rank), options.get("dilations", [1] * rank)
    full = [(a - 1) * s + d * (b - 1) + 1 for a, b, s, d in zip(i, k, s, d, strict=True)]
    options["auto_pad"] = rng.choice(compat.AUTO_PADS)
    if rng.random() < 0.5:
        # Not less than the stride, onnxruntime refuses it.
        options["output_padding"] = [rng.randint(0, a - 1) for a in s]
    extra = options.get("output_padding", [0] * rank)
    if options["auto_pad"] != "VALID" and rng.random() < 0.4:
        most = [f + max(e, a - 1) for f, e, a in zip(full, extra, s, strict=True)]
        options["output_shape"] = [rng.randint(1, m) for m in most]
    elif options["auto_pad"] == "NOTSET":
        low = [rng.randint(0, min(2, (f + e - 1) // 2)) for f, e in zip(full, extra, strict=True)]
        high = [rng.randint(0, min(2, (f + e - 1) // 2)) for f, e in zip(full, extra, strict=True)]
        options["pads"] = low + high
    x, w, b = drawn(seed, (n, c_all, *i), (c_all, o, *k), (options["group"] * o,))
    arrays = (x, w, b) if rng.random() < 0.5 else (x, w)
    expected = runtime("ConvTranspose", arrays, options)
    result = compat.ConvTranspose(*arrays, **options)
    assert result.shape == expected.shape
    np.testing.assert_array_equal(result, expected)
    tangents_agree(lambda *a: compat.ConvTranspose(*a, **options), *arrays)


def test_where_onnxruntime_refuses_what_the_operator_defines():
    x, w = drawn(0, (1, 2, 7), (2, 2, 3))
    same = compat.Conv(x, w, auto_pad="SAME_LOWER", dilations=[2])
    np.testing.assert_array_equal(same, compat.Conv(x, w, pads=[2, 2], dilations=[2]))
    wider = compat.ConvTranspose(x, w, dilations=[2], output_padding=[1])
    narrow = compat.ConvTranspose(x, w, dilations=[2])
    np.testing.assert_array_equal(wider, jnp.pad(narrow, ((0, 0), (0, 0), (0, 1))))


def test_strings_may_be_bytes():
    x, w = drawn(0, (1, 2, 7), (2, 2, 3))
    for call in (compat.Conv, compat.ConvTranspose):
        expected = call(x, w, auto_pad="SAME_LOWER", strides=[2])
        np.testing.assert_array_equal(call(x, w, auto_pad=b"SAME_LOWER", strides=[2]), expected)
        with pytest.raises(ValueError, match="auto_pad must be one of NOTSET"):
            call(x, w, auto_pad=b"SAME")


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
def test_output_shape_makes_pads_needless(auto_pad):
    x, w = drawn(0, (1, 2, 4, 3), (2, 2, 3, 4))
    options = {"strides": [2, 1], "output_shape": [7, 5], "auto_pad": auto_pad}
    if auto_pad == "NOTSET":
        options["pads"] = [1, 0, 2, 1]
    expected = runtime("ConvTranspose", (x, w), options)
    np.testing.assert_array_equal(compat.ConvTranspose(x, w, **options), expected)


def test_col2im_s_shapes():
    columns = jnp.arange(16.0).reshape(1, 4, 4)
    expected = compat.Col2Im(columns, [3, 3], [2, 2])
    arrays = compat.Col2Im(columns, np.array([3, 3]), np.array([2, 2], np.int64))
    np.testing.assert_array_equal(arrays, expected)
