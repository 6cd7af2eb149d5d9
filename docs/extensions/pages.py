"""What single pages need: scripts of the figures, the Chinese language, and tags for previews of links."""

from __future__ import annotations

import re
from html import escape

# For each page with a figure its styles and its scripts, in the order in which they need one another.
FIGURES = {
    "index": ("cells small", "arithmetic svg views line light player small"),
    "figure": (
        "cells figure",
        "arithmetic settings words svg views line plane matrix light player controls links input"
        " figure",
    ),
}
LEAST, MOST = 80, 200  # characters of a description


def shortened(text: str, length: int = MOST) -> str:
    r"""The text in one line, cut after a word where it is longer.

    Example:
      >>> shortened("one two\nthree", 9)
      'one two …'
    """
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= length else line[: length - 1].rsplit(" ", 1)[0] + " …"


def described(doctree) -> tuple[str, bool]:
    """What a page says of itself, and whether its metadata already has it; else its first paragraphs."""
    from docutils import nodes

    for node in doctree.findall(nodes.meta):
        if node.get("name") == "description":
            return shortened(node["content"]), True
    text = ""
    for paragraph in doctree.findall(nodes.paragraph):
        text += " " + paragraph.astext()
        if len(text) >= LEAST:
            break
    return shortened(text), False


def metatags(title: str, text: str, image: str, has_description: bool) -> str:
    """The tags from which other sites make a preview of a link."""
    tags = [] if has_description or not text else [("name", "description", text)]
    tags += [
        ("property", "og:type", "website"),
        ("property", "og:site_name", "jdeconv"),
        ("property", "og:title", title),
        ("property", "og:description", text),
        ("property", "og:image", image),
        ("name", "twitter:card", "summary_large_image"),
    ]
    lines = (f'<meta {kind}="{name}" content="{escape(value)}" />' for kind, name, value in tags)
    return "\n".join(lines) + "\n"


def setup(app):
    """Register with Sphinx."""

    def fit(app, page, template, context, doctree):
        styles, scripts = FIGURES.get(page, ("", ""))
        for style in styles.split():
            app.add_css_file(f"figure/{style}.css")
        for script in scripts.split():
            app.add_js_file(f"figure/{script}.js")
        if page.startswith("zh/"):
            context["language"] = "zh"
        if doctree is not None:
            text, has_description = described(doctree)
            title = re.sub(r"<[^>]*>", "", context["title"])
            # Most sites want the whole address: build with -D html_baseurl=https://... where it is known.
            image = (app.config.html_baseurl or context["pathto"]("", 1)) + "_static/preview.png"
            context["metatags"] += metatags(title, text, image, has_description)

    app.connect("html-page-context", fit)
    return {"parallel_read_safe": True}
