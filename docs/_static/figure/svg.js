// The parts of every picture: squares with a value in them, and the frame around a picture.
"use strict";

const Svg = (() => {
  const CELL = 30;
  const PITCH = 34;

  const hue = (tap, taps) => Math.round((360 * tap) / Math.max(taps, 3) + 20) % 360;

  function element(parent, name, attributes = {}, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    parent.append(made);
    return made;
  }

  // A square at (x, y). `read` gives its value, from all numbers of the figure. Where it can be chosen, `choice` is
  // what it stands for, `label` its name, and `nudge` the value that the reader may change.
  function cell(parent, { x, y, kind, read, choice, label, nudge, tap, taps, size = CELL }) {
    const group = element(parent, "g", { class: `cell ${kind}`, transform: `translate(${x} ${y})` });
    Object.assign(group, { read, choice, label, nudge });
    if (choice) {
      group.dataset.choice = JSON.stringify(choice);
      group.setAttribute("role", "button");
      group.setAttribute("tabindex", "-1");
    }
    if (tap !== undefined) tint(group, tap, taps);
    element(group, "rect", { width: size, height: size, rx: size > 16 ? 4 : 2 });
    if (size >= 16) group.value = element(group, "text", { x: size / 2, y: size / 2, class: "value" });
    return group;
  }

  const tint = (group, tap, taps) => group.style.setProperty("--hue", hue(tap, taps));

  // Put the value of a cell into it.
  function write(group, numbers) {
    const text = String(group.read(numbers) ?? "");
    if (group.value) {
      group.value.textContent = text;
      group.value.classList.toggle("long", text.length > 3);
    }
    const value = text === "" ? ", not computed yet" : ` = ${text}`;
    if (group.label) group.setAttribute("aria-label", group.label + value);
  }

  // An empty picture that fills its place, between the least size that can be read and a few times its own.
  function frame(place, width, height, title, largest = 1) {
    place.replaceChildren();
    const svg = element(place, "svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title });
    svg.style.maxWidth = `${largest * width}px`;
    svg.style.minWidth = `${Math.min(width, 0.55 * width + 60)}px`;
    return svg;
  }

  const caption = (svg, x, y, text, kind = "") => element(svg, "text", { x, y, class: `caption ${kind}` }, text);

  const where = (index, sizes) => `[${Arithmetic.coordinates(index, sizes).join(", ")}]`;

  return { CELL, PITCH, hue, element, cell, tint, write, frame, caption, where };
})();
