"""No adapter imports the framework whose words it speaks."""

import subprocess
import sys

import pytest

import jdeconv.compat

FRAMEWORKS = (
    "torch",
    "keras",
    "tensorflow",
    "onnx",
    "onnxruntime",
    "caffe",
    "equinox",
    "flax",
    "google.protobuf",
)


@pytest.mark.parametrize("name", ["lax", "torch", "keras", "onnx", "caffe"])
def test_import(name):
    code = (
        f"import sys, jdeconv.compat.{name}\nprint([m for m in {FRAMEWORKS!r} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert name in jdeconv.compat.__doc__
