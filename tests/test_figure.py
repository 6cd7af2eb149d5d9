"""The interactive figure: its numbers are the library's; it plays, steps, and follows keys and touch."""

import itertools
import re

import browser
import numpy as np
import pytest

import jdeconv

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
    geometry = {"stride": w.stride, "dilation": w.dilation}
    x, kernel, y = (
        np.array(values[: np.prod(sizes)], float).reshape(1, 1, *sizes)
        for values, sizes in zip((x, kernel, y), (w.big, w.kernel, w.small), strict=True)
    )
    basis = np.eye(x.size).reshape(-1, 1, *w.big)
    matrix = jdeconv.testing.conv_loops(basis, kernel, w.small, low=w.low, **geometry)
    conv = jdeconv.testing.conv_loops(x, kernel, w.small, low=w.low, **geometry)
    deconv = jdeconv.testing.deconv_loops(y, kernel, w.big, low=w.low, **geometry)
    wide = [low + big + max(0, high) for low, big, high in zip(w.low, w.big, w.high, strict=True)]
    uncropped = jdeconv.testing.deconv_loops(y, kernel, wide, low=(0,) * w.rank, **geometry)
    return {
        "small": list(w.small),
        "high": list(w.high),
        "sizes": [
            [size for size in range(1, 60) if windows(size, **axis) == small]
            for axis, small in zip(axes, w.small, strict=True)
        ],
        "outputPadding": output_padding(w, steps),
        "conv": conv.ravel().tolist(),
        "deconv": deconv.ravel().tolist(),
        "overZeros": deconv.ravel().tolist(),
        "uncropped": uncropped.ravel().tolist(),
        "matrix": matrix.reshape(len(basis), -1).T.tolist(),
        "inner": float((conv * y).sum()),
    }


