// What a mouse, fingers and keys do to the cells of a figure.
"use strict";

const Input = (() => {
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const cellAt = (target) => target.closest?.(".cell[data-choice]") ?? null;

  // `point` hears of the choice under the mouse, or null; `choose` of the cell that is clicked, tapped or reached by a
  // key. `keys` are further keys and what they do.
  function listen(root, { point, choose, keys }) {
    let [mouse, pointed] = ["", null]; // what moves under a mouse at rest is not pointed at

    root.addEventListener("pointermove", (event) => {
      const before = mouse;
      mouse = `${event.clientX},${event.clientY}`;
      const choice = cellAt(event.target)?.choice ?? null;
      if (event.pointerType !== "mouse" || mouse === before || Light.same(choice, pointed)) return;
      if (choice !== null || pointed !== null) point(choice);
      pointed = choice;
    });
    root.addEventListener("pointerleave", () => {
      if (pointed !== null) point(null);
      pointed = null;
    });
    root.addEventListener("click", (event) => {
      const cell = cellAt(event.target);
      if (cell) choose(cell);
    });
    root.addEventListener("focusin", (event) => {
      if (event.target.matches?.(".cell[data-choice]:focus-visible")) choose(event.target);
    });
    root.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || root.matches(".impossible")) return;
      const cell = cellAt(event.target);
      if (cell && MOVES[event.key]) Light.neighbor(cell, MOVES[event.key])?.focus();
      else if (cell && (event.key === "Enter" || event.key === " ")) choose(cell);
      else if (keys[event.key]) keys[event.key]();
      else return;
      event.preventDefault();
    });
  }

  return { listen };
})();
