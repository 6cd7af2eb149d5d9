"""What each layer of a net computes, from the message that a prototxt holds for it.

base            what a layer is, and what makers share
windows         Convolution, Deconvolution, Im2col
pooling         Pooling, SPP
dense           InnerProduct, Embed, Scale, Bias, PReLU, Parameter, DummyData
elementwise     functions of every number, and Dropout
normalization   BatchNorm, BN, LRN, MVN, Normalize, Softmax
arranging       layers that arrange, combine or reduce numbers
losses          losses, and Accuracy
sampling        Upsample, Interp, ROIPooling

`LAYERS` has a maker for every type.

Source: BVLC Caffe, src/caffe/layers; SegNet's, PSPNet's, SSD's and Fast R-CNN's Caffe for theirs.
"""

from __future__ import annotations

from jdeconv.compat.caffe.layers import (  # noqa: F401  (they enter their makers)
    arranging,
    dense,
    elementwise,
    losses,
    normalization,
    pooling,
    sampling,
    windows,
)
from jdeconv.compat.caffe.layers.base import LAYERS, Layer, Maker, Shape, as_layer

__all__ = ["LAYERS", "Layer", "Maker", "Shape", "as_layer"]
