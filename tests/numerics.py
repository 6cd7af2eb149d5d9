"""Measure the rounding errors of jdeconv, jax.lax and PyTorch.

The command computes a conv and both its gradients, which are the three functions conv, deconv and
kernel_grad. It draws random sizes, and data whose sums are hard to compute. The exact results come from the
definition, in float64, or in longdouble for results in float64.

The unit of an error is eps * sqrt(sum of the squared terms). For a sum of L terms this is eps * sqrt(L) times
the root mean square of a term. For "whole", all elements of a result use the largest such root of that result,
as error bounds of FFTs do. For "each", every element has its own. The error of a result is the largest error of
its elements. The table shows the median and the worst of all results.

Two kinds of results are left out: those without any term, and gradients of x where the padding is larger than
the window. For the second kind, jax.lax uses a convolution with negative padding, which reads outside of its
input on CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

import jdeconv
from jdeconv.evaluate import evaluate
from jdeconv.form import CONTRACTIONS, Form, Layout
from tests.definition import definition
from tests.draws import DATA, LONG, PARTS, chosen, geometry, large, normal, problem
from tests.geometry import lax_conv
from tests.problem import WIDE, Problem

DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64")
LAX, CHOSEN, TORCH = "jax.lax", "chosen", "torch"
FORMS = (("im2col", "cuda"), ("vendor", "tpu"))  # what is emitted there and not on a CPU
SAMPLED = 3  # ways beside lax's and the chosen one's, for each geometry
MEDIAN, WORST = 2.0, 4.0  # at most so many times lax's


@dataclass(frozen=True)
class Record:
    """The errors of one result in both units: problem, data, way and part say which."""

    dtype: str
    data: str
    way: str
    part: str
    problem: str
    whole: float
    each: float


# Ways to evaluate: (x, kernel, y) in the problem's layout -> the parts.


def ways(p: Problem, rng: np.random.Generator | None) -> Iterator[tuple[str, Callable]]:
    """lax's, the one that is chosen, and a few of those that take this problem; without `rng` all of them."""
    steps = p.stride, p.pads, p.dilation, p.groups, p.layout
    yield LAX, _derived(lambda x, k: lax_conv(x, k, *steps))
    yield f"{CHOSEN}: {chosen(p)}", _derived(lambda x, k: jdeconv.conv(x, k, **p.steps))
    serving = p.serving()
    names = [*serving, *(form for form in FORMS if form[0] in serving)]
    names += [TORCH] if p.rank <= 3 and importlib.util.find_spec("torch") else []
    if rng is not None:
        names = [names[i] for i in rng.permutation(len(names))[:SAMPLED]]
    for name in names:
        if name == TORCH:
            yield name, functools.partial(_torch, p)
        elif isinstance(name, tuple):
            yield f"{name[0]} ({name[1]})", jax.jit(functools.partial(_form, p, *name))
        else:
            named = p.steps | {"lowering": name}
            yield name, _derived(lambda x, k, named=named: jdeconv.conv(x, k, **named))


def _derived(conv: Callable) -> Callable:
    @jax.jit
    def parts(x: jax.Array, kernel: jax.Array, y: jax.Array) -> tuple:
        value, pullback = jax.vjp(conv, x, kernel)
        return value, *pullback(y)

    return parts


def _form(p: Problem, name: str, platform: str, x: Any, kernel: Any, y: Any) -> tuple:
    """What a lowering emits for another platform, evaluated here."""
    form = Form(p.window, p.groups, Layout.of("conv", p.layout, p.rank), None, name)
    arrays = {"x": x, "kernel": kernel, "y": y}
    found = {}
    for contraction, (first, second, result) in CONTRACTIONS.items():
        pair = arrays[first], arrays[second]
        found[result] = evaluate(contraction, platform, *pair, form=form, dtype=x.dtype)
    return tuple(found[role] for role in PARTS)


