"""The picture that other sites show beside a link to these pages: `python docs/preview.py docs/_build/html`.

Takes it from the figure of the built home page, with playwright and chromium; writes docs/_static/preview.png.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SIZE = {"width": 1200, "height": 630}  # what these sites ask for
STYLE = """
body > :not(#small-figure) { display: none !important; }
#small-figure { padding: 40px 60px; font-size: 26px; }
#small-figure h1 { font-size: 76px; margin: 0 0 10px; }
#small-figure svg { font-size: 20px; }
#small-figure > p:last-child { display: none; }
"""
SCRIPT = """(words) => {
  const figure = document.getElementById("small-figure");
  document.body.append(figure);
  figure.insertAdjacentHTML("afterbegin", `<h1>jdeconv</h1><p>${words}</p>`);
}"""
WORDS = "Convolution and transposed convolution for JAX.<br>Each is the backward pass of the other."


def main(site: Path) -> None:
    """Draw the preview of a built site."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SIZE, reduced_motion="reduce", color_scheme="light")
        page.goto((site / "index.html").resolve().as_uri())
        page.evaluate(SCRIPT, WORDS)
        page.add_style_tag(content=STYLE)
        for _ in range(4):  # play and pause: the first step, then the second
            page.locator("[data-part=play]").evaluate("button => button.click()")
        page.screenshot(path=Path(__file__).parent / "_static" / "preview.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
