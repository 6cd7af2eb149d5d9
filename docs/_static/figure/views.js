// The views as SVG: gather, scatter, the kernel, and the matrix beside its transpose. Each cell knows which choice it
// stands for, and which value it lets the reader change.
"use strict";

const Views = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const CELL = 30;
  const PITCH = 34;

  const hue = (tap, taps) => Math.round((360 * tap) / Math.max(taps, 3) + 20) % 360;

  function element(parent, name, attributes = {}, text = "") {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    parent.append(made);
    return made;
  }

  // A value in a square. Where it can be chosen, `choice` is what it stands for; `nudge` is the value behind it.
  function cell(parent, { x, y, text, label, choice, kind, tap, taps, size = CELL, nudge }) {
    const group = element(parent, "g", { class: `cell ${kind}`, transform: `translate(${x} ${y})` });
    if (choice) {
      Object.assign(group, { choice, nudge });
      group.dataset.choice = JSON.stringify(choice);
      for (const [name, value] of [["aria-label", label], ["role", "button"], ["tabindex", "-1"]]) group.setAttribute(name, value);
    }
    if (tap != null) group.style.setProperty("--hue", hue(tap, taps));
    element(group, "rect", { width: size, height: size, rx: size > 16 ? 4 : 2 });
    if (size >= 16) element(group, "text", { x: size / 2, y: size / 2, class: String(text).length > 3 ? "value long" : "value" }, text);
  }

  function frame(place, width, height, title) {
    place.replaceChildren();
    const svg = element(place, "svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title });
    svg.style.width = `${width}px`; // shrinks to the page, down to the least that can be read
    svg.style.minWidth = `${Math.min(width, 0.62 * width + 40)}px`;
    return svg;
  }

  const caption = (svg, x, y, text) => element(svg, "text", { x, y, class: "caption" }, text);

  // ---- one axis: two rows of cells, and a line for every triple

  function line(place, w, { x, y, upper, title }) {
    const a = w.axes[0];
    const [before, behind] = [Math.max(0, a.low), Math.max(0, a.high)];
    const column = (b) => 44 + (b + before) * PITCH;
    const middle = (q) => column(q * a.stride - a.low + (a.span - 1) / 2);
    const width = Math.max(column(a.big + behind), middle(a.small - 1) + CELL) + 8;
    const svg = frame(place, width, 158, title);
    const [bigTop, smallTop] = upper === "x" ? [16, 112] : [112, 16];
    const [near, far] = upper === "x" ? [bigTop + CELL, smallTop] : [bigTop, smallTop + CELL];
    for (const { b, q, t } of w.triples) {
      const ends = { x1: column(b) + CELL / 2, y1: near, x2: middle(q) + CELL / 2, y2: far, class: "link" };
      const drawn = element(svg, "line", ends);
      drawn.style.setProperty("--hue", hue(t, a.kernel));
      drawn.triple = { b, q, t };
    }
    caption(svg, 2, bigTop + 20, x.name);
    caption(svg, 2, smallTop + 20, y.name);
    for (let b = -before; b < a.big + behind; b++) {
      const inside = b >= 0 && b < a.big;
      cell(svg, { x: column(b), y: bigTop, ...(inside ? x.cell(b, `[${b}]`) : { kind: "pad", text: "0" }) });
    }
    for (let q = 0; q < a.small; q++) cell(svg, { x: middle(q), y: smallTop, ...y.cell(q, `[${q}]`) });
  }

  // ---- two axes: two grids side by side

  function grid(svg, left, top, sizes, make, pads) {
    const [[up, down], [before, behind]] = pads;
    for (let row = -up; row < sizes[0] + down; row++) {
      for (let column = -before; column < sizes[1] + behind; column++) {
        const inside = row >= 0 && row < sizes[0] && column >= 0 && column < sizes[1];
        const place = { x: left + (column + before) * PITCH, y: top + (row + up) * PITCH };
        const found = inside ? make(row * sizes[1] + column, `[${row}, ${column}]`) : { kind: "pad", text: "0" };
        cell(svg, { ...place, ...found });
      }
    }
  }

  const NO_PADS = [[0, 0], [0, 0]];

  function plane(place, w, { x, y, upper, title }) {
    const pads = w.axes.map((a) => [Math.max(0, a.low), Math.max(0, a.high)]);
    const extent = (sizes, around) => sizes.map((n, i) => (n + around[i][0] + around[i][1]) * PITCH);
    const [bigHeight, bigWidth] = extent(w.big, pads);
    const [smallHeight, smallWidth] = extent(w.small, NO_PADS);
    const svg = frame(place, bigWidth + smallWidth + 48, Math.max(bigHeight, smallHeight) + 24, title);
    const [bigLeft, smallLeft] = upper === "x" ? [2, bigWidth + 44] : [smallWidth + 44, 2];
    element(svg, "text", { x: (upper === "x" ? bigWidth : smallWidth) + 22, y: 50, class: "arrow" }, "→");
    caption(svg, bigLeft, 14, x.name);
    caption(svg, smallLeft, 14, y.name);
    grid(svg, bigLeft, 22, w.big, x.cell, pads);
    grid(svg, smallLeft, 22, w.small, y.cell, NO_PADS);
  }

  // One array of a view: its cells, which can be changed where `array` names one.
  const side = (kind, name, letter, values, array) => ({
    name,
    cell: (index, where) => ({
      kind, text: values[index], choice: { [letter]: index }, label: `${name}${where} = ${values[index]}`,
      nudge: array && { array, index },
    }),
  });

  const draw = (place, w, parts) => (w.axes.length === 1 ? line : plane)(place, w, parts);

  const gather = (place, w, { x, ax }) =>
    draw(place, w, { x: side("x", "x", "b", x, "x"), y: side("y", "Ax", "q", ax), upper: "x", title: "gather: conv" });

  const scatter = (place, w, { y, aty }) =>
    draw(place, w, { x: side("x", "A′y", "b", aty), y: side("y", "y", "q", y, "y"), upper: "y", title: "scatter: deconv" });

  function taps(place, w, kernel) {
    const sizes = w.kernel.length === 1 ? [1, ...w.kernel] : w.kernel;
    const svg = frame(place, sizes[1] * PITCH + 4, sizes[0] * PITCH + 4, "kernel");
    const own = side("tap", "kernel", "t", kernel, "kernel");
    grid(svg, 2, 2, sizes, (t, where) => ({ ...own.cell(t, where), tap: t, taps: kernel.length }), NO_PADS);
  }

  function matrix(place, w, kernel, transposed) {
    const rows = Arithmetic.matrix(w);
    const [height, width] = transposed ? [rows[0].length, rows.length] : [rows.length, rows[0].length];
    const size = Math.max(7, Math.min(26, Math.floor(420 / Math.max(width, height))));
    const svg = frame(place, width * size + 4, height * size + 4, transposed ? "matrix of deconv" : "matrix of conv");
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const [q, b] = transposed ? [column, row] : [row, column];
        const tap = rows[q][b];
        cell(svg, {
          x: 2 + column * size, y: 2 + row * size, size: size - 1, kind: tap === null ? "zero" : "entry", tap,
          taps: kernel.length, text: tap === null ? "" : kernel[tap], choice: { q, b },
          label: `row ${row}, column ${column}: ${tap === null ? 0 : kernel[tap]}`,
        });
      }
    }
  }

  const same = (a, b) => Boolean(a && b) && a.b === b.b && a.q === b.q && a.t === b.t;

  // Light what takes part in the triples of the choice.
  function light(root, choice, found) {
    const parts = { b: new Set(), q: new Set(), t: new Set() };
    const pairs = new Set(found.map(({ b, q }) => `${q},${b}`));
    const drawn = new Set(found.map(({ b, q, t }) => `${b},${q},${t}`));
    for (const triple of [...found, ...(choice ? [choice] : [])]) {
      for (const [name, index] of Object.entries(triple)) parts[name].add(index);
    }
    root.classList.toggle("chosen", Boolean(choice));
    for (const group of root.querySelectorAll(".cell[data-choice]")) {
      const { b, q, t } = group.choice;
      const here = same(group.choice, choice);
      const entry = b !== undefined && q !== undefined;
      const lit = entry ? pairs.has(`${q},${b}`) : parts.b.has(b) || parts.q.has(q) || parts.t.has(t);
      group.toggleAttribute("data-lit", lit || here);
      group.toggleAttribute("data-here", here);
      group.setAttribute("aria-pressed", String(here));
    }
    for (const link of root.querySelectorAll(".link")) {
      const { b, q, t } = link.triple;
      link.toggleAttribute("data-lit", drawn.has(`${b},${q},${t}`));
    }
  }

  // The nearest cell of the same view that lies more in that direction than aside.
  function neighbor(group, [right, down]) {
    const from = group.getBoundingClientRect();
    let [best, least] = [null, Infinity];
    for (const other of group.closest("svg").querySelectorAll(".cell[data-choice]")) {
      const to = other.getBoundingClientRect();
      const [dx, dy] = [to.x - from.x, to.y - from.y];
      const along = dx * right + dy * down;
      const aside = Math.abs(dx * down) + Math.abs(dy * right);
      if (along > 1 && aside < along && along + 3 * aside < least) [best, least] = [other, along + 3 * aside];
    }
    return best;
  }

  return { gather, scatter, taps, matrix, light, neighbor, same };
})();
