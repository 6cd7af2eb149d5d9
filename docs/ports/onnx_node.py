"""A ConvTranspose node of ONNX with an output_shape."""

import numpy as np

NEEDS = "onnxruntime"


def theirs(X, W):
    """The node in onnxruntime, as a model of one node."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    node = helper.make_node(
        "ConvTranspose",
        ["X", "W"],
        ["Y"],
        strides=[2, 2],
        output_shape=[10, 14],
        auto_pad="SAME_UPPER",
    )
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * 4) for n in "XWY"]
    graph = helper.make_graph([node], "up", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"X": X, "W": W})[0]


def ours(X, W):
    """The same with jdeconv. At the end, (5 - 1)*2 + 3 - 10 = 1 row is cropped, and one column too."""
    import jdeconv

    return jdeconv.deconv(X, W, stride=2, padding=((0, 1), (0, 1)), output_size=(10, 14))


def adapter(X, W):
    """The same with jdeconv and the operator's attributes."""
    from jdeconv.compat import onnx

    return onnx.ConvTranspose(X, W, strides=[2, 2], output_shape=[10, 14], auto_pad="SAME_UPPER")


def arrays(rng):
    """Inputs: (n, in, h, w), (in, out, h, w)."""
    return [rng.integers(-4, 5, s).astype(np.float32) for s in ((1, 4, 5, 7), (4, 3, 3, 3))]
