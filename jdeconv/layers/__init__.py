"""Layers with the frameworks' own arguments and parameters, evaluated by jdeconv.

One module each: `nnx` for Flax and `equinox`, with the extras of these names. Each imports its framework, so it
is imported when a program first asks for it.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jdeconv.layers import equinox, nnx

__all__ = ["equinox", "nnx"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
