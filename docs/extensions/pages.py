"""What single pages need: the figure its scripts, the Chinese pages their language."""

from __future__ import annotations

SCRIPTS = (
    "arithmetic", "settings", "words", "svg", "views", "line", "plane", "matrix", "light",
    "player", "controls", "figure",
)


def setup(app):
    """Register with Sphinx."""

    def fit(app, page, template, context, doctree):
        if page == "figure":
            app.add_css_file("figure/cells.css")
            app.add_css_file("figure/figure.css")
            for script in SCRIPTS:
                app.add_js_file(f"figure/{script}.js")
        if page.startswith("zh/"):
            context["language"] = "zh"

    app.connect("html-page-context", fit)
    return {"parallel_read_safe": True}
