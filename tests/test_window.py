"""The window's arithmetic, against windows laid out one by one."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from jdeconv import Window

checked = settings(derandomize=True, max_examples=200, deadline=None)


@st.composite
def geometries(draw, ranks=(1, 4), pads=(-2, 4)):
    """Spatial sizes, and the arguments of a conv or deconv over them."""
    rank = draw(st.integers(*ranks))

    def per_axis(strategy):
        return draw(st.tuples(*[strategy] * rank))

    sizes = per_axis(st.integers(1, 9))
    return sizes, {
        "kernel": per_axis(st.integers(1, 4)),
        "stride": per_axis(st.integers(1, 4)),
        "dilation": per_axis(st.integers(1, 3)),
        "padding": per_axis(st.tuples(*[st.integers(*pads)] * 2)),
    }


def axes(sizes, arguments):
    return zip(sizes, *arguments.values(), strict=True)


def fitting(size, k, s, d, pad):
    """How many windows have every tap on a cell of the padded input."""
    cells = range(-pad[0], size + pad[1])
    return sum(all(start + t * d in cells for t in range(k)) for start in cells[::s])


def reached(q, k, s, d, low):
    """The big side's positions that any tap of any of q windows touches."""
    return [window * s + t * d - low for window, t in itertools.product(range(q), range(k))]


@given(geometries())
@checked
def test_conv_has_the_windows_that_fit(geometry):
    big, arguments = geometry
    counts = tuple(fitting(*axis) for axis in axes(big, arguments))
    if 0 in counts:
        with pytest.raises(
            ValueError, match=f"padding is too small on spatial axis {counts.index(0)}: "
        ):
            Window.of_conv(big, **arguments)
        return
    window = Window.of_conv(big, **arguments)
    assert (window.big, window.small, window.rank) == (big, counts, len(big))
    assert window.low == tuple(low for low, _ in arguments["padding"])


@given(geometries(pads=(0, 4)))
@checked
def test_high_padding_is_a_consequence(geometry):
    big, arguments = geometry
    assume(all(fitting(*axis) for axis in axes(big, arguments)))
    window = Window.of_conv(big, **arguments)
    for i, (size, k, s, d, (low, high)) in enumerate(axes(big, arguments)):
        touched = reached(window.small[i], k, s, d, low)
        assert window.span[i] == max(reached(1, k, s, d, 0)) + 1
        assert window.full[i] == max(touched) - min(touched) + 1
        assert window.high[i] == max(touched) + 1 - size
        assert 0 <= high - window.high[i] < s
    assert window.padding == tuple(zip(window.low, window.high, strict=True))
    assert Window.of_conv(big, **{**arguments, "padding": window.padding}) == window


@given(geometries(pads=(-2, 0)))
@checked
def test_padded_is_the_window_without_padding_of_the_same_small_side(geometry):
    small, arguments = geometry
    window = Window.of_deconv(small, **arguments)
    assert window.padded == Window.of_deconv(small, **{**arguments, "padding": 0})


@pytest.mark.parametrize("name", ["SAME", "SAME_LOWER", "VALID"])
@given(geometries(pads=(0, 0)))
@checked
def test_named_paddings_are_those_of_lax(name, geometry):
    big, arguments = geometry
    spans = [d * (k - 1) + 1 for _, k, _, d, _ in axes(big, arguments)]
    assume(name != "VALID" or all(fitting(*axis) for axis in axes(big, arguments)))
    pads = lax.padtype_to_pads(big, spans, arguments["stride"], name)
    named = Window.of_conv(big, **{**arguments, "padding": name})
    assert named == Window.of_conv(big, **{**arguments, "padding": pads})


@given(geometries(ranks=(1, 1)))
@checked
def test_deconv_reaches_max_of_stride_and_dilation_sizes(geometry):
    (q,), arguments = geometry
    (k,), (s,), (d,), ((low, high),) = arguments.values()
    least = max(reached(q, k, s, d, low)) + 1 - high
    sizes = range(max(least, 1), least + max(s, d))
    assume(sizes)
    for size in range(sizes.stop + 3):
        if size not in sizes:
            text = rf"needs {sizes[0]}( to {sizes[-1]})? cells on spatial axis 0, .* got {size}\n"
            with pytest.raises(ValueError, match=text):
                Window.of_deconv((q,), **arguments, output_size=size)
            continue
        window = Window.of_deconv((q,), **arguments, output_size=size)
        assert (window.big, window.small, window.low) == ((size,), (q,), (low,))
        back = Window.of_conv((size,), **arguments)
        assert back == window if size - least < s else back.small > window.small


