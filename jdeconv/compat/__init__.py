"""Other frameworks' signatures, argument for argument, over jdeconv's contractions.

One module each: `lax`, `torch`, `keras`, `onnx` and `caffe`. None imports its framework.
"""

from jdeconv.compat import caffe, keras, lax, onnx, torch

__all__ = ["caffe", "keras", "lax", "onnx", "torch"]
