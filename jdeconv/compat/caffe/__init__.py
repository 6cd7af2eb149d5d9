"""Caffe's layers and Caffe's files.

convolution   the Convolution, Deconvolution and Im2col layers, with Caffe's parameters and passes
layers        what every other layer of a deploy net computes
schema        the messages of Caffe's files
files         prototxt and caffemodel, read into messages
net           `load`: a net from its files, a pytree of blobs and a pure function
"""

from jdeconv.compat.caffe.convolution import Convolution, Deconvolution, Filler, Im2col
from jdeconv.compat.caffe.net import Net, load

__all__ = ["Convolution", "Deconvolution", "Filler", "Im2col", "Net", "load"]
