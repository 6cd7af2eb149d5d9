"""Random geometries: every size different where it can be, padding asymmetric and at times negative."""

import random
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax

from jdeconv import Window, conv, deconv, kernel_grad
from jdeconv.form import Layout, accumulator
from jdeconv.problem import Problem
from jdeconv.testing import conv_loops, deconv_loops, kernel_grad_loops

LAST = {1: ("NWC", "WIO"), 2: ("NHWC", "HWIO"), 3: ("NDHWC", "DHWIO"), 4: ("NDHWTC", "DHWTIO")}
ODD = {1: ("CWN", "WOI"), 2: ("HCNW", "WOIH"), 3: ("WCDNH", "IDWOH"), 4: ("HCNTWD", "TIDWOH")}


@dataclass(frozen=True)
class Geometry:
    """A conv of x with this window, or the deconv of y back to x's size."""

    window: Window
    padding: tuple[tuple[int, int], ...]
    groups: int
    n: int
    c: int
    o: int

    def __str__(self):
        w = self.window
        return f"{w.big}k{w.kernel}s{w.stride}p{self.padding}d{w.dilation}g{self.groups}"

    @property
    def rank(self):
        return self.window.rank

    @property
    def steps(self):
        """Keyword arguments that conv, deconv and kernel_grad share."""
        w = self.window
        steps = {"stride": w.stride, "padding": self.padding, "dilation": w.dilation}
        return steps | {"groups": self.groups}

    @property
    def loops(self):
        """Keyword arguments of the loop references."""
        w = self.window
        return {"stride": w.stride, "dilation": w.dilation, "low": w.low, "groups": self.groups}

    def draw(self, seed=0, dtype=np.float32):
        """Random integers for x, kernel and y, in the layouts NCHW and OIHW."""
        w, g = self.window, self.groups
        x, y = (self.n, g * self.c, *w.big), (self.n, g * self.o, *w.small)
        kernel = g * self.o, self.c, *w.kernel
        return tuple(a.astype(dtype) for a in drawn(seed, x, kernel, y))

    def definition(self, x, kernel, y):
        """The three contractions, by loops."""
        w = self.window
        return (
            conv_loops(x, kernel, w.small, **self.loops),
            deconv_loops(y, kernel, w.big, **self.loops),
            kernel_grad_loops(x, y, w.kernel, **self.loops),
        )

    def contractions(self, x, kernel, y, layout=None, **options):
        """The three contractions, compiled together; the layout is that of (x, kernel, y)."""
        options |= self.steps
        turned = layout and (layout[0], layout[2], layout[1])

        @jax.jit
        def run(x, kernel, y):
            numbers, size = {"dimension_numbers": layout}, {"output_size": self.window.big}
            return (
                conv(x, kernel, **numbers, **options),
                deconv(y, kernel, **numbers, **size, **options),
                kernel_grad(x, y, self.window.kernel, dimension_numbers=turned, **options),
            )

        return run(x, kernel, y)


def drawn(seed, *shapes):
    """An array of small random integers for each shape."""
    draw = np.random.default_rng(seed).integers
    return [draw(-4, 5, shape).astype(np.float32) for shape in shapes]


def columns(x, w):
    """What im2col is by its definition, (n, c, *taps, *windows)."""
    found = np.zeros((*x.shape[:2], *w.kernel, *w.small), x.dtype)
    for index in np.ndindex(found.shape[2:]):
        t, q = np.split(np.array(index), 2)
        b = q * w.stride + t * w.dilation - w.low
        if (b >= 0).all() and (b < w.big).all():
            found[:, :, *index] = x[:, :, *b]
    return found


def lax_conv(x, kernel, stride, padding, dilation, groups, specs):
    """jax.lax's conv, on x without the cells that negative padding takes away.

    XLA's CPU convolution reads outside of its input where padding is negative (jaxlib 0.10 and 0.11).
    """
    space = [letter for letter in specs[1] if letter not in "OI"]
    for letter, (low, high) in zip(space, padding, strict=True):
        axis = specs[0].index(letter)
        x = lax.slice_in_dim(x, max(-low, 0), x.shape[axis] + min(high, 0), axis=axis)
    padding = [(max(low, 0), max(high, 0)) for low, high in padding]
    steps = {"rhs_dilation": dilation, "feature_group_count": groups}
    return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=specs, **steps)


def problem(window, groups, c, o, numbers=None, dtype="float32", platform=None):
    """The conv of one image with this window and so many channels in a group."""
    layout, dtype = Layout.of("conv", numbers, window.rank), np.dtype(dtype)
    dtypes = dtype, accumulator(dtype), dtype
    return Problem("conv", window.reduced, layout, 1, groups, c, o, *dtypes, None, platform)


def geometries(count, seed, ranks=(1, 2, 3, 4), symmetric=False):
    """So many random geometries, the ranks in turn."""
    rng = random.Random(seed)
    return [geometry(rng, ranks[i % len(ranks)], symmetric) for i in range(count)]


def geometry(rng, rank, symmetric=False):
    """One whose conv is valid, and that is no larger than loops in Python can check."""
    widest = {1: 13, 2: 9, 3: 6, 4: 4}[rank]

    def each(low, high):
        return tuple(rng.randint(low, high) for _ in range(rank))

    while True:
        kernel, stride, dilation = each(1, 3 if rank > 2 else 4), each(1, 3), each(1, 3)
        big = tuple(rng.sample(range(2, widest + 2), rank))
        pads = (
            [(p, p) for p in each(0, 3)]
            if symmetric
            else zip(each(-2, 4), each(-2, 4), strict=True)
        )
        padding = tuple(pads)
        try:
            steps = {"stride": stride, "padding": padding, "dilation": dilation}
            window = Window.of_conv(big, kernel, **steps)
        except ValueError:
            continue
        depthwise = rng.random() < 0.15
        c, o = (1, 1) if depthwise else rng.sample((1, 2, 3, 4), 2)
        groups = rng.choice((2, 3)) if depthwise else rng.choice((1, 1, 2, 3))
        return Geometry(window, padding, groups, rng.choice((1, 2)), c, o)


def arranged(array, spec, letters):
    """The array whose axes are `letters`, in the order of `spec`."""
    return np.ascontiguousarray(np.transpose(array, [letters.index(letter) for letter in spec]))


def letters(rank):
    """The default layouts of sides and kernel, with the letters of LAST and ODD."""
    space = {1: "W", 2: "HW", 3: "DHW", 4: "DHWT"}[rank]
    return "NC" + space, "OI" + space
