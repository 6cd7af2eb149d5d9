"""The pictures of the tutorials, as HTML that takes its colors and fonts from the page.

Every function returns a `Picture`, which a notebook displays if it is the value of a cell.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np

from jdeconv import Window

INK = "#010203"  # stands for the page's text color until the SVG is written

plt.rcParams.update(
    {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "savefig.transparent": True,
    }
    | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK)
    | dict.fromkeys(("xtick.color", "ytick.color"), INK)
)


class Picture:
    """HTML that a notebook displays."""

    def __init__(self, html: str):
        self.html = f'<div class="picture">{html}</div>'

    def _repr_html_(self) -> str:
        return self.html


def matrices(**matrices: np.ndarray) -> Picture:
    """The matrices side by side, with their numbers; zeros are left blank.

    Example:
      >>> matrices(A=np.eye(2)).html.count("<span")
      4
    """
    return Picture("".join(_matrix(name, np.asarray(a)) for name, a in matrices.items()))


def _matrix(name: str, a: np.ndarray) -> str:
    limit = max(1, abs(a).max())
    cells = "".join(
        f'<span style="--amount:{abs(v) / limit:.2f}"'
        + (' class="minus"' if v < 0 else "")
        + f">{f'{v:g}' if v else ''}</span>"
        for v in a.ravel()
    )
    title = name.replace("_", " ")
    return (
        f"<figure><figcaption>{title}, {a.shape[0]} by {a.shape[1]}</figcaption>"
        f'<div class="matrix" style="--columns:{a.shape[1]}">{cells}</div></figure>'
    )


def images(
    images: Mapping[str, np.ndarray],
    limits: tuple[float, float] | None = None,
    colors: str = "gray",
) -> Picture:
    """The images side by side, pixel by pixel.

    Args:
      images: each image under its title, (height, width), or (height, width, 3) from 0 to 1.
      limits: the values of the first and of the last color; None takes each image's own.
      colors: the name of a color map of Matplotlib.
    """
    figures = []
    for title, image in images.items():
        a = np.asarray(image, float)
        low, high = limits or (a.min(), a.max())
        range_ = max(high - low, 1e-5 * abs(high), 1e-12)  # a constant image becomes gray
        scaled = np.clip(0.5 + (a - (low + high) / 2) / range_, 0, 1)
        pixels = scaled if a.ndim == 3 else plt.get_cmap(colors)(scaled)[..., :3]
        file = io.BytesIO()
        plt.imsave(file, pixels, format="png")
        source = base64.b64encode(file.getvalue()).decode()
        figures.append(
            f'<figure><img class="dark-light" alt="{title}" src="data:image/png;base64,{source}">'
            f"<figcaption>{title}</figcaption></figure>"
        )
    return Picture("".join(figures))


def chart(width: float = 5, height: float = 2.6, **options) -> tuple[plt.Figure, plt.Axes]:
    """A new figure of Matplotlib and its axes, for `drawn`; sizes are in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained", **options)


def drawn(figure: plt.Figure) -> Picture:
    """The figure as an SVG in the page's own text color; the figure is closed."""
    file = io.StringIO()
    figure.savefig(file, format="svg")
    plt.close(figure)
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    width = float(re.search(r'width="([\d.]+)pt"', text).group(1))
    text = re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    return Picture(f'<div class="drawing" style="max-width:{width / 12:.0f}rem">{text}</div>')


def windows(**windows: Window) -> Picture:
    """The windows of one axis: a row of cells of x for each, and a row of taps for each position of y.

    Cells outside of x are padding. A keyword is a title, with underscores for spaces.
    """
    rows = [w.small[0] + 2 for w in windows.values()]
    figure, axes = chart(5, 0.3 * sum(rows), nrows=len(rows), height_ratios=rows, squeeze=False)
    for axis, (title, w) in zip(axes[:, 0], windows.items(), strict=True):
        _window(axis, w)
        axis.set_title(title.replace("_", " "), fontsize=10, loc="left")
    return drawn(figure)


def _window(axis: plt.Axes, w: Window) -> None:
    big, small, (low, high) = w.big[0], w.small[0], w.padding[0]
    for b in range(-max(low, 0), big + max(high, 0)):
        inside = 0 <= b < big
        color = "#4c8dcc55" if inside else "none"
        style = {"facecolor": color, "edgecolor": "#4c8dcc", "linestyle": "-" if inside else ":"}
        axis.add_patch(plt.Rectangle((b, 0), 1, 0.9, **style))
        axis.text(b + 0.5, 0.45, b if inside else "", ha="center", va="center", fontsize=9)
    for q in range(small):
        start = q * w.stride[0] - low
        ends = [start + 0.15, start + w.span[0] - 0.15]
        axis.plot(ends, [-q - 0.6] * 2, color="#888888", zorder=1)
        for t in range(w.kernel[0]):
            corner = (start + t * w.dilation[0] + 0.15, -q - 0.9)
            axis.add_patch(plt.Rectangle(corner, 0.7, 0.6, facecolor="#e8923a", zorder=2))
        axis.text(start - 0.2, -q - 0.6, f"y[{q}]", ha="right", va="center", fontsize=9)
    axis.set(xlim=(-4.2, 11.5), ylim=(-small - 0.3, 1.2))
    axis.set_aspect("equal", anchor="W")
    axis.axis("off")
