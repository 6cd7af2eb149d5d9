"""Layers with the frameworks' own arguments and parameters, evaluated by jdeconv.

One module each: `nnx` for Flax and `equinox`, with the extras of these names. Each imports its framework, so it
is imported when a program first asks for it.
"""

from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jdeconv.layers import equinox, nnx

__all__ = ["equinox", "nnx"]


def __getattr__(name: str) -> ModuleType:
    if name == "nnx":
        import jdeconv.layers.nnx as module
    elif name == "equinox":
        import jdeconv.layers.equinox as module
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return module
