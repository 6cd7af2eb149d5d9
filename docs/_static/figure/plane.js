// A view of two axes: the long array and the short one as grids, side by side, and a frame where the kernel lies.
"use strict";

const Plane = (() => {
  const { CELL, PITCH } = Svg;
  const TOP = 24;
  const GAP = 44;

  // Draws a view of a window into its place; returns how to show a state in it.
  function draw(place, w, view) {
    const { long, short, longOnTop, letters: [longLetter] } = view;
    const parts = longOnTop ? [long, short] : [short, long];
    const lefts = [2, parts[0].sizes[1] * PITCH + GAP + 2];
    const height = Math.max(long.sizes[0], short.sizes[0]) * PITCH;
    const width = lefts[1] + Math.max(parts[1].sizes[1] * PITCH, 70);
    const svg = Svg.frame(place, width, height + TOP + 4, view.title, 1.15);
    Svg.caption(svg, lefts[1] - GAP / 2 - 2, TOP + 24, "→", "arrow");
    const grid = (array) => {
      const left = lefts[parts.indexOf(array)];
      Svg.caption(svg, left, 14, array.name);
      return array.cells.map((cell, index) => {
        const [row, column] = Arithmetic.coordinates(index, array.sizes);
        return Svg.cell(svg, { x: left + column * PITCH, y: TOP + row * PITCH, ...cell });
      });
    };
    const groups = { long: grid(long), short: grid(short) };
    const corner = { x: CELL - 2, y: CELL - 3, class: "corner" };
    const corners = groups.long.map((group) => Svg.element(group, "text", corner));

    const left = lefts[parts.indexOf(long)];
    const extent = view.places.map(({ span }) => (span - 1) * PITCH + CELL + 6);
    const ruler = Svg.element(svg, "g", { class: "ruler" });
    Svg.element(ruler, "rect", { x: -3, y: -3, width: extent[1], height: extent[0], rx: 6, class: "hollow" });

    function move(s) {
      ruler.classList.toggle("away", s === undefined);
      if (s === undefined) return;
      const at = Arithmetic.coordinates(s, short.sizes);
      const [row, column] = view.places.map(({ first, step }, axis) => first + at[axis] * step);
      ruler.style.transform = `translate(${left + column * PITCH}px, ${TOP + row * PITCH}px)`;
    }

    return { svg, groups, show(choice, found, numbers) {
      const s = Views.placeOf(view, choice);
      move(s);
      corners.forEach((text) => (text.textContent = ""));
      groups.long.forEach((group) => group.classList.remove("tinted"));
      if (s === undefined) return;
      for (const triple of found) {
        const i = triple[longLetter];
        corners[i].textContent = (longOnTop ? "×" : "+") + view.onWindow(triple.t, numbers, s);
        groups.long[i].classList.add("tinted");
        Svg.tint(groups.long[i], triple.t, Arithmetic.count(w.kernel));
      }
    } };
  }

  return { draw };
})();
