"""The documentation site: whole, linked, silent towards other hosts, and readable on every screen."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import browser
import numpy as np
import pytest

import jdeconv

sphinx = pytest.importorskip("sphinx")
pytest.importorskip("myst_nb")

DOCS = Path(__file__).parents[1] / "docs"
LANGUAGE_PAIRS = ("pair", "backprop")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site that JDECONV_SITE names, or one built here without running its notebooks."""
    if "JDECONV_SITE" in os.environ:
        return Path(os.environ["JDECONV_SITE"])
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-D", "nb_execution_mode=off"]
    subprocess.run([*command, str(DOCS), str(folder)], check=True, capture_output=True)
    return folder


class Links(HTMLParser):
    """What a page has as anchors, links to, and loads."""

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        loading = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
        if tag in loading and loading[tag] in found:
            self.loads.append(found[loading[tag]])


@pytest.fixture(scope="module")
def pages(site):
    found = {}
    for path in site.rglob("*.html"):
        if "_static" not in path.parts:
            found[path] = Links()
            found[path].feed(path.read_text())
    return found


def test_every_page_is_there(site, pages):
    sources = {p.relative_to(DOCS).with_suffix(".html") for p in DOCS.rglob("*.md")}
    sources = {p for p in sources if "_build" not in p.parts}
    assert sources <= {p.relative_to(site) for p in pages}
    assert len(sources) > 30


def test_links_inside_of_the_site_lead_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            if urlsplit(target).scheme or "=" in anchor or target.startswith("//"):
                continue  # another host's, or settings of the figure
            there = (path.parent / unquote(target)).resolve() if target else path
            missing = there not in pages and not there.is_file()
            lost = anchor and there in pages and unquote(anchor) not in pages[there].ids
            if missing or lost:
                broken.append((path.name, link))
    assert broken == []


def test_no_page_loads_anything_from_another_host(site, pages):
    loads = [(path.name, load) for path, page in pages.items() for load in page.loads]
    assert len(loads) > 100
    assert [pair for pair in loads if urlsplit(pair[1]).netloc] == []
    styles = [
        p for p in site.rglob("*.css") if re.search(r"url\(['\"]?(https?:)?//", p.read_text())
    ]
    assert styles == []


