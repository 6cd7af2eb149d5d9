// A window as its set of triples (b, q, t), and all that follows from them. No drawing here.
//
//   b = q*stride + t*dilation - padding      on every axis, 0 <= b < big
//
// Settings hold one number per axis: { big, kernel, stride, padding, dilation }. Positions and taps are counted in
// row-major order where there are two axes.
"use strict";

const Arithmetic = (() => {
  // One axis, as Window.of_conv computes it. Throws where the kernel spans more than the padded input.
  function axisOf({ big, kernel, stride, padding, dilation }) {
    const span = dilation * (kernel - 1) + 1;
    if (big + 2 * padding < span) {
      throw new RangeError(`the kernel spans ${span}, the padded input has ${padding} + ${big} + ${padding}`);
    }
    const small = Math.floor((big + 2 * padding - span) / stride) + 1;
    const least = (small - 1) * stride + span - 2 * padding; // what a deconv returns by default
    const sizes = Array.from({ length: stride }, (_, extra) => least + extra).filter((size) => size > 0);
    const high = (small - 1) * stride + span - padding - big;
    return { big, small, kernel, stride, dilation, low: padding, high, span, sizes, outputPadding: big - least };
  }

  function windowOf({ big, kernel, stride, padding, dilation }) {
    const axes = big.map((size, i) =>
      axisOf({ big: size, kernel: kernel[i], stride: stride[i], padding: padding[i], dilation: dilation[i] }),
    );
    const of = (name) => axes.map((axis) => axis[name]);
    return { axes, big: of("big"), small: of("small"), kernel: of("kernel"), triples: triplesOf(axes) };
  }

  // Per axis the triples with b inside the array; of two axes, every pair of them.
  function triplesOf(axes) {
    return axes.reduce(
      (outer, a) => {
        const own = [];
        for (let q = 0; q < a.small; q++) {
          for (let t = 0; t < a.kernel; t++) {
            const b = q * a.stride + t * a.dilation - a.low;
            if (b >= 0 && b < a.big) own.push({ b, q, t });
          }
        }
        return outer.flatMap((o) =>
          own.map((i) => ({ b: o.b * a.big + i.b, q: o.q * a.small + i.q, t: o.t * a.kernel + i.t })),
        );
      },
      [{ b: 0, q: 0, t: 0 }],
    );
  }

  const count = (sizes) => sizes.reduce((product, size) => product * size, 1);
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

  // Row q, column b: the tap there, or null. Its transpose is the matrix of deconv.
  function matrix(w) {
    const rows = Array.from({ length: count(w.small) }, () => new Array(count(w.big)).fill(null));
    for (const { b, q, t } of w.triples) rows[q][b] = t;
    return rows;
  }

  const inner = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

  // The triples that a choice such as { q: 2 } or { q: 2, b: 3 } takes part in.
  function partners(w, choice) {
    return w.triples.filter((triple) => Object.entries(choice).every(([name, index]) => triple[name] === index));
  }

  return { window: windowOf, conv, deconv, matrix, inner, partners, count };
})();
