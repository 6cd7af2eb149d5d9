// A view of one axis: the long array, the kernel that slides along it, the short array, and a line for every product.
"use strict";

const Line = (() => {
  const { CELL, PITCH } = Svg;
  const LEFT = 84;
  const HEIGHT = 176;
  const ROWS = { top: 16, aboveWindow: 52, belowWindow: 92, bottom: 130 };
  const INDEX = 12; // from a cell to its number

  // Draws a view of a window into its place; returns how to show a state in it.
  function draw(place, w, view) {
    const [taps] = w.kernel;
    const [{ first, step, span, dilation }] = view.places;
    const column = (i) => LEFT + i * PITCH;
    const middle = (s) => column(first + s * step + (span - 1) / 2);
    const { long, short, longOnTop, letters: [longLetter, shortLetter] } = view;
    const right = Math.max(column(long.sizes[0]), middle(short.sizes[0] - 1) + PITCH);
    const svg = Svg.frame(place, right + 4, HEIGHT, view.title, 1.6);
    const [longTop, windowTop, shortTop] = longOnTop
      ? [ROWS.top, ROWS.aboveWindow, ROWS.bottom] : [ROWS.bottom, ROWS.belowWindow, ROWS.top];
    const [near, far] = longOnTop ? [longTop + CELL, shortTop] : [longTop, shortTop + CELL];

    const lines = view.triples.map((triple) => {
      const [i, s] = [triple[longLetter], triple[shortLetter]];
      const ends = { x1: column(i) + CELL / 2, y1: near, x2: middle(s) + CELL / 2, y2: far };
      const line = Svg.element(svg, "line", { ...ends, class: "link" });
      Svg.tint(line, triple.t, taps);
      return { line, triple };
    });
    Svg.caption(svg, 2, longTop + 20, long.name);
    Svg.caption(svg, 2, shortTop + 20, short.name);
    const number = (x, top, onTop, text) =>
      Svg.caption(svg, x + CELL / 2, onTop ? top - 4 : top + CELL + INDEX, text, "index");
    const row = (array, top, onTop, x) => array.cells.map((cell, i) => {
      if (cell.choice) number(x(i), top, onTop, Object.values(cell.choice)[0]);
      return Svg.cell(svg, { x: x(i), y: top, ...cell });
    });
    const groups = {
      long: row(long, longTop, longOnTop, column),
      short: row(short, shortTop, !longOnTop, middle),
    };

    // The kernel at its place. It slides, so its cells are in a group that moves.
    const ruler = Svg.element(svg, "g", { class: "ruler" });
    const ground = { x: -2, y: windowTop - 2, width: (span - 1) * PITCH + CELL + 4, height: CELL + 4, rx: 6 };
    Svg.element(ruler, "rect", { ...ground, class: "ground" });
    const onWindow = Array.from({ length: taps }, (_, i) => {
      const t = view.flipped ? taps - 1 - i : i;
      const group = Svg.cell(ruler, { x: i * dilation * PITCH, y: windowTop, kind: "stamp", tap: t, taps });
      group.read = (numbers) => view.onWindow(t, numbers, ruler.place);
      return group;
    });
    const name = Svg.caption(svg, 2, windowTop + 20, "");

    function move(s) {
      ruler.classList.toggle("away", s === undefined);
      name.textContent = s === undefined ? "" : longOnTop ? (view.flipped ? "flipped" : "kernel") : `y[${s}]·kernel`;
      ruler.place = s;
      if (s !== undefined) ruler.style.transform = `translateX(${column(first + s * step)}px)`;
    }

    return { svg, groups, show(choice, found, numbers) {
      move(Views.placeOf(view, choice));
      if (ruler.place !== undefined) onWindow.forEach((group) => Svg.write(group, numbers));
      const drawn = new Set(found);
      for (const { line, triple } of lines) line.toggleAttribute("data-lit", drawn.has(triple));
    } };
  }

  return { draw };
})();
