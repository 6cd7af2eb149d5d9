"""One infinity or NaN in an operand: what must carry it, what must stay as it was, and what may go with it.

A result reads a number if the number is in one of its terms. For every lowering
  1. what reads it is not finite, so that no fault is hidden;
  2. what is finite and does not read it has the bits that it had.
Between the two, results that read nothing wrong and are NaN all the same:
  im2col, taps, nhwc, vendor    from x and y none in conv and deconv. From a kernel and to one in the same
                                channel, where a window reaches into zeros that are multiplied: padding, gaps
                                of a strided deconv. To a kernel by `vendor`, over groups: XLA's CPU backend
                                multiplies by a mask.
  fft                           besides, the whole image.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from thinned import thinned

from jdeconv import conv, deconv, kernel_grad, testing
from jdeconv.lowerings import LOWERINGS
from jdeconv.window import Window

N, GROUPS, C, OUT = 2, 2, 2, 3  # channels of x and y in a group
SIZES = {1: ((17,), (3,)), 2: ((14, 9), (3, 3)), 3: ((14, 4, 5), (3, 2, 3))}  # big, kernel
CALLS = {
    "conv": ("x", "kernel", "y"),
    "deconv": ("y", "kernel", "x"),
    "kernel_grad": ("x", "y", "kernel"),
}


def sizes(rank, stride, padding):
    big, kernel = SIZES[rank]
    window = Window.of_conv(big, kernel, stride=stride, padding=padding)
    shapes = {
        "x": (N, GROUPS * C, *big),
        "kernel": (GROUPS * OUT, C, *kernel),
        "y": (N, GROUPS * OUT, *window.small),
    }
    return shapes, window, {"stride": stride, "padding": padding, "groups": GROUPS}


def evaluate(call, arrays, lowering, options):
    first, second, _ = CALLS[call]
    function = {"conv": conv, "deconv": deconv, "kernel_grad": kernel_grad}[call]
    more = {
        "deconv": {"output_size": arrays["x"].shape[2:]},
        "kernel_grad": {"kernel_size": arrays["kernel"].shape[2:]},
    }.get(call, {})
    return np.asarray(function(arrays[first], arrays[second], lowering=lowering, **options, **more))


def readers(call, role, index, shapes, window):
    """Where the result has a term with this number."""
    first, second, result = CALLS[call]
    arrays = {name: np.ones(shape) for name, shape in shapes.items()}
    arrays[role] = np.zeros(shapes[role])
    arrays[role][index] = 1
    loops = getattr(testing, f"{call}_loops")
    steps = {"stride": window.stride, "dilation": window.dilation, "low": window.low}
    return loops(arrays[first], arrays[second], shapes[result][2:], groups=GROUPS, **steps) > 0


def may_follow(call, role, index, lowering, reads):
    """Where a NaN may be beside what reads the number."""
    allowed = reads.copy()
    if role == "kernel":
        channel = index[0] if call == "conv" else index[0] // OUT * C + index[1]
        allowed[:, channel] = True
    elif call == "kernel_grad" and role == "y":
        allowed[index[1]] = True
    elif call == "kernel_grad":
        group, channel = divmod(index[1], C)
        allowed[group * OUT : (group + 1) * OUT, channel] = True
    if lowering == "vendor" and call == "kernel_grad":
        allowed |= True
    if lowering == "fft":
        allowed |= allowed.any(axis=tuple(range(2, allowed.ndim)), keepdims=True)
    return allowed


KINDS = [*((rank, "float32") for rank in SIZES), (1, "bfloat16"), (1, "complex64")]
STEPS = [(1, 0), (1, 1), (2, 1)]  # stride and padding
CASES = [
    case
    for case in itertools.product(KINDS, STEPS, LOWERINGS)
    if (case[1][0], case[2]) != (2, "nhwc") and (case[0][1], case[2]) != ("complex64", "fft")
]


@jax.debug_nans(False)
@pytest.mark.parametrize(("kind", "steps", "lowering"), thinned(CASES, 7))
def test_what_is_not_finite_goes_where_it_belongs(kind, steps, lowering, rng):
    (rank, dtype), (stride, padding) = kind, steps
    shapes, window, options = sizes(rank, stride, padding)
    arrays = {
        name: rng.integers(1, 5, shape).astype(jnp.dtype(dtype)) for name, shape in shapes.items()
    }
    for call, (*operands, result) in CALLS.items():
        clean = evaluate(call, arrays, lowering, options)
        for role, bad in itertools.product(operands, (np.inf, -np.inf, np.nan)):
            index = tuple(int(rng.integers(size)) for size in shapes[role])
            spoiled = arrays[role].copy()
            spoiled[index] = bad
            found = evaluate(call, arrays | {role: spoiled}, lowering, options)
            reads = readers(call, role, index, shapes, window)
            finite = np.isfinite(found.astype(np.complex64))
            assert not (finite & reads).any(), (call, role, index, bad)
            if lowering != "fft":
                assert (found[finite] == clean[finite]).all(), (call, role, index, bad)
            allowed = may_follow(call, role, index, lowering, reads)
            assert finite[~allowed].all(), (call, role, index, bad, result)


def test_what_is_finite_stays_so_but_for_sums_that_come_before_the_products():
    """`fft` adds up numbers that the definition multiplies first; "highest" excludes it."""
    x, kernel = np.full((1, 16, 8, 8), 2e38, np.float32), np.full((16, 16, 3, 3), 1e-3, np.float32)
    exact = x[0, 0, 0, 0].astype(float) * kernel[0, 0, 0, 0] * 16 * 9
    for lowering in ("im2col", "nhwc", "vendor"):
        np.testing.assert_allclose(conv(x, kernel, lowering=lowering), exact, rtol=1e-5)
    np.testing.assert_allclose(conv(x, kernel, precision="highest"), exact, rtol=1e-5)
    with jax.debug_nans(False):
        assert not np.isfinite(conv(x, kernel, lowering="fft")).all()
