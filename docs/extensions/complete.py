"""Every public name has its place in the API pages; one that has none fails the build."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import jdeconv


def modules(package: ModuleType = jdeconv) -> Iterator[ModuleType]:
    """The package, and the modules among its public names, and so on."""
    yield package
    for name in package.__all__ if hasattr(package, "__all__") else ():
        if isinstance(module := getattr(package, name), ModuleType):
            yield from modules(module)


def public_names() -> Iterator[str]:
    """Dotted names of all that users may call, methods and properties of classes among them.

    Example:
      >>> {"jdeconv.conv", "jdeconv.Window.of_conv", "jdeconv.testing.as_matrix"} <= set(public_names())
      True
    """
    for module in modules():
        for name in _names(module):
            value = getattr(module, name)
            if isinstance(value, ModuleType):
                continue
            yield f"{module.__name__}.{name}"
            if inspect.isclass(value):
                yield from (f"{module.__name__}.{name}.{member}" for member in _members(value))


def _names(module: ModuleType) -> list[str]:
    own = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    ]
    return list(getattr(module, "__all__", own))


def _members(value: type) -> list[str]:
    """Public methods and properties, inherited ones too where the base is ours."""
    bases = [base for base in value.__mro__ if base.__module__.startswith("jdeconv")]
    items = {name: item for base in reversed(bases) for name, item in vars(base).items()}
    kinds = (property, classmethod, staticmethod)
    return [
        name
        for name, item in items.items()
        if name[0] != "_" and (inspect.isfunction(item) or isinstance(item, kinds))
    ]


def setup(app):
    """Register with Sphinx."""
    from sphinx.util import logging

    def check(app, env):
        documented = set(env.get_domain("py").objects)
        for name in public_names():
            if name not in documented:
                logging.getLogger(__name__).warning("no API page has the public name %s", name)

    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
