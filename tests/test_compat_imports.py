"""No adapter imports the framework whose words it speaks, and layers say which extra brings theirs."""

import importlib
import re
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


@pytest.mark.parametrize(("framework", "extra"), [("flax", "nnx"), ("equinox", "equinox")])
def test_without_a_framework_its_extra_is_named(framework, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, framework, None)
    monkeypatch.delitem(sys.modules, f"jdeconv.layers.{extra}", raising=False)
    text = re.escape(f'pip install ".[{extra}]" in the source tree')
    with pytest.raises(ModuleNotFoundError, match=text):
        importlib.import_module(f"jdeconv.layers.{extra}")
