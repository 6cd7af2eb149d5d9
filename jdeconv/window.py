"""The geometry of a convolution: integer arithmetic and every check on it; no arrays.

A window ties a position b on the big side to a position q on the small side and a kernel tap t by

    b = q*s + t*d - low            0 <= b < big,  0 <= q < small,  0 <= t < k

on every axis (stride s, dilation d, kernel size k). Conv reads the big side and writes the small one,
deconv the reverse, over the same triples (b, q, t). So `big`, `small` and `low` determine all of it, and
the high padding is only a consequence:

    span = d*(k - 1) + 1           positions from the first tap to the last
    full = (small - 1)*s + span    positions that all windows cover together
    high = full - low - big        negative where a strided conv leaves a remainder
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from jax.core import max_dim

from jdeconv.checks import (
    Ints,
    Padding,
    Pair,
    cells,
    integers,
    less,
    paddings,
    refused,
    reporting,
    shown,
    sizes,
)


@dataclass(frozen=True)
class Window:
    """The sizes, strides and paddings that a convolution and its transpose share.

    A window is frozen and hashable.

    Formula, on every axis: ``b = q*stride + t*dilation - low``.

    Args:
      big: spatial sizes of x, the array that conv reads and deconv writes.
      small: spatial sizes of y, the array that conv writes and deconv reads.
      kernel: spatial sizes of the kernel.
      stride: step of the window, in positions of the big side.
      dilation: distance between neighboring taps, in positions of the big side.
      low: padding before position 0 of the big side; negative crops.

    Each field is a tuple with one int for each axis. All but `low` are at least 1. Use the class methods
    `of_conv` and `of_deconv` to compute a window from sizes and paddings.

    Raises:
      TypeError: if a field holds anything but ints.
      ValueError: if a field has the wrong number of ints, or an int is below 1.

    Example:
      >>> Window.of_conv((7, 5), (3, 2), stride=2, padding=1).small
      (4, 3)
      >>> Window.of_deconv((4, 3), (3, 2), stride=2, padding=1, output_padding=(0, 1)).big
      (7, 5)

    Source: Dumoulin and Visin, "A guide to convolution arithmetic", arXiv:1603.07285.
    """

    big: tuple[int, ...]
    small: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    low: tuple[int, ...]

    @reporting()
    def __post_init__(self) -> None:
        rank = len(sizes("kernel", self.kernel))
        for field in fields(self):
            least = None if field.name == "low" else 1
            symbolic = field.name in ("big", "small", "low")
            value = integers(field.name, getattr(self, field.name), rank, least, symbolic=symbolic)
            object.__setattr__(self, field.name, value)
        for name, space in (("big", self.big), ("small", self.small), ("small", self.full)):
            cells(name, space)

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    @property
    def span(self) -> tuple[int, ...]:
        """Positions from the first tap to the last, both included."""
        return tuple(_span(k, d) for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def full(self) -> tuple[int, ...]:
        """Positions that all windows cover together, padding included."""
        axes = zip(self.small, self.stride, self.span, strict=True)
        return tuple((q - 1) * s + span for q, s, span in axes)

    @property
    def high(self) -> tuple[int, ...]:
        """Padding after the last position of the big side; negative where cells are left over."""
        axes = zip(self.full, self.low, self.big, strict=True)
        return tuple(full - low - big for full, low, big in axes)

    @property
    def padding(self) -> tuple[Pair, ...]:
        """The (low, high) pairs with which a conv of `big` gives exactly `small`."""
        return tuple(zip(self.low, self.high, strict=True))

    @property
    def reduced(self) -> Window:
        """The same window, with steps of 1 where a single position or a single tap has no use for them."""
        stride = tuple(1 if q == 1 else s for q, s in zip(self.small, self.stride, strict=True))
        dilation = tuple(
            1 if k == 1 else d for k, d in zip(self.kernel, self.dilation, strict=True)
        )
        return replace(self, stride=stride, dilation=dilation)

    @property
    def phase(self) -> Window:
        """The window of every `dilation`-th position, for axes that have a dilation or a stride, not both.

        The big side begins with low % dilation positions of padding. The rest of low is a multiple of dilation.
        """
        axes = zip(self.big, self.small, self.dilation, self.low, strict=True)
        sizes = [(-(-(b + p % d) // d), -(-q // d), p // d) for b, q, d, p in axes]
        big, small, low = zip(*sizes, strict=True)
        return Window(big, small, self.kernel, self.stride, (1,) * self.rank, low)

    @property
    def with_row(self) -> Window:
        """The same window over one axis more, of a single position, in front of the others."""
        sizes = (self.big, self.small, self.kernel, self.stride, self.dilation)
        return Window(*((1, *size) for size in sizes), low=(0, *self.low))

    @property
    def padded(self) -> Window:
        """The same window over a big side that already carries its padding."""
        return replace(self, big=self.full, low=(0,) * self.rank)

    @classmethod
    @reporting()
    def of_conv(
        cls,
        big: Sequence[int],
        kernel: Sequence[int],
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
    ) -> Window:
        """The window of a conv over `big`: small = (big + low + high - span) // stride + 1.

        Args:
          big: spatial sizes of x.
          kernel: spatial sizes of the kernel; their count is the rank.
          stride: an int, or one per axis.
          padding: an int, one int per axis, or one (low, high) pair per axis, where negative numbers
            crop. "VALID" pads nothing. "SAME" pads to small = ceil(big / stride); if the sum is odd, the end
            gets one cell more, and with "SAME_LOWER" the beginning. "FULL" pads span - 1 on both sides, for
            every position that a tap reaches, and "CAUSAL", for one axis, only before the array. Names may be
            in lower case.
          dilation: an int, or one per axis.

        Raises:
          TypeError, ValueError: if a value does not fit, or the window is larger than the padded input.

        Example:
          >>> Window.of_conv((8,), (3,), stride=2, padding="SAME").padding
          ((0, 1),)
        """
        kernel, stride_, dilation_, spans = _steps(kernel, stride, dilation)
        big = integers("big", big, len(kernel), 1, symbolic=True)
        cells("big", big)
        pads = _pads(_padding(padding, spans), big, stride_, spans)
        padded = [b + sum(pad) for b, pad in zip(big, pads, strict=True)]
        cells("padding", padded)
        small = []
        for axis, (size, s, span) in enumerate(zip(padded, stride_, spans, strict=True)):
            if less(size, span):
                reason = f"the kernel spans {span} cells, and the padded input has {size}"
                remedy = "pad more, or use a smaller kernel"
                raise refused("padding", f"is too small on spatial axis {axis}: {reason}; {remedy}")
            small.append(max_dim((size - span) // s + 1, 1))  # which holds, if symbolic
        return cls(big, tuple(small), kernel, stride_, dilation_, tuple(low for low, _ in pads))

    @classmethod
    @reporting()
    def of_deconv(
        cls,
        small: Sequence[int],
        kernel: Sequence[int],
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        output_padding: Ints = 0,
        output_size: Ints | None = None,
    ) -> Window:
        """The window of a deconv over `small`: big = full - low - high + output_padding.

        `padding` is the padding of the conv that this deconv transposes. A strided conv maps several sizes to
        one size, so `small` does not determine `big`. `output_padding` adds cells at the end of the array,
        or `output_size` gives the size.

        Args:
          small: spatial sizes of y.
          kernel: spatial sizes of the kernel; their count is the rank.
          stride: an int, or one per axis.
          padding: as in `of_conv`; "SAME" and "SAME_LOWER" give big = small*stride.
          dilation: an int, or one per axis.
          output_padding: an int, or one per axis, from 0 to max(stride, dilation) - 1.
          output_size: an int, or one per axis; None means that `output_padding` gives the size.

        Raises:
          TypeError, ValueError: if a value does not fit, or no conv from output_size gives `small`.

        Example:
          >>> Window.of_deconv((4,), (3,), stride=2, padding=1, output_size=8).padding
          ((1, 0),)
        """
        kernel, stride_, dilation_, spans = _steps(kernel, stride, dilation)
        rank = len(kernel)
        small = integers("small", small, rank, 1, symbolic=True)
        pads = _padding(padding, spans)
        extra = integers("output_padding", output_padding, rank, 0)
        if output_size is not None:
            if any(extra):
                reason = f"was given together with a size, {shown(output_size)}; leave one out"
                raise refused("output_padding", reason)
            output_size = integers("output_size", output_size, rank, symbolic=True)
        big = []
        for axis, (q, s, d, span) in enumerate(zip(small, stride_, dilation_, spans, strict=True)):
            pad = pads if isinstance(pads, str) else pads[axis]
            least, default, most = _reach(q, s, d, span, pad)
            size = default + extra[axis] if output_size is None else output_size[axis]
            left = size if output_size is None else most
            if less(left, 1):
                raise refused("padding", f"leaves {left} cells on spatial axis {axis}; pad less")
            if less(most, size) and output_size is None:
                steps = f"stride {s}, dilation {d} and padding {pad!r}"
                reason = f"must be at most {most - default} on spatial axis {axis} for {steps}"
                raise refused("output_padding", f"{reason}, got {extra[axis]}")
            if less(size, least) or less(most, size):
                reason = (
                    f"needs {least}{f' to {most}' * (most != least)} cells on spatial axis {axis}, "
                    f"which {q} windows of stride {s} reach, got {size}"
                )
                raise refused("output_size", reason)
            big.append(size)
        full = [(q - 1) * s + span for q, s, span in zip(small, stride_, spans, strict=True)]
        for space in (small, big, full):
            cells("stride" if max(stride_) > 1 else "small", space)
        low = tuple(low for low, _ in _pads(pads, big, stride_, spans))
        return cls(tuple(big), small, kernel, stride_, dilation_, low)

    @classmethod
    @reporting(output_size="big")
    def of_kernel_grad(
        cls,
        big: Sequence[int],
        small: Sequence[int],
        kernel: Sequence[int],
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
    ) -> Window:
        """The window of a conv from `big` to `small`, or of a deconv from `small` to `big`.

        The arguments and errors are those of `of_deconv`, with `big` as the output size.

        Example:
          >>> Window.of_kernel_grad((8,), (4,), (3,), stride=2, padding=1).high
          (0,)
        """
        if big is None:  # which of_deconv takes for a size that it may choose
            raise refused("big", "must be one int for each axis, got None", TypeError)
        steps: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        return cls.of_deconv(small, kernel, **steps, output_size=big)


def part(window: Window, axis: int, positions: int) -> Window:
    """The window of so many positions of the small side on one axis, and of what they see of the big side.

    Example:
      >>> part(Window.of_conv((9, 9), (3, 3), stride=2, padding=1), 0, 2).big
      (5, 9)
    """

    def changed(sizes: tuple[int, ...], size: int) -> tuple[int, ...]:
        return *sizes[:axis], size, *sizes[axis + 1 :]

    small = changed(window.small, positions)
    big = changed(window.big, (positions - 1) * window.stride[axis] + window.span[axis])
    return replace(window, big=big, small=small, low=changed(window.low, 0))


def turned(window: Window) -> Window:
    """The window by which the reversed kernel reads the small side and writes the big one, at stride 1.

    Example:
      >>> turned(Window.of_conv((9,), (3,), padding=(1,))).padding
      ((1, 1),)
    """
    axes = zip(window.span, window.low, strict=True)
    low = tuple(span - 1 - low for span, low in axes)
    return replace(window, big=window.small, small=window.big, low=low)


def gapped(window: Window) -> Window:
    """The window at stride 1, over a small side that has zeros in the gaps of the stride.

    Example:
      >>> gapped(Window.of_conv((9,), (3,), stride=2)).small
      (7,)
    """
    axes = zip(window.small, window.stride, strict=True)
    small = tuple((q - 1) * s + 1 for q, s in axes)
    return replace(window, small=small, stride=(1,) * window.rank)


def only(window: Window, kept: range) -> Window:
    """The window on these axes. On the others, every position passes as it is.

    Example:
      >>> only(Window.of_conv((9, 7), (3, 3)), range(1))
      Window(big=(9, 7), small=(7, 7), kernel=(3, 1), stride=(1, 1), dilation=(1, 1), low=(0, 0))
    """

    def chosen(own: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(own[i] if i in kept else others[i] for i in range(window.rank))

    ones, zeros = (1,) * window.rank, (0,) * window.rank
    kernel, stride = chosen(window.kernel, ones), chosen(window.stride, ones)
    small, low = chosen(window.small, window.big), chosen(window.low, zeros)
    return replace(window, small=small, kernel=kernel, stride=stride, low=low)


def exchanged(window: Window) -> Window:
    """The window by which the small side reads the big one and writes the kernel.

    Example:
      >>> exchanged(Window.of_conv((9, 7), (3, 1), stride=2))
      Window(big=(9, 7), small=(3, 1), kernel=(4, 4), stride=(1, 1), dilation=(2, 2), low=(0, 0))
    """
    kernel, small = window.small, window.kernel
    stride, dilation = window.dilation, window.stride
    return replace(window, small=small, kernel=kernel, stride=stride, dilation=dilation)


def _steps(kernel: Sequence[int], stride: Ints, dilation: Ints):
    """Kernel, stride and dilation as tuples, and the spans that follow."""
    kernel = sizes("kernel", kernel)
    stride = integers("stride", stride, len(kernel), 1)
    dilation = integers("dilation", dilation, len(kernel), 1)
    return kernel, stride, dilation, tuple(map(_span, kernel, dilation))


def _span(k: int, d: int) -> int:
    return d * (k - 1) + 1


def _padding(value: Padding, spans: Sequence[int]) -> tuple[Pair, ...] | str:
    """The (low, high) pairs, or the name of a padding that depends on the big side: "SAME", "SAME_LOWER"."""
    pads = paddings(value, len(spans))
    edges: dict[Any, Pair] = {"VALID": (0, 0), "CAUSAL": (1, 0), "FULL": (1, 1)}
    if pads not in edges:
        return pads
    low, high = edges[pads]
    return tuple((low * (span - 1), high * (span - 1)) for span in spans)


def _pads(pads: tuple[Pair, ...] | str, big: Sequence[int], stride, spans) -> tuple[Pair, ...]:
    """The (low, high) pairs behind a padding's name."""
    if not isinstance(pads, str):
        return pads
    pairs = []
    for b, s, span in zip(big, stride, spans, strict=True):
        total = max_dim((-(-b // s) - 1) * s + span - b, 0)
        low = total // 2 if pads == "SAME" else total - total // 2
        pairs.append((low, total - low))
    return tuple(pairs)


def _reach(q: int, s: int, d: int, span: int, pad: Pair | str) -> tuple[int, int, int]:
    """The least, the default and the greatest big size that belong to small size q on one axis."""
    if isinstance(pad, str):
        return (q - 1) * s + 1, q * s, q * s
    base = (q - 1) * s + span - sum(pad)
    return 1 if less(base, 1) else base, base, base + max(s, d) - 1
