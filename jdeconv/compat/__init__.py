"""Other frameworks' signatures, argument for argument, over jdeconv's contractions.

One module each: `lax`, `torch`, `keras` and `onnx`. None imports its framework.
"""
