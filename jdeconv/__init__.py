"""Convolution and its transpose in JAX, each written as the other's backward pass."""

from jdeconv import bilinear, compat, halo, layers, testing
from jdeconv.accelerate import accelerate
from jdeconv.api import conv, deconv, kernel_grad
from jdeconv.fillers import (
    bilinear_kernel,
    constant,
    gaussian,
    msra,
    positive_unitball,
    uniform,
    xavier,
)
from jdeconv.im2col import col2im, im2col
from jdeconv.window import Window

__version__ = "0.1.0"

__all__ = [
    "Window",
    "accelerate",
    "bilinear",
    "bilinear_kernel",
    "col2im",
    "compat",
    "constant",
    "conv",
    "deconv",
    "gaussian",
    "halo",
    "im2col",
    "kernel_grad",
    "layers",
    "msra",
    "positive_unitball",
    "testing",
    "uniform",
    "xavier",
]