def test_a_name_without_an_api_page_is_told(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    from extensions import complete

    pages = "".join(p.read_text() for p in (DOCS / "api").glob("*.md"))
    names = [n for n in complete.public_names() if n.count(".") == 1 and n[8].islower()]
    assert "jdeconv.conv" in names
    assert [name for name in names if f"autofunction:: {name}\n" not in pages] == []
    monkeypatch.setattr(jdeconv, "__all__", [*jdeconv.__all__, "__version__"])
    assert "jdeconv.__version__" in set(complete.public_names())


def test_public_functions_have_an_example_that_runs(monkeypatch):
    """Doctests themselves are run with the other tests."""
    monkeypatch.syspath_prepend(str(DOCS))
    from extensions import complete

    without = []
    for name in complete.public_names():
        value = jdeconv
        for part in name.split(".")[1:]:
            value = getattr(value, part)
        owner = name.rsplit(".", 1)[0].rsplit(".", 1)[-1]
        made_by_load = name == "jdeconv.compat.caffe.Net"
        if not owner[0].isupper() and not made_by_load and ">>>" not in (value.__doc__ or ""):
            without.append(name)
    assert without == []


def test_notebooks_keep_no_outputs():
    assert [p for p in DOCS.rglob("*.ipynb") if "_build" not in p.parts] == []


def test_chinese_pages_run_the_same_code():
    """All but their comments, docstrings and titles."""

    def code(path):
        cells = re.findall(r"```\{code-cell\} python\n(.*?)```", path.read_text(), re.S)
        cells = [re.sub(r'"[^"\n]*"|#.*', "", cell.replace('"""', '"')) for cell in cells]
        return [re.sub(r"\s+\n", "\n", cell) for cell in cells]

    for name in LANGUAGE_PAIRS:
        english, chinese = (code(DOCS / folder / f"{name}.md") for folder in ("tutorials", "zh"))
        assert english == chinese
        assert len(english) > 8


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as started, browser.chromium(started) as found:
        yield found


@pytest.fixture(scope="module")
def address(site):
    with browser.served(site) as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_the_screen(chromium, address, site, pages, width, scheme):
    """Nothing wider than the window, nothing asked of other hosts, formulas rendered, no complaint."""
    with browser.page(
        chromium, viewport={"width": width, "height": 900}, color_scheme=scheme
    ) as page:
        for path in sorted(pages):
            name = path.relative_to(site).as_posix()
            page.goto(address + name, wait_until="load")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert page.evaluate("document.documentElement.dataset.theme") == scheme
            assert page.locator(".katex-error").count() == 0, name
        assert [url for url in page.requested if not url.startswith((address, "data:"))] == []
        page.goto(address + "index.html", wait_until="load")
        assert page.locator(".katex").count() > 3
        assert page.evaluate(
            "document.fonts.ready.then(() => document.fonts.check('1em KaTeX_Main'))"
        )


# ---- the figure

LETTERS = {"big": "i", "kernel": "k", "stride": "s", "padding": "p", "dilation": "d"}


def settings(count, seed):
    """Random settings of one axis or two, some of which no conv has."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rank = int(rng.integers(1, 3))
        limits = {"big": 9, "kernel": 5, "stride": 4, "padding": 4, "dilation": 3}
        yield {
            name: rng.integers(0 if name == "padding" else 1, limit + 1, rank).tolist()
            for name, limit in limits.items()
        }


def truth(s, x, kernel, y):
    """What the library says of these settings: sizes, and the values for these arrays."""
    steps = {name: s[name] for name in ("stride", "padding", "dilation")}
    try:
        w = jdeconv.Window.of_conv(s["big"], s["kernel"], **steps)
    except ValueError:
        return None
    rank = w.rank
    default = jdeconv.Window.of_kernel_grad(s["big"], w.small, s["kernel"], **steps)
    least = [full - 2 * p for full, p in zip(w.full, s["padding"], strict=True)]
    geometry = {"stride": w.stride, "dilation": w.dilation, "low": w.low}
    basis = np.eye(np.prod(w.big)).reshape(-1, 1, *w.big)
    arrays = [
        np.array(a[: np.prod(n)], float) for a, n in ((x, w.big), (kernel, w.kernel), (y, w.small))
    ]
    x, kernel, y = (
        a.reshape(1, 1, *n) for a, n in zip(arrays, (w.big, w.kernel, w.small), strict=True)
    )
    ax = jdeconv.testing.conv_loops(x, kernel, w.small, **geometry)
    aty = jdeconv.testing.deconv_loops(y, kernel, w.big, **geometry)
    return {
        "small": list(w.small),
        "high": list(default.high),
        "sizes": [
            [n for n in range(a, a + st) if n > 0] for a, st in zip(least, w.stride, strict=True)
        ],
        "outputPadding": [b - a for a, b in zip(least, s["big"], strict=True)],
        "rank": rank,
        "ax": ax.ravel().tolist(),
        "aty": aty.ravel().tolist(),
        "matrix": jdeconv.testing.conv_loops(basis, kernel, w.small, **geometry)
        .reshape(len(basis), -1)
        .T.tolist(),
        "inner": float((ax * y).sum()),
    }


SCRIPT = """([all, x, kernel, y]) => all.map((settings) => {
  try {
    const w = Arithmetic.window(settings);
    const take = (a, sizes) => a.slice(0, Arithmetic.count(sizes));
    const k = take(kernel, w.kernel);
    const ax = Arithmetic.conv(w, take(x, w.big), k);
    const aty = Arithmetic.deconv(w, take(y, w.small), k);
    return {
      small: w.small, high: w.axes.map((a) => a.high), sizes: w.axes.map((a) => a.sizes),
      outputPadding: w.axes.map((a) => a.outputPadding), rank: w.axes.length, ax, aty,
      matrix: Arithmetic.matrix(w).map((row) => row.map((t) => t === null ? 0 : k[t])),
      inner: Arithmetic.inner(aty, take(x, w.big)),
    };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return null;
  }
})"""


def test_the_figure_computes_what_the_library_computes(chromium, address, rng):
    values = [rng.integers(-4, 5, 400).tolist() for _ in range(3)]
    cases = list(settings(400, 20261123))
    expected = [truth(case, *values) for case in cases]
    with browser.page(chromium) as page:
        page.goto(address + "figure.html", wait_until="load")
        found = page.evaluate(SCRIPT, [cases, *values])
    for case, ours, theirs in zip(cases, found, expected, strict=True):
        assert ours == theirs, case
    assert 20 < sum(e is None for e in expected) < 200


def test_the_loops_above_are_the_librarys_own(rng):
    values = [rng.integers(-4, 5, 400) for _ in range(3)]
    for case in settings(12, 7):
        expected = truth(case, *values)
        if expected is None:
            continue
        steps = {name: case[name] for name in ("stride", "padding", "dilation")}
        shapes = (case["big"], case["kernel"], expected["small"])
        arrays = [v[: np.prod(n)].reshape(1, 1, *n) for v, n in zip(values, shapes, strict=True)]
        y = jdeconv.conv(*arrays[:2], **steps)
        x = jdeconv.deconv(arrays[2], arrays[1], output_size=case["big"], **steps)
        assert y.ravel().tolist() == expected["ax"]
        assert x.ravel().tolist() == expected["aty"]


@pytest.fixture
def figure(chromium, address):
    with browser.page(chromium, viewport={"width": 1280, "height": 1000}) as page:
        page.goto(address + "figure.html", wait_until="load")
        yield page


def slide(page, setting, value):
    page.locator(f'[data-setting="{setting}"]').fill(str(value))


def text(page, part):
    return page.locator(f'[data-part="{part}"]').inner_text()


def lit(page, part, kind):
    return page.locator(f'[data-part="{part}"] .cell.{kind}[data-lit]').count()


def at(page, part, choice):
    return page.locator(f"[data-part=\"{part}\"] [data-choice='{choice}']").first


def test_hovering_lights_the_partners_in_every_view(figure):
    assert figure.locator("#figure [data-lit]").count() == 0
    at(figure, "gather", '{"q":2}').hover()
    assert [lit(figure, part, kind) for part, kind in (("gather", "x"), ("gather", "y"))] == [3, 1]
    assert [lit(figure, part, kind) for part, kind in (("scatter", "x"), ("scatter", "y"))] == [
        3,
        1,
    ]
    assert lit(figure, "matrix", "entry") == lit(figure, "transpose", "entry") == 3
    assert lit(figure, "kernel", "tap") == 3
    assert figure.locator("#figure line[data-lit]").count() == 6
    assert "Ax[2] = 1·3 + 2·1 + 3·(-1) = 2" in text(figure, "sentence")
    at(figure, "kernel", '{"t":0}').hover()
    assert lit(figure, "matrix", "entry") == 3  # the first window's tap 0 is on the padding
    at(figure, "transpose", '{"q":1,"b":3}').hover()
    assert "A[1][3] = kernel[2] = 3" in text(figure, "sentence")
    figure.mouse.move(2, 2)
    assert figure.locator("#figure [data-lit]").count() == 0


def test_sliders_change_the_window_and_the_link(figure):
    slide(figure, "big0", 7)
    assert "x is 7, y is 4." in text(figure, "shapes")
    assert "output_padding" not in text(figure, "calls")
    assert figure.url.endswith("#i=7&k=3&s=2&p=1&d=1")
    slide(figure, "outputPadding0", 1)
    assert "x is 8, y is 4." in text(figure, "shapes")
    assert "x = deconv(y, kernel, stride=2, padding=1, output_padding=1)" in text(figure, "calls")
    slide(figure, "stride0", 3)
    assert "share one answer, 3: 7 8 9" in text(figure, "sizes").replace("\n", " ")
    figure.locator('[data-size="0:9"]').click()
    assert "x is 9, y is 3." in text(figure, "shapes")
    assert text(figure, "inner-left") == text(figure, "inner-right")
    slide(figure, "padding0", 0)
    slide(figure, "big0", 2)
    assert "the kernel spans 3, the padded input has 0 + 2 + 0" in text(figure, "error")
    assert not figure.locator('[data-part="gather"]').is_visible()
    slide(figure, "big0", 5)
    assert figure.locator('[data-part="gather"]').is_visible()


def test_a_slider_can_be_dragged_all_the_way(figure):
    box = figure.locator('[data-setting="big0"]').bounding_box()
    middle = box["y"] + box["height"] / 2
    figure.mouse.move(box["x"] + box["width"] / 2, middle)
    figure.mouse.down()
    for step in range(10):
        figure.mouse.move(box["x"] + box["width"] * (0.5 + 0.05 * step), middle)
    figure.mouse.move(box["x"] + box["width"] + 5, middle)
    figure.mouse.up()
    assert "x is 16, y is 8." in text(figure, "shapes")


def test_links_carry_the_settings(figure, address):
    figure.goto(address + "figure.html#i=5,4&k=3,2&s=2,1&p=1,0&d=1,1")
    figure.reload(wait_until="load")
    assert "x is 5 × 4, y is 3 × 3." in text(figure, "shapes")
    assert figure.locator('[data-part="matrix"] .cell').count() == 9 * 20
    figure.locator("a", has_text="Kernel 2, stride 2").click()
    assert "x is 8, y is 4." in text(figure, "shapes")
    figure.goto(address + "figure.html#i=99&k=3&s=2&p=1&d=1")  # out of reach: the default instead
    figure.reload(wait_until="load")
    assert "x is 8, y is 4." in text(figure, "shapes")


def test_keys_walk_the_cells_and_change_their_values(figure):
    at(figure, "gather", '{"b":0}').focus()
    figure.keyboard.press("ArrowRight")
    figure.keyboard.press("ArrowRight")
    assert "A′y[2]" in text(figure, "sentence")
    before = text(figure, "inner-left")
    figure.keyboard.press("+")
    assert figure.evaluate("document.activeElement.dataset.choice") == '{"b":2}'
    assert "conv reads x[2] = 6" in text(figure, "sentence")
    assert text(figure, "inner-left") == text(figure, "inner-right") != before
    figure.keyboard.press("ArrowDown")
    assert "Ax[1]" in text(figure, "sentence")
    figure.keyboard.press("Escape")
    assert figure.locator("#figure [data-lit]").count() == 0
    figure.locator('[data-part="reset"]').click()
    assert text(figure, "inner-left") == before


def test_a_finger_chooses_and_lets_go(chromium, address):
    options = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    with browser.page(chromium, **options) as page:
        page.goto(address + "figure.html", wait_until="load")
        at(page, "scatter", '{"b":4}').tap()
        assert lit(page, "scatter", "y") == lit(page, "gather", "y") == 1
        page.locator('[data-part="more"]').tap()
        at(page, "scatter", '{"b":4}').tap()
        assert page.locator("#figure [data-lit]").count() == 0
        page.locator('[data-rank="2"]').tap()
        at(page, "kernel", '{"t":5}').tap()
        before = text(page, "inner-left")
        page.locator('[data-part="more"]').tap()
        assert text(page, "inner-left") == text(page, "inner-right") != before
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