def _torch(p: Problem, x: np.ndarray, kernel: np.ndarray, y: np.ndarray) -> tuple | None:
    """None where torch has no such convolution on this device."""
    import torch

    def enter(a: np.ndarray, layout: str, letters: str) -> Any:
        a = a.transpose([layout.index(letter) for letter in letters])
        half = a.dtype in ("float16", "bfloat16")
        tensor = torch.tensor(np.ascontiguousarray(a.astype(np.float32) if half else a))
        return tensor.to(getattr(torch, p.dtype)) if half else tensor

    def leave(a: Any, layout: str, letters: str) -> np.ndarray:
        a = a.detach()
        a = a.float().numpy().astype(jnp.dtype(p.dtype)) if a.itemsize == 2 else a.numpy()
        return a.transpose([letters.index(letter) for letter in layout])

    letters = {role: p.letters(role) for role in PARTS}
    x_, kernel_, y_ = (
        enter(a, layout, letters[role]).requires_grad_(role != "y")
        for a, layout, role in zip((x, kernel, y), p.layout, ("x", "kernel", "y"), strict=True)
    )
    widths = [width for pad in reversed(p.pads) for width in pad]
    convolution = getattr(torch.nn.functional, f"conv{p.rank}d")
    try:
        value = convolution(
            torch.nn.functional.pad(x_, widths), kernel_, None, p.stride, 0, p.dilation, p.groups
        )
        gradients = torch.autograd.grad(value, (x_, kernel_), y_.conj())
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        return None
    x_bar, kernel_bar = (g.conj().resolve_conj() for g in gradients)
    layouts = dict(zip(("x", "kernel", "y"), p.layout, strict=True))
    results = {"y": value, "x": x_bar, "kernel": kernel_bar}
    return tuple(leave(results[role], layouts[role], letters[role]) for role in PARTS)


def errors(p: Problem, drawn: dict[str, np.ndarray], evaluated: dict[str, tuple]) -> dict:
    """{way: {part: (whole, each)}} of results of the same drawn arrays."""
    dtype = jnp.dtype(p.dtype)
    eps, tiny = (float(getattr(jnp.finfo(dtype), name)) for name in ("eps", "tiny"))
    found = defaultdict(dict)
    for i, part in enumerate(PARTS):
        others = {role: a for role, a in drawn.items() if role != part}
        exact = definition(p, part, others)
        squares = definition(p, part, {role: abs(a) ** 2 for role, a in others.items()})
        exact, unit = (_arranged(p, a, part) for a in (exact, np.sqrt(squares)))
        if not unit.any():  # no window meets the array; an FFT leaves its noise there
            continue
        finite = abs(exact) <= float(jnp.finfo(dtype).max) / 2
        for way, results in evaluated.items():
            error = np.where(finite, abs(np.asarray(results[i]).astype(exact.dtype) - exact), 0)
            each = np.where(unit > 0, error / np.maximum(eps * unit, tiny), 0)
            whole = error.max() / max(eps * unit.max(), tiny)
            found[way][part] = float(whole), float(each.max())
    return found


def _arranged(p: Problem, a: np.ndarray, role: str) -> np.ndarray:
    layout = dict(zip(("x", "kernel", "y"), p.layout, strict=True))[role]
    return a[0].transpose([p.letters(role).index(letter) for letter in layout])


def measure(
    p: Problem, data: Callable, rng: np.random.Generator, known: dict, name: str
) -> Iterator[Record]:
    """The errors of all ways; `known` are the compiled ones of this problem, `name` is that of the data."""
    dtype = jnp.dtype(p.dtype)
    with np.errstate(over="ignore", under="ignore"):
        drawn = {role: a.astype(dtype) for role, a in data(p, rng).items()}
    laid = [np.ascontiguousarray(_arranged(p, drawn[role], role)) for role in ("x", "kernel", "y")]
    precise = {"float64": np.longdouble, "complex64": np.complex128}.get(p.dtype, np.float64)
    exact = {role: a.astype(precise) for role, a in drawn.items()}
    evaluated = {name: way(*laid) for name, way in known.items()}
    evaluated = {way: r for way, r in evaluated.items() if r is not None}
    for way, parts in errors(p, exact, evaluated).items():
        for part, found in parts.items():
            if part == "x" and _beyond(p):
                continue
            yield Record(p.dtype, name, way, part, str(p), *found)


def _beyond(p: Problem) -> bool:
    """Whether a window can lie in the padding as a whole."""
    return any(max(pair) >= span for pair, span in zip(p.pads, p.window.span, strict=True))


def campaign(count: int, seed: int, is_large: bool) -> Iterator[Record]:
    """`count` random geometries of every dtype with every kind of data, and those of LONG; or large ones."""
    rng, dtypes = np.random.default_rng(seed), DTYPES[: 4 if is_large else 5]  # no complex FFT
    jobs = [((large if is_large else geometry)(rng, d), DATA) for _ in range(count) for d in dtypes]
    if not is_large:
        jobs += [(problem(*sizes, dtype), ()) for sizes in LONG for dtype in DTYPES]
    for p, data in tqdm.tqdm(jobs, unit=" geometries", disable=None):
        with jax.enable_x64(p.dtype in WIDE):
            known = dict(itertools.islice(ways(p, rng if data else None), 2 if is_large else None))
            for draw in data or (normal,):
                yield from measure(p, draw, rng, known, draw.__name__ if data else "long")
        jax.clear_caches()


