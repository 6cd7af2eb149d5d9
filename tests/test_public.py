"""What others build on: public names, signatures, and what was pickled or exported by an earlier version."""

import inspect
import pickle
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import export

import jdeconv

GOLDEN = Path(__file__).parent / "golden"
DOCS = Path(__file__).parents[1] / "docs"
NAMES = GOLDEN / "public.txt"


def signature(name):
    """A public name with its parameters and their defaults, without annotations."""
    value = jdeconv
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    if not callable(value):
        return name
    found = inspect.signature(value)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    return f"{name}{found.replace(parameters=bare, return_annotation=inspect.Signature.empty)}"


def test_names_and_signatures_are_those_on_record(monkeypatch):
    """Where a change is meant: write the lines that differ into the file, and a line into CHANGELOG.md."""
    monkeypatch.syspath_prepend(str(DOCS))
    from extensions.complete import public_names

    assert sorted(map(signature, public_names())) == NAMES.read_text().splitlines()


def test_a_window_that_was_pickled_loads():
    text = (GOLDEN / "window.pickle").read_bytes()
    window = jdeconv.Window.of_conv((7, 5), (3, 2), stride=2, padding=((1, 0), (0, 1)), dilation=2)
    assert pickle.loads(text) == window
    assert hash(pickle.loads(pickle.dumps(window))) == hash(window)


def test_a_function_that_was_exported_runs():
    """deconv and its kernel gradient for a batch of any size, exported with jax 0.10.0."""
    rng = np.random.default_rng(5)
    y = jnp.asarray(rng.integers(-4, 5, (3, 4, 5, 3)), jnp.float32)
    kernel = jnp.asarray(rng.integers(-4, 5, (4, 3, 3, 2)), jnp.float32)
    exported = export.deserialize((GOLDEN / "deconv.export").read_bytes())
    x, kernel_grad = exported.call(y, kernel)
    options = {"stride": (2, 1), "padding": 1, "groups": 2}
    ours = jdeconv.deconv(y, kernel, output_padding=(1, 0), **options)
    assert (x == ours).all()
    assert (kernel_grad == jdeconv.kernel_grad(ours, y, (3, 2), **options)).all()
