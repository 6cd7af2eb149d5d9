// The three views as SVG: gather, scatter, and the matrix beside its transpose. Each cell knows which choice it stands for.
"use strict";

const Views = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const CELL = 30;
  const GAP = 4;

  function element(parent, name, attributes = {}, text = "") {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    parent.append(made);
    return made;
  }

  // A value in a square. `choice` is what pointing at it chooses; `hue` colors it as a tap.
  function cell(parent, { x, y, text, label, choice, kind, tap, taps, size = CELL, nudge = null }) {
    const group = element(parent, "g", { class: `cell ${kind}`, transform: `translate(${x} ${y})` });
    if (choice) {
      group.dataset.choice = JSON.stringify(choice);
      group.setAttribute("aria-label", label);
      group.setAttribute("role", "button");
      group.setAttribute("tabindex", "-1");
    }
    if (nudge) group.dataset.nudge = JSON.stringify(nudge);
    if (tap != null) group.style.setProperty("--hue", Math.round((360 * tap) / Math.max(taps, 3) + 20) % 360);
    element(group, "rect", { width: size, height: size, rx: size > 16 ? 4 : 2 });
    if (size >= 16) {
      const small = String(text).length > 3 ? " long" : "";
      element(group, "text", { x: size / 2, y: size / 2, class: `value${small}` }, text);
    }
    return group;
  }

  function frame(place, width, height, title) {
    place.replaceChildren();
    const svg = element(place, "svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title });
    svg.style.width = `${width}px`; // shrinks to the page, down to the least that can be read
    svg.style.minWidth = `${Math.min(width, 0.62 * width + 40)}px`;
    return svg;
  }

  const caption = (svg, x, y, text) => element(svg, "text", { x, y, class: "caption" }, text);
  const pitch = CELL + GAP;

  // ---- one axis: two rows of cells, and a line for every triple

  function line(place, w, { top, bottom, title, names }) {
    const a = w.axes[0];
    const before = Math.max(0, a.low);
    const behind = Math.max(0, a.high);
    const left = 44;
    const column = (b) => left + (b + before) * pitch;
    const middle = (q) => column(q * a.stride - a.low + (a.span - 1) / 2);
    const width = Math.max(column(a.big + behind), middle(a.small - 1) + CELL) + 8;
    const svg = frame(place, width, 158, title);
    const rows = { big: top.role === "x" ? 16 : 112, small: top.role === "x" ? 112 : 16 };
    const lines = element(svg, "g", { class: "lines" });
    for (const { b, q, t } of w.triples) {
      const [near, far] = rows.big < rows.small ? [rows.big + CELL, rows.small] : [rows.big, rows.small + CELL];
      const drawn = element(lines, "line", {
        x1: column(b) + CELL / 2, y1: near, x2: middle(q) + CELL / 2, y2: far, class: "link",
      });
      drawn.style.setProperty("--hue", Math.round((360 * t) / Math.max(a.kernel, 3) + 20) % 360);
      drawn.dataset.triple = JSON.stringify({ b, q, t });
    }
    caption(svg, 2, rows.big + 20, names.big);
    caption(svg, 2, rows.small + 20, names.small);
    const big = top.role === "x" ? top : bottom;
    const small = top.role === "y" ? top : bottom;
    for (let b = -before; b < a.big + behind; b++) {
      const inside = b >= 0 && b < a.big;
      cell(svg, {
        x: column(b), y: rows.big, kind: inside ? "x" : "pad", text: inside ? big.values[b] : "0",
        choice: inside ? { b } : null, label: `${names.big}[${b}] = ${big.values[b]}`,
        nudge: inside && big.free ? { array: "x", index: b } : null,
      });
    }
    small.values.forEach((value, q) =>
      cell(svg, {
        x: middle(q), y: rows.small, kind: "y", text: value, choice: { q }, label: `${names.small}[${q}] = ${value}`,
        nudge: small.free ? { array: "y", index: q } : null,
      }),
    );
  }

  // ---- two axes: two grids side by side

  function grid(svg, left, top, sizes, make, pads = [[0, 0], [0, 0]]) {
    const [[up, down], [before, behind]] = pads.map((pair) => pair.map((pad) => Math.max(0, pad)));
    for (let row = -up; row < sizes[0] + down; row++) {
      for (let column = -before; column < sizes[1] + behind; column++) {
        const inside = row >= 0 && row < sizes[0] && column >= 0 && column < sizes[1];
        const place = { x: left + (column + before) * pitch, y: top + (row + up) * pitch };
        cell(svg, { ...place, ...(inside ? make(row * sizes[1] + column, row, column) : { kind: "pad", text: "0" }) });
      }
    }
    return { width: (before + sizes[1] + behind) * pitch, height: (up + sizes[0] + down) * pitch };
  }

  function plane(place, w, { top, bottom, title, names }) {
    const pads = w.axes.map((a) => [a.low, a.high]);
    const first = top.role === "x";
    const extent = (sizes, p) => sizes.map((n, i) => (n + Math.max(0, p[i][0]) + Math.max(0, p[i][1])) * pitch);
    const [bigHeight, bigWidth] = extent(w.big, pads);
    const [smallHeight, smallWidth] = extent(w.small, [[0, 0], [0, 0]]);
    const svg = frame(place, bigWidth + smallWidth + 48, Math.max(bigHeight, smallHeight) + 24, title);
    const x = first ? top : bottom;
    const y = first ? bottom : top;
    const bigLeft = first ? 2 : smallWidth + 44;
    const smallLeft = first ? bigWidth + 44 : 2;
    element(svg, "text", { x: (first ? bigWidth : smallWidth) + 22, y: 50, class: "arrow" }, "→");
    caption(svg, bigLeft, 14, names.big);
    caption(svg, smallLeft, 14, names.small);
    grid(svg, bigLeft, 22, w.big, (b, row, column) => ({
      kind: "x", text: x.values[b], choice: { b }, label: `${names.big}[${row}, ${column}] = ${x.values[b]}`,
      nudge: x.free ? { array: "x", index: b } : null,
    }), pads);
    grid(svg, smallLeft, 22, w.small, (q, row, column) => ({
      kind: "y", text: y.values[q], choice: { q }, label: `${names.small}[${row}, ${column}] = ${y.values[q]}`,
      nudge: y.free ? { array: "y", index: q } : null,
    }));
  }

  const either = (place, w, parts) => (w.axes.length === 1 ? line : plane)(place, w, parts);

  function gather(place, w, { x, ax }) {
    const [top, bottom] = [{ role: "x", values: x, free: true }, { role: "y", values: ax, free: false }];
    either(place, w, { top, bottom, title: "gather: conv", names: { big: "x", small: "Ax" } });
  }

  function scatter(place, w, { y, aty }) {
    const [top, bottom] = [{ role: "y", values: y, free: true }, { role: "x", values: aty, free: false }];
    either(place, w, { top, bottom, title: "scatter: deconv", names: { big: "A′y", small: "y" } });
  }

  function taps(place, w, kernel) {
    const sizes = w.kernel.length === 1 ? [1, ...w.kernel] : w.kernel;
    const svg = frame(place, sizes[1] * pitch + 4, sizes[0] * pitch + 4, "kernel");
    grid(svg, 2, 2, sizes, (t) => ({
      kind: "tap", tap: t, taps: kernel.length, text: kernel[t], choice: { t }, label: `kernel[${t}] = ${kernel[t]}`,
      nudge: { array: "kernel", index: t },
    }));
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
        const text = tap === null ? "" : kernel[tap];
        cell(svg, {
          x: 2 + column * size, y: 2 + row * size, size: size - 1, kind: tap === null ? "zero" : "entry", tap, text,
          taps: kernel.length, choice: { q, b }, label: `row ${row}, column ${column}: ${tap === null ? 0 : text}`,
        });
      }
    }
  }

  // Light what takes part in the triples of the choice.
  function light(root, choice, found) {
    const parts = { b: new Set(), q: new Set(), t: new Set() };
    const pairs = new Set(found.map(({ b, q }) => `${q},${b}`));
    for (const triple of found) for (const name of "bqt") parts[name].add(triple[name]);
    if (choice) for (const [name, index] of Object.entries(choice)) parts[name].add(index);
    root.classList.toggle("chosen", Boolean(choice));
    for (const group of root.querySelectorAll("[data-choice]")) {
      const { b, q, t } = JSON.parse(group.dataset.choice);
      const names = Object.entries({ b, q, t }).filter(([, index]) => index !== undefined);
      const entry = b !== undefined && q !== undefined;
      const here = choice && entry && choice.q === q && choice.b === b;
      group.toggleAttribute("data-lit", entry ? pairs.has(`${q},${b}`) || here : names.some(([n, i]) => parts[n].has(i)));
      group.toggleAttribute("data-here", Boolean(choice) && group.dataset.choice === JSON.stringify(choice));
    }
    const drawn = new Set(found.map((triple) => JSON.stringify(triple)));
    for (const link of root.querySelectorAll("[data-triple]")) {
      link.toggleAttribute("data-lit", drawn.has(link.dataset.triple));
    }
  }

  return { gather, scatter, taps, matrix, light };
})();
