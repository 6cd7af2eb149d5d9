"""The directive `public-names`: a list of all public names, with the first sentence of each docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import jdeconv

from .complete import public_names
from .docstrings import convert


def entries() -> Iterator[str]:
    """reStructuredText: a heading for each module, and an item for each of its functions and classes.

    Example:
      >>> any(line.startswith("- :py:obj:`jdeconv.im2col`: ") for line in entries())
      True
    """
    module = None
    for name in public_names():
        owner = name.rsplit(".", 1)[0]
        if owner.rsplit(".", 1)[-1][0].isupper():
            continue  # a method, which its class's page lists
        if owner != module:
            module = owner
            yield from ("", f"**{module}**", "")
        yield f"- :py:obj:`{name}`: {_first_sentence(_find(name))}"


def _find(name: str) -> object:
    value: object = jdeconv
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value


def _first_sentence(value: object) -> str:
    paragraph = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
    return convert([re.split(r"(?<=[.)])\s+(?=[A-Z<])", paragraph)[0]])[0]


def setup(app):
    """Register with Sphinx."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class PublicNames(SphinxDirective):
        """The list, in place of the directive."""

        def run(self) -> list[nodes.Node]:
            parent = nodes.container()
            source = self.get_source_info()[0]
            lines = list(entries())
            self.state.nested_parse(StringList(lines, source), self.content_offset, parent)
            return parent.children

    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True}
