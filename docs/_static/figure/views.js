// The three views as data, for one axis and for two. In each a window lies over the cells of a long array, at a place
// for every cell of a short one:
//
//   gather     conv: the window over x reads the cells under it, and their sum is one cell of the result
//   scatter    deconv: one cell of y, times the kernel, is added to the cells under the window
//   insertion  deconv again, as a conv: the window, flipped, over y with zeros put in
"use strict";

const Views = (() => {
  const cells = (sizes, make) => Array.from({ length: Arithmetic.count(sizes) }, (_, index) => make(index));

  // A cell of an array that the reader may change, or of a result.
  const own = (kind, name, letter, index, sizes, read, array) => ({
    kind, read, choice: { [letter]: index }, label: name + Svg.where(index, sizes), nudge: array && { array, index },
  });

  const steps = (w) => w.axes.map(({ stride, span, dilation }) => ({ first: 0, step: stride, span, dilation }));

  const gather = (w) => ({
    title: "conv gathers", longOnTop: true, flipped: false, letters: ["e", "q"], triples: w.stamps,
    long: { name: "x", sizes: w.wide, cells: cells(w.wide, (e) => {
      const b = w.inside[e];
      return b === null ? { kind: "pad", read: () => 0 } : own("x", "x", "b", b, w.big, (n) => n.x[b], "x");
    }) },
    short: { name: "conv(x)", sizes: w.small, cells: cells(w.small, (q) =>
      own("y", "conv(x)", "q", q, w.small, (n) => n.conv[q])) },
    places: steps(w),
    onWindow: (t, n) => n.kernel[t],
  });

  const scatter = (w) => ({
    title: "deconv scatters", longOnTop: false, flipped: false, letters: ["e", "q"], triples: w.stamps,
    long: { name: "deconv(y)", sizes: w.wide, cells: cells(w.wide, (e) => {
      const b = w.inside[e];
      const read = (n) => n.uncropped[e];
      return b === null ? { kind: "cropped", read } : own("x", "deconv(y)", "b", b, w.big, read);
    }) },
    short: { name: "y", sizes: w.small, cells: cells(w.small, (q) =>
      own("y", "y", "q", q, w.small, (n) => n.y[q], "y")) },
    places: steps(w),
    onWindow: (t, n, q) => n.kernel[t] * n.y[q],
  });

  const insertion = (w) => ({
    title: "deconv as a conv over inserted zeros", longOnTop: true, flipped: true, letters: ["u", "b"],
    triples: w.reads,
    long: { name: "y, zeros", sizes: w.inserted, cells: cells(w.inserted, (u) => {
      const q = w.source[u];
      return q === null ? { kind: "inserted", read: () => 0 } : own("y", "y", "q", q, w.small, (n) => n.y[q], "y");
    }) },
    short: { name: "deconv(y)", sizes: w.big, cells: cells(w.big, (b) =>
      own("x", "deconv(y)", "b", b, w.big, (n) => n.overZeros[b])) },
    places: w.axes.map(({ first, span, dilation }) => ({ first, step: 1, span, dilation })),
    onWindow: (t, n) => n.kernel[t],
  });

  // The triples of a view that take part in a choice. A tap meets a put-in zero nearly everywhere: these are left out.
  function lit(view, choice) {
    const found = Arithmetic.partners(view.triples, choice);
    return choice.t === undefined ? found : found.filter(({ b, q }) => b !== null && q !== null);
  }

  // Which cell of the short array the window is at, or undefined.
  const placeOf = (view, choice) => choice[view.letters[1]];

  return { gather, scatter, insertion, lit, placeOf };
})();