SCRIPT = """([all, x, kernel, y]) => all.map((settings) => {
  try {
    const w = Arithmetic.window(settings);
    const take = (a, sizes) => a.slice(0, Arithmetic.count(sizes));
    const k = take(kernel, w.kernel);
    const deconv = Arithmetic.deconv(w, take(y, w.small), k);
    return {
      small: w.small, high: w.axes.map((a) => a.high), sizes: w.axes.map((a) => a.sizes),
      outputPadding: w.axes.map((a) => a.outputPadding),
      conv: Arithmetic.conv(w, take(x, w.big), k), deconv,
      overZeros: Arithmetic.overZeros(w, take(y, w.small), k),
      uncropped: Arithmetic.uncropped(w, take(y, w.small), k),
      matrix: Arithmetic.matrix(w).map((row) => row.map((t) => t === null ? 0 : k[t])),
      inner: Arithmetic.inner(deconv, take(x, w.big)),
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
        assert y.ravel().tolist() == expected["conv"]
        assert x.ravel().tolist() == expected["deconv"]


@pytest.fixture
def figure(chromium, address):
    with browser.page(chromium, viewport={"width": 1280, "height": 1000}) as page:
        page.clock.install()
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


def shown(page, name, kind):
    """The numbers in the cells of a picture, in their order; None where a cell is empty."""
    texts = part(page, name).locator(f".cell.{kind} > .value").all_text_contents()
    return [int(text) if text else None for text in texts]


def link(case):
    settings = (f"{letter}={','.join(map(str, case[name]))}" for name, letter in LETTERS.items())
    return "#" + "&".join(settings)


def test_the_pictures_show_these_numbers(figure, address):
    """For all settings within reach among some: both results, and the cropped cells."""
    cases = [case for case in settings(60, 5) if len(case["big"]) == 1 and max(case["kernel"]) < 6]
    count = 0
    for case in cases:
        figure.goto("about:blank")
        figure.goto(address + "figure.html" + link(case), wait_until="load")
        if text(figure, "error"):
            continue
        x, kernel, y = (
            shown(figure, "gather", "x"),
            shown(figure, "kernel", "tap"),
            shown(figure, "scatter", "y"),
        )
        expected = truth(case, x, kernel, y)
        assert shown(figure, "gather", "y") == expected["conv"]
        assert (
            shown(figure, "scatter", "x") == shown(figure, "insertion", "x") == expected["deconv"]
        )
        low = case["padding"][0]
        outside = expected["uncropped"][:low] + expected["uncropped"][low + case["big"][0] :]
        assert shown(figure, "scatter", "cropped") == outside
        assert (
            int(text(figure, "inner-left")) == int(text(figure, "inner-right")) == expected["inner"]
        )
        count += 1
    assert count > 12


def test_it_steps_and_the_sums_accumulate(figure):
    assert "2 of 4" in text(figure, "progress")
    part(figure, "next").click()
    assert shown(figure, "gather", "y")[3] is None
    assert "conv(x)[2] = 1·3 + 2·1 + 3·(-1) + 4·4 = 18." in text(figure, "sentence")
    assert "y[2] = 2 adds 2·1 = 2 to cell 3, 2·2 = 4 to cell 4" in text(figure, "sentence")
    part(figure, "next").click()
    whole = shown(figure, "gather", "y"), shown(figure, "scatter", "x")
    assert None not in whole[0]
    assert "1 product on the padding is cropped." in text(figure, "sentence")
    part(figure, "next").click()  # from the last to the first
    assert shown(figure, "gather", "y")[1:] == [None] * 3
    assert shown(figure, "scatter", "x") == [2, 3, 4, 0, 0, 0, 0, 0]
    assert shown(figure, "scatter", "cropped") == [1, 0]
    part(figure, "back").click()
    assert (shown(figure, "gather", "y"), shown(figure, "scatter", "x")) == whole
    figure.locator('[data-walk="b"]').click()
    assert shown(figure, "insertion", "x")[1:] == [None] * 7
    part(figure, "next").click()
    assert shown(figure, "insertion", "x")[:2] == whole[1][:2]
    assert "2 of 4 products have a zero; the rest are the same." in text(figure, "sentence")
    assert shown(figure, "insertion", "stamp") == [4, 3, 2, 1]
    assert "2 of 8" in text(figure, "progress")


def test_it_plays(figure, expect):
    """From the cell at hand to the last, and then from the first."""
    part(figure, "play").click()
    expect(part(figure, "play")).to_have_text("Pause")
    expect(part(figure, "progress")).to_have_text("3 of 4")
    figure.clock.run_for(1300)
    expect(part(figure, "progress")).to_have_text("4 of 4")
    figure.clock.run_for(1300)
    expect(part(figure, "play")).to_have_text("Play")
    part(figure, "play").click()
    expect(part(figure, "progress")).to_have_text("1 of 4")
    at(figure, "gather", '{"b":3}').click()  # what the reader chooses ends it
    expect(part(figure, "play")).to_have_text("Play")
    figure.clock.run_for(5000)
    assert "conv reads x[3]" in text(figure, "sentence")
    assert None not in shown(figure, "gather", "y")


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_the_kernel_slides_unless_motion_is_unwanted(chromium, address, motion):
    with browser.page(chromium, reduced_motion=motion) as page:
        page.goto(address + "figure.html", wait_until="load")
        seconds = "getComputedStyle(document.querySelector('.ruler')).transitionDuration"
        assert (page.evaluate(seconds) == "0s") == (motion == "reduce")


def test_hovering_lights_the_partners_in_every_view(figure):
    before = text(figure, "sentence")
    at(figure, "gather", '{"q":2}').hover()
    views = ("gather", "scatter", "insertion")
    assert [lit(figure, name, kind) for name in views for kind in "xy"] == [4, 1, 4, 1, 4, 1]
    assert lit(figure, "matrix", "entry") == lit(figure, "transpose", "entry") == 4
    assert lit(figure, "kernel", "tap") == 4
    assert figure.locator("#figure line[data-lit]").count() == 12
    assert "conv(x)[2] = 1·3 + 2·1 + 3·(-1) + 4·4 = 18." in text(figure, "sentence")
    at(figure, "kernel", '{"t":0}').hover()
    assert lit(figure, "matrix", "entry") == 3  # the first window's tap 0 is on the padding
    assert "kernel[0] = 1 connects 3 pairs" in text(figure, "sentence")
    at(figure, "transpose", '{"q":1,"b":3}').hover()
    assert "A[1][3] = kernel[2] = 3" in text(figure, "sentence")
    at(figure, "matrix", '{"q":0,"b":7}').hover()
    assert "A[0][7] = 0" in text(figure, "sentence")
    figure.mouse.move(2, 2)
    assert text(figure, "sentence") == before


def test_sliders_change_the_window_and_the_link(figure, expect):
    slide(figure, "kernel0", 3)
    slide(figure, "big0", 7)
    assert "x is 7, y is 4." in text(figure, "shapes")
    assert "output_padding" not in text(figure, "calls")
    figure.clock.run_for(500)
    expect(figure).to_have_url(re.compile("#i=7&k=3&s=2&p=1&d=1$"))
    slide(figure, "outputPadding0", 1)
    assert "x is 8, y is 4." in text(figure, "shapes")
    assert "deconv(y, kernel, stride=2, padding=1, output_padding=1)" in text(figure, "calls")
    slide(figure, "stride0", 3)
    assert "y of size 3 comes from x of several sizes, and output_padding chooses" in text(
        figure, "sizes"
    )
    assert text(figure, "sizes").split()[-3:] == ["7", "8", "9"]
    figure.locator('[data-size="0:9"]').click()
    assert "x is 9, y is 3." in text(figure, "shapes")
    assert text(figure, "inner-left") == text(figure, "inner-right")


def test_rows_and_columns_are_alike_until_they_are_set_apart(figure):
    figure.locator('[data-rank="2"]').click()
    assert figure.locator("[data-setting]").count() == 6
    slide(figure, "kernel0", 3)
    slide(figure, "big0", 5)
    assert "x is 5 × 5, y is 3 × 3." in text(figure, "shapes")
    assert "output_padding" not in text(figure, "calls")
    slide(figure, "outputPadding0", 1)
    assert "output_padding=(1, 1)" in text(figure, "calls")
    figure.locator('[data-size="0:5"]').click()
    assert "x is 5 × 5" in text(figure, "shapes")
    part(figure, "joined").uncheck()
    assert figure.locator("[data-setting]").count() == 12
    slide(figure, "big1", 4)
    assert "x is 5 × 4" in text(figure, "shapes")
    part(figure, "joined").check()
    assert "x is 5 × 5" in text(figure, "shapes")


def test_layers_that_people_know(figure):
    layers = part(figure, "layers").locator("button")
    for rank in (1, 2):
        figure.locator(f'[data-rank="{rank}"]').click()
        for number in range(layers.count()):
            layer = layers.nth(number)
            layer.click()
            assert layer.get_attribute("aria-pressed") == "true"
            name = layer.inner_text()
            for letter, setting in (("k", "kernel"), ("s", "stride"), ("p", "padding")):
                if wanted := re.search(rf"\b{letter}(\d)", name):
                    found = figure.locator(f'[data-setting="{setting}0"]').input_value()
                    assert found == wanted[1]
            extra = figure.locator('[data-setting="outputPadding0"]').input_value()
            assert (extra == "1") == ("op1" in name)


def test_what_no_conv_has_is_said(figure, address):
    slide(figure, "padding0", 0)
    slide(figure, "big0", 2)
    assert "the kernel spans 4, the padded input has 0 + 2 + 0" in text(figure, "error")
    assert not part(figure, "gather").is_visible()
    figure.keyboard.press("n")  # has nowhere to go
    slide(figure, "big0", 5)
    assert part(figure, "gather").is_visible()
    figure.goto(address + "start.html")
    figure.goto(address + "figure.html#i=2&k=3&s=1&p=0&d=1", wait_until="load")
    assert "the kernel spans 3" in text(figure, "error")
    assert figure.locator('[data-setting="outputPadding0"]').is_disabled()
    part(figure, "layers").locator("button").first.click()
    assert "2 of 4" in text(figure, "progress")


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
    assert links.count() == 9
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
        slide(page, "kernel0", 5)
        part(page, "copy").click()
        expect(part(page, "copy")).to_have_text("Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == address + "figure.html#i=8&k=5&s=2&p=1&d=1"


def test_keys_walk_the_cells_and_change_their_values(figure, expect):
    at(figure, "gather", '{"b":0}').focus()
    figure.keyboard.press("ArrowRight")
    figure.keyboard.press("ArrowRight")
    assert "deconv(y)[2] = " in text(figure, "sentence")
    before = text(figure, "inner-left")
    figure.keyboard.press("Control+=")  # the browser's
    assert text(figure, "inner-left") == before
    figure.keyboard.press("+")
    assert focused(figure) == '{"b":2}'
    assert "conv reads x[2] = 6" in text(figure, "sentence")
    assert text(figure, "inner-left") == text(figure, "inner-right") != before
    figure.keyboard.press("ArrowDown")
    assert "conv(x)[1] = " in text(figure, "sentence")
    for _ in range(9):
        figure.keyboard.press("ArrowRight")
    assert focused(figure) == '{"q":3}'  # the row's last
    figure.keyboard.press("n")
    assert "1 of 4" in text(figure, "progress")
    figure.keyboard.press("b")
    figure.keyboard.press("b")
    assert "3 of 4" in text(figure, "progress")
    figure.keyboard.press("p")
    expect(part(figure, "play")).to_have_text("Pause")
    figure.keyboard.press("p")
    expect(part(figure, "play")).to_have_text("Play")
    figure.keyboard.press("Escape")
    assert None not in shown(figure, "gather", "y")
    figure.keyboard.press("Enter")
    assert "conv(x)[3] = " in text(figure, "sentence")
    figure.keyboard.press("Tab")
    figure.keyboard.press("Shift+Tab")
    assert focused(figure) == '{"q":3}'  # where the view was left
    part(figure, "reset").click()
    assert text(figure, "inner-left") == before


def test_a_finger_chooses_steps_and_plays(chromium, address, expect):
    options = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    with browser.page(chromium, **options) as page:
        page.goto(address + "figure.html", wait_until="load")
        at(page, "scatter", '{"b":4}').tap()
        assert lit(page, "scatter", "y") == lit(page, "gather", "y") == 2
        before = text(page, "inner-left")
        part(page, "more").tap()  # deconv(y) is a result
        assert "its value can be changed" in text(page, "sentence")
        assert text(page, "inner-left") == before
        part(page, "next").tap()
        assert "1 of 4" in text(page, "progress")
        part(page, "play").tap()
        expect(part(page, "play")).to_have_text("Pause")
        page.locator('[data-rank="2"]').tap()
        expect(part(page, "play")).to_have_text("Play")
        at(page, "kernel", '{"t":5}').tap()
        before = text(page, "inner-left")
        part(page, "more").tap()
        assert text(page, "inner-left") == text(page, "inner-right") != before
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("height", [667, 844])
def test_a_phone_shows_a_picture_and_the_sentence_at_once(chromium, address, height):
    """Above everything that can be set; the sentence stays in sight under every picture."""
    with browser.page(chromium, viewport={"width": 390, "height": height}) as page:
        page.goto(address + "figure.html", wait_until="load")
        for name in ("gather", "scatter", "insertion"):
            part(page, name).evaluate("e => e.scrollIntoView({ block: 'center' })")
            box = part(page, "sentence").bounding_box()
            assert 0 < box["y"] < box["y"] + box["height"] <= height
        page.evaluate("scrollTo(0, 0)")
        picture, dock = (
            page.locator(f"#figure .{name}").first.bounding_box() for name in ("view", "dock")
        )
        assert picture["y"] + picture["height"] <= dock["y"]
        assert page.locator("#figure .settings").bounding_box()["y"] >= height
        page.locator('[data-walk="b"]').click()
        picture, dock = (
            part(page, "insertion").bounding_box(),
            page.locator("#figure .dock").bounding_box(),
        )
        assert 0 < picture["y"] < picture["y"] + picture["height"] <= dock["y"]


def test_a_wide_picture_follows_the_steps(chromium, address):
    with browser.page(chromium, viewport={"width": 390, "height": 800}) as page:
        page.goto(address + "figure.html#i=16&k=7&s=1&p=4&d=3", wait_until="load")
        for _ in range(3):
            part(page, "next").click()
        box = at(page, "gather", '{"q":5}').bounding_box()
        assert 0 < box["x"] < box["x"] + box["width"] < 390


def test_the_home_page_moves(chromium, address, expect):
    with browser.page(chromium) as page:
        page.clock.install()
        page.goto(address + "index.html", wait_until="load")
        expect(part(page, "play")).to_have_text("Pause")
        assert shown(page, "gather", "y") == [17, None, None]
        assert shown(page, "scatter", "x") == [1, 2, 3, 0, 0, 0, 0]
        page.clock.run_for(1700)
        assert shown(page, "gather", "y") == [17, 14, None]
        assert shown(page, "scatter", "x") == [1, 2, 6, 6, 9, 0, 0]
        part(page, "play").click()
        page.clock.run_for(5000)
        assert shown(page, "gather", "y") == [17, 14, None]
        part(page, "play").click()
        assert shown(page, "gather", "y") == [17, 14, 15]
        assert shown(page, "scatter", "x") == [1, 2, 6, 6, 11, 4, 6]


def test_the_home_page_rests_where_motion_is_unwanted(chromium, address):
    with browser.page(chromium, reduced_motion="reduce") as page:
        page.clock.install()
        page.goto(address + "index.html", wait_until="load")
        page.clock.run_for(5000)
        assert text(page, "play") == "Play"
        assert shown(page, "scatter", "x") == [1, 2, 6, 6, 11, 4, 6]
