"""Other frameworks' signatures, argument for argument, over jdeconv's contractions.

One module each: `lax`, `torch`, `keras`, `onnx`. None imports its framework, but `lax`, which is JAX's own.
"""
