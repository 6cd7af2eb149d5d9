"""A Caffe net from its prototxt: a conv down, a bilinear deconv up."""

import numpy as np

NEEDS = "cv2"

PROTOTXT = """
name: "hourglass"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 10 } } }
layer { name: "down" type: "Convolution" bottom: "data" top: "down"
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1
    weight_filler { type: "constant" value: 2 } } }
layer { name: "up" type: "Deconvolution" bottom: "down" top: "up"
  convolution_param { num_output: 4 group: 4 kernel_size: 4 stride: 2 pad: 1 bias_term: false
    weight_filler { type: "bilinear" } } }
"""


def theirs(data):
    """Caffe's files as OpenCV reads them, with the weights that the fillers make."""
    import tempfile
    from pathlib import Path

    import cv2

    from jdeconv.compat.caffe import load
    from jdeconv.compat.caffe.schema import message_class

    with tempfile.TemporaryDirectory() as folder:
        prototxt, weights = Path(folder, "net.prototxt"), Path(folder, "net.caffemodel")
        prototxt.write_text(PROTOTXT)
        message = message_class("NetParameter")()
        for name, blobs in load(prototxt).params.items():
            layer = message.layer.add(name=name)
            for blob in blobs:
                layer.blobs.add(shape={"dim": blob.shape}, data=np.ravel(blob).tolist())
        weights.write_bytes(message.SerializeToString())
        net = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
    net.setInput(data)
    return net.forward()


def ours(data):
    """The net as a pure function of its blobs, for jax.grad and jit."""
    import tempfile
    from pathlib import Path

    from jdeconv.compat import caffe

    with tempfile.TemporaryDirectory() as folder:
        prototxt = Path(folder, "net.prototxt")
        prototxt.write_text(PROTOTXT)
        net = caffe.load(prototxt)
    return net(net.params, {"data": data})["up"]


adapter = None


def arrays(rng):
    """Inputs: (n, c, h, w)."""
    return [rng.integers(-4, 5, (1, 3, 8, 10)).astype(np.float32)]
