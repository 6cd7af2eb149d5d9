"""The documentation site: whole, linked, silent towards other hosts, and readable on every screen."""

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag, urlsplit

import browser
import pytest

import jdeconv

pytest.importorskip("myst_nb")

DOCS = Path(__file__).parents[1] / "docs"


class Links(HTMLParser):
    """What a page has as anchors, links to, and loads."""

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.loads, self.tags = set(), [], [], {}

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "meta" and "content" in found:
            self.tags[found.get("name", found.get("property"))] = found["content"]
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


def test_links_have_a_text():
    """Sphinx fills in the title of the page, but a reader of the Markdown sees nothing."""
    empty = [path.name for path in DOCS.rglob("*.md") if "[](" in path.read_text()]
    assert empty == []


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


def test_pages_describe_themselves_to_those_who_link_to_them(site, pages):
    without_text = ("genindex", "search", "py-modindex")
    for path, page in pages.items():
        if path.stem in without_text:
            continue
        assert 20 < len(page.tags["description"]) < 260, path
        assert page.tags["og:description"][:20] == page.tags["description"][:20]
        assert page.tags["og:title"]
        assert (path.parent / page.tags["og:image"]).resolve() == site / "_static" / "preview.png"
    assert (site / "_static" / "preview.png").stat().st_size < 200_000


def test_no_markup_is_left_in_the_text(pages):
    """Such as a fence of three backticks on one line, which becomes a piece of code."""
    for path in pages:
        assert "{admonition}" not in path.read_text(), path
        assert "```" not in path.read_text(), path


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


FONTS = """document.fonts.ready.then((fonts) =>
  [...fonts].filter((font) => font.status === "loaded").map((font) => font.family.replaceAll('"', "")))"""


# What begins left of the window, or ends right of it with nothing around it that scrolls; what is wider than
# its box.
CUT_OFF = """(() => {
  const kinds = ["p", "pre", "table", "svg", "img", ".katex-display", "button", "code"];
  const scrolls = (e) => /auto|scroll/.test(getComputedStyle(e).overflowX);
  const found = [...document.querySelectorAll(kinds.map((kind) => "article " + kind))].filter((e) => {
    const { left, right, width } = e.getBoundingClientRect();
    if (width === 0 || (left >= 0 && right <= innerWidth)) return false;
    for (let p = e.parentElement; p.tagName !== "ARTICLE"; p = p.parentElement) {
      if (left >= p.getBoundingClientRect().left && scrolls(p)) return false;
    }
    return true;
  });
  const titles = [...document.querySelectorAll("article :is(h1, h2, h3, dt), .prev-next-info")];
  const wide = titles.filter((e) => e.scrollWidth > e.clientWidth && e.clientWidth > 0);
  return [...found, ...wide].map((e) => e.outerHTML.slice(0, 200));
})()"""

# The theme puts a light ground behind the outputs of cells in dark mode, which pictures here must not have.
ON_A_GROUND = """[...document.querySelectorAll(".text_html:has(.picture), .picture img")].filter((e) =>
  getComputedStyle(e).backgroundColor !== "rgba(0, 0, 0, 0)").length"""


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
            assert page.evaluate(CUT_OFF) == [], name
            assert page.evaluate(ON_A_GROUND) == 0, name
        assert [url for url in page.requested if not url.startswith((address, "data:"))] == []
        page.goto(address + "figure.html", wait_until="load")
        assert page.locator(".katex").count() > 3
        assert "KaTeX_Main" in page.evaluate(FONTS)


@pytest.mark.parametrize(
    "words", ["conv_transpose", "transposed convolution", "deconvolution", "transposed conv"]
)
def test_every_name_of_a_deconv_leads_to_its_explanation(chromium, address, expect, words):
    with browser.page(chromium) as page:
        page.goto(f"{address}search.html?q={words}", wait_until="load")
        first = page.locator("#search-results li a").first
        expect(first).to_have_attribute("href", re.compile(r"^glossary\.html#term-"))
        for name in ("index", "figure"):
            found = page.locator(f"#search-results li a[href^='{name}.html']")
            expect(found.first).to_be_visible()
        first.click()
        expect(page.locator(":target")).to_be_in_viewport()
