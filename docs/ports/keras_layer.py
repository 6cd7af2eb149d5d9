"""A Conv2DTranspose of Keras, padding "same"."""

import numpy as np

NEEDS = "keras"


def theirs(inputs, kernel):
    """The layer in Keras."""
    import keras

    layer = keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same", use_bias=False)
    layer.build(inputs.shape)
    layer.set_weights([kernel])
    return layer(inputs)


def ours(inputs, kernel):
    """The same with jdeconv. Keras's kernel is (h, w, out, in): (h, w, I, O) in the letters of the conv."""
    import jdeconv

    return jdeconv.deconv(
        inputs, kernel, stride=2, padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def adapter(inputs, kernel):
    """The same with jdeconv and the signature of keras.ops."""
    from jdeconv.compat import keras as ops

    return ops.conv_transpose(inputs, kernel, strides=2, padding="same")


def arrays(rng):
    """Inputs: (n, h, w, c), (h, w, out, in)."""
    return [rng.integers(-4, 5, s).astype(np.float32) for s in ((2, 5, 7, 4), (3, 3, 3, 4))]
