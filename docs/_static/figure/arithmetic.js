// The numbers of the figure, without any drawing.
//
// A window is a set of triples: cell b of x, cell q of y and tap t of the kernel, wherever on every axis
//
//   b = q*stride + t*dilation - padding
//
// Settings hold one number per axis: { big, kernel, stride, padding, dilation }. With two axes, cells and taps are
// counted row by row. Two longer arrays belong to a window, and their cells have letters of their own:
//
//   e: x with the padding on both sides. conv reads zeros there, and deconv crops what it adds there.
//   u: y with zeros between its cells and around them. A conv of stride 1 over it, with the kernel flipped, is deconv.
"use strict";

const Arithmetic = (() => {
  const count = (sizes) => sizes.reduce((product, size) => product * size, 1);
  const range = (n) => Array.from({ length: n }, (_, i) => i);

  // One axis, as Window.of_conv computes it. Throws where the kernel spans more than the padded input.
  function axisOf({ big, kernel, stride, padding, dilation }) {
    const span = dilation * (kernel - 1) + 1;
    if (big + 2 * padding < span) {
      throw new RangeError(`the kernel spans ${span}, the padded input has ${padding} + ${big} + ${padding}`);
    }
    const small = Math.floor((big + 2 * padding - span) / stride) + 1;
    const least = (small - 1) * stride + span - 2 * padding; // what a deconv returns by default
    const sizes = range(stride).map((extra) => least + extra).filter((size) => size > 0);
    const high = (small - 1) * stride + span - padding - big;
    const first = padding - span + 1; // where the first window over the inserted zeros begins
    const from = Math.min(0, first);
    const inserted = Math.max((small - 1) * stride, big - 1 + padding) - from + 1;
    return {
      big, small, kernel, stride, dilation, span, sizes, low: padding, high, outputPadding: big - least,
      wide: padding + big + Math.max(0, high), from, inserted, first: first - from,
    };
  }

  function windowOf({ big, kernel, stride, padding, dilation }) {
    const axes = big.map((size, i) =>
      axisOf({ big: size, kernel: kernel[i], stride: stride[i], padding: padding[i], dilation: dilation[i] }),
    );
    const w = { axes };
    for (const name of ["big", "small", "kernel", "wide", "inserted"]) w[name] = axes.map((axis) => axis[name]);
    w.inside = along(axes, insideOf).map((cell) => cell.b); // of each cell e: its b, or null
    w.source = along(axes, sourceOf).map((cell) => cell.q); // of each cell u: its q, or null where a zero was put in
    w.stamps = along(axes, stampsOf); // all (e, q, t), with b where e is inside
    w.triples = w.stamps.filter(({ b }) => b !== null);
    // All (b, u, t) of the conv over zeros, with the q behind u.
    w.reads = along(axes, readsOf).map((read) => ({ ...read, q: w.source[read.u] }));
    return w;
  }

  // Objects of one axis combined over all axes: indices are counted row by row, and null stays null.
  const LENGTHS = { b: "big", q: "small", t: "kernel", e: "wide", u: "inserted" };
  function along(axes, ofAxis) {
    return axes.map((axis) => ofAxis(axis)).reduce((outer, own, i) => outer.flatMap((o) => own.map((cell) => {
      const joined = {};
      for (const [letter, index] of Object.entries(cell)) {
        const before = o[letter];
        joined[letter] = before === null || index === null ? null : before * axes[i][LENGTHS[letter]] + index;
      }
      return joined;
    })), [{ b: 0, q: 0, t: 0, e: 0, u: 0 }]);
  }

  const within = (index, size) => (index >= 0 && index < size ? index : null);
  const insideOf = (a) => range(a.wide).map((e) => ({ b: within(e - a.low, a.big) }));
  const sourceOf = (a) => range(a.inserted).map((u) => {
    const q = (u + a.from) / a.stride;
    return { q: Number.isInteger(q) ? within(q, a.small) : null };
  });
  const stampsOf = (a) => range(a.small).flatMap((q) => range(a.kernel).map((t) => {
    const e = q * a.stride + t * a.dilation;
    return { q, t, e: within(e, a.wide), b: within(e - a.low, a.big) };
  }));
  const readsOf = (a) => range(a.big).flatMap((b) => range(a.kernel).map((t) => (
    { b, t, u: a.first + b + a.span - 1 - t * a.dilation }
  )));

  const zeros = (sizes) => new Array(count(sizes)).fill(0);

  function conv(w, x, kernel) {
    const y = zeros(w.small);
    for (const { b, q, t } of w.triples) y[q] += kernel[t] * x[b];
    return y;
  }

  function deconv(w, y, kernel) {
    const x = zeros(w.big);
    for (const { b, q, t } of w.triples) x[b] += kernel[t] * y[q];
    return x;
  }

  // What deconv adds up before it crops, of the first cells of y only.
  function uncropped(w, y, kernel, last = Infinity) {
    const x = zeros(w.wide);
    for (const { e, q, t } of w.stamps) if (q <= last) x[e] += kernel[t] * y[q];
    return x;
  }

  // deconv once more, as a conv of stride 1 over y with zeros put in.
  function overZeros(w, y, kernel) {
    const x = zeros(w.big);
    const long = w.source.map((q) => (q === null ? 0 : y[q]));
    for (const { b, u, t } of w.reads) x[b] += kernel[t] * long[u];
    return x;
  }

  // Row q, column b: the tap there, or null. Its transpose is the matrix of deconv.
  function matrix(w) {
    const rows = Array.from({ length: count(w.small) }, () => new Array(count(w.big)).fill(null));
    for (const { b, q, t } of w.triples) rows[q][b] = t;
    return rows;
  }

  const inner = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

  // Those of the triples that a choice such as { q: 2 } or { q: 2, b: 3 } takes part in.
  const partners = (triples, choice) =>
    triples.filter((triple) => Object.entries(choice).every(([letter, index]) => triple[letter] === index));

  const coordinates = (index, sizes) =>
    sizes.length === 1 ? [index] : [Math.floor(index / sizes[1]), index % sizes[1]];

  return { window: windowOf, conv, deconv, uncropped, overZeros, matrix, inner, partners, count, coordinates };
})();
