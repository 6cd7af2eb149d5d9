"""This project's docstrings as reStructuredText that napoleon reads.

They are written for `help()`: asterisks are products, a paragraph may open with a word such as "Formula:", and
"Shapes (legend):" heads a block.
"""

from __future__ import annotations

import re

LEAD = re.compile(
    r"(?P<lead>(?:Formula|Shapes|Size|Differentiation|Numbers|Source|Errors|Arg)[^:`]*): (?P<text>.+)"
)
LEGEND = re.compile(r"Shapes \((?P<legend>[^:]*)\):")
EXAMPLE = re.compile(r"Example: (?P<text>.+)")
VERBATIM = re.compile(r"(``.*?``|`[^`]*`)")


def convert(lines: list[str]) -> list[str]:
    r"""The lines of a docstring, in reStructuredText.

    Example:
      >>> convert(["Formula: y = 2*x", "", "Example: of two", "  >>> 2*3", "  6"])
      ['**Formula:** y = 2\\*x', '', 'Example:', '  of two', '', '  >>> 2*3', '  6']
    """
    result: list[str] = [""]
    in_doctest = False
    for line in _unwrapped(lines):
        begins = line.lstrip().startswith(">>>")
        in_doctest = begins or (in_doctest and bool(line.strip()))
        if in_doctest:
            if begins and result[-1].strip() and not result[-1].lstrip().startswith((">>>", "Ex")):
                result.append("")
            result.append(line)
        elif match := LEGEND.fullmatch(line):
            result += ["Shapes:", f"  {_escaped(match['legend'])}:", ""]
        elif match := EXAMPLE.fullmatch(line):
            result += ["Example:", "  " + _escaped(match["text"])]
        elif result[-1] == "" and (match := LEAD.fullmatch(line)):
            result.append(f"**{_escaped(match['lead'])}:** {_escaped(match['text'])}")
        else:
            result.append(_escaped(line))
    return result[1:]


def examples_first(lines: list[str]) -> list[str]:
    """The lines of a docstring, with its examples directly behind the summary.

    Example:
      >>> examples_first(["Returns y.", "", "Args:", "  x: an array.", "", "Example:", "  >>> f(1)"])
      ['Returns y.', '', 'Example:', '  >>> f(1)', '', 'Args:', '  x: an array.', '']
    """
    blocks: list[list[str]] = [[]]
    for before, line in zip(["", *lines], lines, strict=False):
        if line and not line[0].isspace() and not before.strip():
            blocks.append([])
        blocks[-1].append(line)
    examples = [block for block in blocks[2:] if block[0].startswith("Example")]
    others = [block for block in blocks[2:] if block not in examples]
    closed = [block if not block[-1:] or not block[-1] else [*block, ""] for block in examples]
    return [line for block in (*blocks[:2], *closed, *others) for line in block]


def _unwrapped(lines: list[str]) -> list[str]:
    """The lines, with the heading of a block in one."""
    result: list[str] = []
    for line in lines:
        if result and result[-1].startswith("Shapes (") and not result[-1].endswith(":"):
            result[-1] += " " + line.strip()
        else:
            result.append(line)
    return result


def _escaped(text: str) -> str:
    """Asterisks, bars and underscores outside of backticks as they are."""
    parts = VERBATIM.split(text)
    parts[::2] = [re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def setup(app):
    """Register with Sphinx, ahead of napoleon."""

    def process(app, what, name, obj, options, lines):
        lines[:] = convert(examples_first(lines))

    def name_aliases(app, what, name, obj, options, signature, result):
        return signature and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", signature), result

    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-signature", name_aliases)
    return {"parallel_read_safe": True}