@given(geometries(ranks=(1, 1)))
@checked
def test_output_padding_counts_from_the_least_size(geometry):
    (q,), arguments = geometry
    (k,), (s,), (d,), ((low, high),) = arguments.values()
    least = max(reached(q, k, s, d, low)) + 1 - high
    for extra in range(max(s, d)):
        if least + extra < 1:
            with pytest.raises(ValueError, match=f"padding leaves {least + extra} cells"):
                Window.of_deconv((q,), **arguments, output_padding=extra)
        else:
            window = Window.of_deconv((q,), **arguments, output_padding=extra)
            assert window == Window.of_deconv((q,), **arguments, output_size=least + extra)
    with pytest.raises(ValueError, match=r"must be at most|leaves"):
        Window.of_deconv((q,), **arguments, output_padding=max(s, d))


@pytest.mark.parametrize("name", ["SAME", "SAME_LOWER"])
@given(geometries(pads=(0, 0)))
@checked
def test_deconv_same_multiplies_by_stride(name, geometry):
    small, arguments = geometry
    arguments["padding"] = name
    sizes = tuple(q * s for q, s in zip(small, arguments["stride"], strict=True))
    window = Window.of_deconv(small, **arguments)
    assert window.big == sizes
    assert window == Window.of_conv(sizes, **arguments)


@pytest.mark.parametrize("name", ["SAME", "SAME_LOWER"])
@given(geometries(ranks=(1, 1), pads=(0, 0)))
@checked
def test_deconv_same_reaches_what_conv_same_maps_to_its_input(name, geometry):
    (q,), arguments = geometry
    arguments["padding"] = name
    for size in range(1, (q + 1) * arguments["stride"][0] + 1):
        window = Window.of_conv((size,), **arguments)
        if window.small == (q,):
            assert window == Window.of_deconv((q,), **arguments, output_size=size)
        else:
            with pytest.raises(ValueError, match="output_size needs"):
                Window.of_deconv((q,), **arguments, output_size=size)


@given(geometries())
@checked
def test_kernel_grad_has_the_window_of_the_conv_between_its_sides(geometry):
    big, arguments = geometry
    assume(all(fitting(*axis) for axis in axes(big, arguments)))
    window = Window.of_conv(big, **arguments)
    assert Window.of_kernel_grad(big, window.small, **arguments) == window


@given(geometries(ranks=(2, 4), pads=(-2, 0)))
@checked
def test_every_axis_is_on_its_own(geometry):
    small, arguments = geometry
    window = dataclasses.astuple(Window.of_deconv(small, **arguments))
    for i, (q, *axis) in enumerate(axes(small, arguments)):
        alone = Window.of_deconv((q,), **{n: (v,) for n, v in zip(arguments, axis, strict=True)})
        assert dataclasses.astuple(alone) == tuple((field[i],) for field in window)


def test_one_int_serves_every_axis():
    small, kernel = (5, 8), (3, 1)
    pads = ((1, 1), (1, 1))
    short = {"stride": 2, "padding": 1, "dilation": 3, "output_padding": 2}
    long = {"stride": (2, 2), "padding": pads, "dilation": (3, 3), "output_padding": (2, 2)}
    sized = {"stride": 2, "padding": (1, 1), "dilation": 3, "output_size": 15}
    window = Window((15, 15), small, kernel, (2, 2), (3, 3), (1, 1))
    for arguments in (short, long, sized):
        assert Window.of_deconv(small, kernel, **arguments) == window


def test_equal_windows_are_one_key():
    window = Window((7, 5), (3, 4), (3, 2), (2, 1), (1, 1), (0, 0))
    other = Window([7, 5], (3, 4), [3, 2], np.array([2, 1]), 1, np.int64(0))
    assert {window: "first"} | {other: "second"} == {window: "second"}
    assert all(type(n) is int for field in dataclasses.astuple(other) for n in field)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Window)])
def test_every_field_counts_and_none_can_be_set(field):
    window = Window((7, 5), (3, 4), (3, 2), (2, 1), (1, 1), (0, 0))
    value = tuple(n + 1 for n in getattr(window, field))
    assert dataclasses.replace(window, **{field: value}) != window
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(window, field, value)


@pytest.mark.parametrize("field", ["big", "small", "kernel", "stride", "dilation"])
def test_only_low_goes_below_one(field):
    window = Window((7, 5), (3, 4), (3, 2), (2, 1), (1, 1), (-2, 0))
    with pytest.raises(ValueError, match=rf"^Window: {field} must be at least 1"):
        dataclasses.replace(window, **{field: (1, 0)})
