"""Other frameworks' signatures, argument for argument, over jdeconv's contractions.

One module each: `lax`, `torch`, `keras`, `onnx` and `caffe`. None imports its framework.
"""
