"""The documentation site: whole, linked, silent towards other hosts, and readable on every screen."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag, urlsplit

import browser
import numpy as np
import pytest

import jdeconv

pytest.importorskip("myst_nb")

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site that JDECONV_SITE names, or one built here without running its notebooks."""
    if "JDECONV_SITE" in os.environ:
        return Path(os.environ["JDECONV_SITE"])
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-D", "nb_execution_mode=off"]
    built = subprocess.run([*command, str(DOCS), str(folder)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
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
    sources = {p for p in sources if p.parts[0] not in ("_build", "examples")}
    assert sources <= {p.relative_to(site) for p in pages}
    assert len(sources) > 30


def test_links_inside_of_the_site_lead_somewhere(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            if urlsplit(target).scheme or target.startswith("//"):
                continue  # another host's
            there = (path.parent / unquote(target)).resolve() if target else path
            missing = there not in pages and not there.is_file()
            lost = anchor and there in pages and unquote(anchor) not in pages[there].ids
            settings = there.name == "figure.html" and anchor.startswith("i=")
            if missing or (lost and not settings):
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
    """Each name that is taken out of the pages, one at a time, is named by a warning of the build."""
    monkeypatch.syspath_prepend(str(DOCS))
    from extensions import complete

    connected, told = {}, []
    complete.setup(SimpleNamespace(connect=connected.__setitem__))
    monkeypatch.setattr(
        "sphinx.util.logging.getLogger",
        lambda _: SimpleNamespace(warning=lambda text, name: told.append(name)),
    )
    names = list(complete.public_names())
    assert {"jdeconv.conv", "jdeconv.compat.caffe.Convolution.forward"} <= set(names)
    for missing in (None, "jdeconv.conv", "jdeconv.Window.of_conv", "jdeconv.compat.onnx.Conv"):
        domain = SimpleNamespace(objects={name for name in names if name != missing})
        told.clear()
        connected["env-check-consistency"](
            None, SimpleNamespace(get_domain=lambda _, found=domain: found)
        )
        assert told == ([] if missing is None else [missing])


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


def test_chinese_pages_run_the_same_code():
    """All but its comments and docstrings."""

    def code(path):
        cells = re.findall(r"```\{code-cell\} python\n(.*?)```", path.read_text(), re.S)
        cells = [re.sub(r'""".*?"""|#.*', "", cell) for cell in cells]
        return [re.sub(r"\s+\n", "\n", cell) for cell in cells]

    names = [path.name for path in (DOCS / "zh").glob("*.md") if path.name != "index.md"]
    assert len(names) > 1
    for name in names:
        english, chinese = (code(DOCS / folder / name) for folder in ("tutorials", "zh"))
        assert english == chinese
        assert len(english) > 8


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as started, browser.chromium(started) as found:
        yield found


@pytest.fixture
def expect(chromium):
    """Playwright's assertions, which wait."""
    return pytest.importorskip("playwright.sync_api").expect


@pytest.fixture(scope="module")
def address(site):
    with browser.served(site) as found:
        yield found


FONTS = """document.fonts.ready.then((fonts) =>
  [...fonts].filter((font) => font.status === "loaded").map((font) => font.family.replaceAll('"', "")))"""


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
        assert "KaTeX_Main" in page.evaluate(FONTS)


# ---- the figure

LETTERS = {"big": "i", "kernel": "k", "stride": "s", "padding": "p", "dilation": "d"}
STEPS = ("stride", "padding", "dilation")


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


def windows(size, kernel, **steps):
    """How many windows fit on one axis; 0 where none does."""
    try:
        return jdeconv.Window.of_conv((size,), (kernel,), **steps).small[0]
    except ValueError:
        return 0


def output_padding(w, steps):
    """That with which a deconv returns to the big side."""
    for extra in itertools.product(*map(range, w.stride)):
        try:
            if jdeconv.Window.of_deconv(w.small, w.kernel, output_padding=extra, **steps) == w:
                return list(extra)
        except ValueError:
            continue
    raise AssertionError(f"no output_padding leads to {w}")


def truth(case, x, kernel, y):
    """What the library says of these settings: sizes, and the values for these arrays."""
    steps = {name: case[name] for name in STEPS}
    try:
        w = jdeconv.Window.of_conv(case["big"], case["kernel"], **steps)
    except ValueError:
        return None
    axes = [{name: case[name][axis] for name in ("kernel", *STEPS)} for axis in range(w.rank)]
    geometry = {"stride": w.stride, "dilation": w.dilation, "low": w.low}
    x, kernel, y = (
        np.array(values[: np.prod(sizes)], float).reshape(1, 1, *sizes)
        for values, sizes in zip((x, kernel, y), (w.big, w.kernel, w.small), strict=True)
    )
    basis = np.eye(x.size).reshape(-1, 1, *w.big)
    matrix = jdeconv.testing.conv_loops(basis, kernel, w.small, **geometry)
    ax = jdeconv.testing.conv_loops(x, kernel, w.small, **geometry)
    aty = jdeconv.testing.deconv_loops(y, kernel, w.big, **geometry)
    return {
        "small": list(w.small),
        "high": list(w.high),
        "sizes": [
            [size for size in range(1, 60) if windows(size, **axis) == small]
            for axis, small in zip(axes, w.small, strict=True)
        ],
        "outputPadding": output_padding(w, steps),
        "ax": ax.ravel().tolist(),
        "aty": aty.ravel().tolist(),
        "matrix": matrix.reshape(len(basis), -1).T.tolist(),
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
      outputPadding: w.axes.map((a) => a.outputPadding), ax, aty,
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
    for case, figure, library in zip(cases, found, expected, strict=True):
        assert figure == library, case
    assert 20 < sum(e is None for e in expected) < 200


def test_the_loops_above_are_the_librarys_own(rng):
    values = [rng.integers(-4, 5, 400) for _ in range(3)]
    for case in settings(12, 7):
        expected = truth(case, *values)
        if expected is None:
            continue
        steps = {name: case[name] for name in STEPS}
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


def part(page, name):
    return page.locator(f'[data-part="{name}"]')


def text(page, name):
    return part(page, name).inner_text()


def lit(page, name, kind):
    return part(page, name).locator(f".cell.{kind}[data-lit]").count()


def at(page, name, choice):
    return part(page, name).locator(f"[data-choice='{choice}']")


def focused(page):
    return page.evaluate("document.activeElement.dataset.choice")


def test_hovering_lights_the_partners_in_every_view(figure):
    assert figure.locator("#figure [data-lit]").count() == 0
    at(figure, "gather", '{"q":2}').hover()
    assert [lit(figure, name, kind) for name in ("gather", "scatter") for kind in "xy"] == [
        3,
        1,
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
    at(figure, "matrix", '{"q":0,"b":7}').hover()
    assert "A[0][7] = 0" in text(figure, "sentence")
    figure.mouse.move(2, 2)
    assert figure.locator("#figure [data-lit]").count() == 0


def test_sliders_change_the_window_and_the_link(figure, expect):
    slide(figure, "big0", 7)
    assert "x is 7, y is 4." in text(figure, "shapes")
    assert "output_padding" not in text(figure, "calls")
    expect(figure).to_have_url(re.compile("#i=7&k=3&s=2&p=1&d=1$"))
    slide(figure, "outputPadding0", 1)
    assert "x is 8, y is 4." in text(figure, "shapes")
    assert "x = deconv(y, kernel, stride=2, padding=1, output_padding=1)" in text(figure, "calls")
    slide(figure, "stride0", 3)
    assert "share one answer, 3: 7 8 9" in text(figure, "sizes").replace("\n", " ")
    figure.locator('[data-size="0:9"]').click()
    assert "x is 9, y is 3." in text(figure, "shapes")
    assert text(figure, "inner-left") == text(figure, "inner-right")


def test_what_no_conv_has_is_said(figure, address):
    slide(figure, "padding0", 0)
    slide(figure, "big0", 2)
    assert "the kernel spans 3, the padded input has 0 + 2 + 0" in text(figure, "error")
    assert not part(figure, "gather").is_visible()
    slide(figure, "big0", 5)
    assert part(figure, "gather").is_visible()
    figure.goto(address + "start.html")
    figure.goto(address + "figure.html#i=2&k=3&s=1&p=0&d=1", wait_until="load")
    assert "the kernel spans 3" in text(figure, "error")
    assert figure.locator('[data-setting="outputPadding0"]').is_disabled()


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


def test_links_carry_the_settings(figure, address, expect):
    links = figure.locator('a[href^="#i="]')
    assert links.count() == 8
    for number in range(links.count()):
        link = links.nth(number)
        link.click()
        link.click()  # a second time too
        numbers = dict(pair.split("=") for pair in link.get_attribute("href")[1:].split("&"))
        for name, letter in LETTERS.items():
            found = [
                figure.locator(f'[data-setting="{name}{axis}"]').input_value()
                for axis in range(len(numbers["i"].split(",")))
            ]
            assert found == numbers[letter].split(",")
    assert "x is 5 × 4, y is 3 × 3." in text(figure, "shapes")
    assert part(figure, "matrix").locator(".cell").count() == 9 * 20
    figure.go_back()
    figure.go_back()
    expect(part(figure, "shapes")).to_have_text("x is 12, y is 12.")
    for hopeless in ("#i=99&k=3&s=2&p=1&d=1", "#i=8&k=3&s=2&p=&d=1", "#what-to-look-for"):
        figure.goto(address + "start.html")
        figure.goto(address + "figure.html" + hopeless, wait_until="load")
        assert "x is 8, y is 4." in text(figure, "shapes")
        assert figure.url.endswith(hopeless)


def test_copy_link(chromium, address, expect):
    with browser.page(chromium, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(address + "figure.html#what-to-look-for", wait_until="load")
        slide(page, "kernel0", 4)
        part(page, "copy").click()
        expect(part(page, "copy")).to_have_text("Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == address + "figure.html#i=8&k=4&s=2&p=1&d=1"


def test_keys_walk_the_cells_and_change_their_values(figure):
    at(figure, "gather", '{"b":0}').focus()
    figure.keyboard.press("ArrowRight")
    figure.keyboard.press("ArrowRight")
    assert "A′y[2]" in text(figure, "sentence")
    before = text(figure, "inner-left")
    figure.keyboard.press("Control+=")  # the browser's
    assert text(figure, "inner-left") == before
    figure.keyboard.press("+")
    assert focused(figure) == '{"b":2}'
    assert "conv reads x[2] = 6" in text(figure, "sentence")
    assert text(figure, "inner-left") == text(figure, "inner-right") != before
    figure.keyboard.press("ArrowDown")
    assert "Ax[1]" in text(figure, "sentence")
    for _ in range(9):
        figure.keyboard.press("ArrowRight")
    assert focused(figure) == '{"q":3}'  # the row's last
    figure.keyboard.press("Escape")
    assert figure.locator("#figure [data-lit]").count() == 0
    figure.keyboard.press("Enter")
    assert lit(figure, "gather", "y") == 1
    figure.keyboard.press("Tab")
    figure.keyboard.press("Shift+Tab")
    assert focused(figure) == '{"q":3}'  # where the view was left
    part(figure, "reset").click()
    assert text(figure, "inner-left") == before


def test_a_finger_chooses_and_lets_go(chromium, address):
    options = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    with browser.page(chromium, **options) as page:
        page.goto(address + "figure.html", wait_until="load")
        at(page, "scatter", '{"b":4}').tap()
        assert lit(page, "scatter", "y") == lit(page, "gather", "y") == 1
        before = text(page, "inner-left")
        part(page, "more").tap()  # A'y is a result
        assert "its value can be changed" in text(page, "sentence")
        assert text(page, "inner-left") == before
        at(page, "scatter", '{"b":4}').tap()
        assert page.locator("#figure [data-lit]").count() == 0
        page.locator('[data-rank="2"]').tap()
        at(page, "kernel", '{"t":5}').tap()
        before = text(page, "inner-left")
        part(page, "more").tap()
        assert text(page, "inner-left") == text(page, "inner-right") != before
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
