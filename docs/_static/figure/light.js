// Which cells are lit for a choice, and which cell lies beside another.
"use strict";

const Light = (() => {
  const same = (a, b) => Boolean(a && b) && a.b === b.b && a.q === b.q && a.t === b.t;

  const indices = (triples, letter) => new Set(triples.map((triple) => triple[letter]));

  function mark(group, lit, choice) {
    const here = Boolean(choice) && same(group.choice, choice);
    group.toggleAttribute("data-lit", lit || here);
    group.toggleAttribute("data-here", here);
    if (group.choice) group.setAttribute("aria-pressed", String(here));
  }

  // A view: the cells of both arrays that take part in the triples found, and those that the choice names.
  function view({ groups, letters }, found, choice) {
    const [longs, shorts] = letters.map((letter) => indices(found, letter));
    const named = (group) => Object.entries(group.choice ?? {}).some(([letter, index]) => choice[letter] === index);
    groups.long.forEach((group, i) => mark(group, longs.has(i) || named(group), choice));
    groups.short.forEach((group, i) => mark(group, shorts.has(i) || named(group), choice));
  }

  // The kernel and the matrices: `found` are triples with a cell inside of x.
  function rest(places, found, choice) {
    const taps = indices(found, "t");
    const pairs = new Set(found.map(({ b, q }) => `${q},${b}`));
    for (const group of places.flatMap((place) => [...place.querySelectorAll(".cell")])) {
      const { b, q, t } = group.choice;
      mark(group, t === undefined ? pairs.has(`${q},${b}`) : taps.has(t), choice);
    }
  }

  // The nearest cell of the same picture that lies more in that direction than aside.
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

  return { same, view, rest, neighbor };
})();
