// The kernel alone, and the matrix of conv beside its transpose, which is that of deconv.
"use strict";

const Matrix = (() => {
  const { PITCH } = Svg;

  function kernel(place, w) {
    const sizes = w.kernel.length === 1 ? [1, ...w.kernel] : w.kernel;
    const svg = Svg.frame(place, sizes[1] * PITCH + 4, sizes[0] * PITCH + 4, "kernel");
    const taps = Arithmetic.count(sizes);
    for (let t = 0; t < taps; t++) {
      const [row, column] = Arithmetic.coordinates(t, sizes);
      Svg.cell(svg, {
        x: 2 + column * PITCH, y: 2 + row * PITCH, kind: "tap", tap: t, taps, choice: { t },
        read: (n) => n.kernel[t], label: `kernel${Svg.where(t, w.kernel)}`, nudge: { array: "kernel", index: t },
      });
    }
  }

  function matrix(place, w, transposed) {
    const rows = Arithmetic.matrix(w);
    const [height, width] = transposed ? [rows[0].length, rows.length] : [rows.length, rows[0].length];
    const size = Math.max(7, Math.min(26, Math.floor(420 / Math.max(width, height))));
    const title = transposed ? "matrix of deconv" : "matrix of conv";
    const svg = Svg.frame(place, width * size + 4, height * size + 4, title);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const [q, b] = transposed ? [column, row] : [row, column];
        const tap = rows[q][b];
        Svg.cell(svg, {
          x: 2 + column * size, y: 2 + row * size, size: size - 1, choice: { q, b },
          label: `row ${row}, column ${column}`, read: (n) => (tap === null ? 0 : n.kernel[tap]),
          kind: tap === null ? "zero" : "entry", tap: tap ?? undefined, taps: Arithmetic.count(w.kernel),
        });
      }
    }
  }

  return { kernel, matrix };
})();