# Tables.


def beside_lax(records: list[Record], columns: tuple[str, ...]) -> dict[tuple, np.ndarray]:
    """{values of columns: (whole, each) of a way and of lax, an array (results, 4)}, over the same results."""
    lax_ = {(r.problem, r.data, r.part): r for r in records if r.way == LAX}
    found = defaultdict(list)
    for r in records:
        if r.way != LAX:
            other = lax_[r.problem, r.data, r.part]
            key = tuple(getattr(r, column) for column in columns)
            found[key].append((r.whole, r.each, other.whole, other.each))
    return {key: np.array(rows) for key, rows in sorted(found.items(), key=_order)}


def broken(records: list[Record], columns: tuple[str, ...] = ("way", "dtype", "data")) -> list[str]:
    """Where a way is beyond the bound, over all results that agree in these columns."""
    lines = []
    for key, rows in beside_lax(records, columns).items():
        ours, _, theirs, _ = rows.T
        median = _ratio(np.median(ours), np.median(theirs))
        worst = _ratio(ours.max(), theirs.max())
        if median > MEDIAN or worst > WORST:
            lines.append(f"{', '.join(key)}: median {median:.2f}, worst {worst:.2f} of lax's")
    return lines


def table(records: list[Record], columns: tuple[str, ...]) -> str:
    """Median and worst in both units, and as shares of lax's over the same results."""
    head = [*columns, "results"]
    for unit in ("whole", "each"):
        head += [f"{unit}: median", "/ lax", "worst", "/ lax"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(columns) + "|---:" * 9 + "|"]
    for key, rows in beside_lax(records, columns).items():
        cells = [*key, f"{len(rows):,}"]
        median, worst = np.median(rows, 0), rows.max(0)
        for unit in (0, 1):
            for value in (median, worst):
                share = _ratio(value[unit], value[unit + 2])
                cells += [f"{value[unit]:.3g}", f"{share:.2f}" if share < 1e3 else f"{share:.0e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(ours: float, theirs: float) -> float:
    return 1.0 if ours == theirs else ours / theirs if theirs else math.inf


def _order(item: tuple) -> tuple:
    """Rows by way, dtypes from narrow to wide."""
    return tuple(DTYPES.index(value) if value in DTYPES else value for value in item[0])


def main(arguments: list[str] | None = None) -> int:
    """Measure, tell and write; 1 where a way is beyond the bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.numerics", description=__doc__)
    parser.add_argument(
        "--count",
        type=int,
        default=400,
        help="random sizes for each dtype (default: 400)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the seed of sizes and data (default: 0)"
    )
    parser.add_argument(
        "--large", action="store_true", help="draw only kernels for which FFTs are chosen"
    )
    parser.add_argument("--table", type=Path, metavar="PATH", help="write the tables to this file")
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="write every error to this file, one on each line"
    )
    options = parser.parse_args(arguments)
    if options.count < 1 or options.seed < 0:
        parser.error("--count needs at least 1, --seed at least 0")
    for path in (options.table, options.json):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            parser.error(f"{path}: expected the name of a file in a folder that there is")
    records = list(campaign(options.count, options.seed, options.large))
    arguments = f"--count {options.count} --seed {options.seed}" + " --large" * options.large
    text = report(records, arguments)
    print(text)
    if options.table is not None:
        options.table.write_text(text + "\n")
    if options.json is not None:
        lines = (json.dumps(dataclasses.asdict(record)) for record in records)
        options.json.write_text("\n".join(lines) + "\n")
    for line in broken(records):
        print(line, file=sys.stderr)
    return int(bool(broken(records)))


def report(records: list[Record], arguments: str) -> str:
    """Both tables, and what was run."""
    names = [name for name in ("jax", "jaxlib", "numpy", TORCH) if importlib.util.find_spec(name)]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    geometries = len({r.problem for r in records})
    about = f"{geometries:,} geometries, {len(records):,} results; {arguments}; {versions}"
    return "\n\n".join(
        (about, table(records, ("way", "dtype")), table(records, ("way", "dtype", "data")))
    )


if __name__ == "__main__":
    sys.exit(main())
