"""Caffe's layers and Caffe's files.

convolution   the Convolution, Deconvolution and Im2col layers, with Caffe's parameters and passes
schema        the messages of Caffe's files
files         the bytes of files, and how much a net may be
layers        what each layer of a net computes
definition    a prototxt's text, read into a message for each layer
sources       data layers as inputs
wiring        which layer reads what
align         offsets of Crop layers that have none
plan          shapes of all tops, and where each blob is kept
summary       a net as a table
weights       caffemodel and HDF5, read and written
net           `load`: a net, with a pytree of blobs and pure functions of it
solver        `load_solver`: a solver's prototxt as an optimizer with Caffe's update rules
"""

from jdeconv.compat.caffe.convolution import Convolution, Deconvolution, Filler, Im2col
from jdeconv.compat.caffe.layers import Layer
from jdeconv.compat.caffe.net import Net, load
from jdeconv.compat.caffe.solver import Solver, SolverState, load_solver

__all__ = [
    "Convolution",
    "Deconvolution",
    "Filler",
    "Im2col",
    "Layer",
    "Net",
    "Solver",
    "SolverState",
    "load",
    "load_solver",
]
