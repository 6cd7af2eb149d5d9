// The page: its settings, which travel in the link, its values, and what is chosen in any view.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("figure");
  if (!root) return;
  const LIMITS = {
    1: { big: [1, 16], kernel: [1, 6], stride: [1, 4], padding: [0, 4], dilation: [1, 3] },
    2: { big: [1, 7], kernel: [1, 4], stride: [1, 3], padding: [0, 3], dilation: [1, 2] },
  };
  const START = { 1: { big: [8], kernel: [3], stride: [2], padding: [1], dilation: [1] },
    2: { big: [5, 4], kernel: [3, 2], stride: [2, 1], padding: [1, 0], dilation: [1, 1] } };
  const LETTERS = { big: "i", kernel: "k", stride: "s", padding: "p", dilation: "d" };
  const WORDS = { big: "input size", kernel: "kernel", stride: "stride", padding: "padding", dilation: "dilation" };
  const START_VALUES = { x: (n) => ((5 * n + 3) % 7) - 1, y: (n) => ((3 * n + 2) % 5) - 1, kernel: (n) => n + 1 };
  const part = (name) => root.querySelector(`[data-part="${name}"]`);

  let settings = read(location.hash) ?? structuredClone(START[1]);
  const changed = { x: {}, y: {}, kernel: {} }; // values that are not as they began, by index
  let chosen = null; // stays
  let pointed = null; // while the pointer is there
  let shown = null; // the window, or null where there is none

  function read(link) {
    const found = new URLSearchParams(link.replace(/^#/, ""));
    const result = {};
    for (const [name, letter] of Object.entries(LETTERS)) {
      const numbers = (found.get(letter) ?? "").split(",").map(Number);
      const limits = LIMITS[numbers.length]?.[name];
      const fits = limits && numbers.every((n) => Number.isInteger(n) && limits[0] <= n && n <= limits[1]);
      if (!found.has(letter) || !fits) return null;
      result[name] = numbers;
    }
    return new Set(Object.values(result).map((numbers) => numbers.length)).size === 1 ? result : null;
  }

  const link = () => "#" + Object.entries(LETTERS).map(([name, letter]) => `${letter}=${settings[name]}`).join("&");
  const rank = () => settings.big.length;
  const values = (array, sizes) =>
    Array.from({ length: Arithmetic.count(sizes) }, (_, n) => changed[array][n] ?? START_VALUES[array](n));

  // ---- controls: made once for a number of axes, then kept in step, so that a slider can be dragged

  let sliders = [];

  function slider(name, label, axis, change) {
    const row = document.createElement("label");
    const text = document.createElement("span");
    const input = document.createElement("input");
    const output = document.createElement("output");
    text.textContent = rank() === 1 ? label : `${label}, ${axis === 0 ? "rows" : "columns"}`;
    Object.assign(input, { type: "range", step: 1 });
    input.dataset.setting = `${name}${axis}`;
    input.addEventListener("input", () => {
      change(Number(input.value));
      update();
    });
    row.append(text, input, output);
    part("controls").append(row);
    return { axis, name, show: ([least, most], value) => {
      Object.assign(input, { min: least, max: most, value, disabled: least === most });
      output.textContent = value;
    } };
  }

  function makeControls() {
    part("controls").replaceChildren();
    sliders = [];
    const axes = settings.big.map((_, axis) => axis);
    for (const [name, label] of Object.entries(WORDS)) {
      for (const axis of axes) {
        sliders.push(slider(name, label, axis, (value) => (settings[name][axis] = value)));
      }
    }
    for (const axis of axes) {
      sliders.push(slider("outputPadding", "output_padding", axis, (value) => {
        if (shown) settings.big[axis] += value - shown.axes[axis].outputPadding;
      }));
    }
    for (const button of root.querySelectorAll("[data-rank]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.rank) === rank()));
    }
  }

  function showControls() {
    for (const { axis, name, show } of sliders) {
      if (name !== "outputPadding") {
        show(LIMITS[rank()][name], settings[name][axis]);
      } else if (shown) {
        const { big, sizes, outputPadding } = shown.axes[axis];
        const most = Math.min(sizes.at(-1), LIMITS[rank()].big[1]);
        show([sizes[0], most].map((size) => outputPadding + size - big), outputPadding);
      }
    }
  }

  // ---- what is told in words

  const tuple = (numbers) => (rank() === 1 ? `${numbers[0]}` : `(${numbers.join(", ")})`);
  const sized = (numbers) => numbers.join(" × ");

  function calls() {
    const said = [["stride", 1], ["padding", 0], ["dilation", 1]]
      .filter(([name, usual]) => settings[name].some((value) => value !== usual))
      .map(([name]) => `, ${name}=${tuple(settings[name])}`)
      .join("");
    const extra = shown.axes.map((a) => a.outputPadding);
    const more = extra.some(Boolean) ? `, output_padding=${tuple(extra)}` : "";
    part("calls").textContent = `y = conv(x, kernel${said})\nx = deconv(y, kernel${said}${more})`;
    part("shapes").textContent = `x is ${sized(shown.big)}, y is ${sized(shown.small)}.`;
  }

  function ambiguity() {
    const place = part("sizes");
    place.replaceChildren();
    shown.axes.forEach((a, axis) => {
      const line = document.createElement("p");
      const several = rank() === 1 ? "sizes" : axis === 0 ? "numbers of rows" : "numbers of columns";
      const one = rank() === 1 ? "Only size" : axis === 0 ? "In rows only" : "In columns only";
      line.append(a.sizes.length === 1 ? `${one} ${a.sizes[0]} has the answer ${a.small}. ` :
        `These ${several} share one answer, ${a.small}: `);
      for (const size of a.sizes.length === 1 ? [] : a.sizes) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = size;
        button.dataset.size = `${axis}:${size}`;
        button.disabled = size > LIMITS[rank()].big[1];
        button.setAttribute("aria-pressed", String(size === a.big));
        button.addEventListener("click", () => {
          settings.big[axis] = size;
          update();
          place.querySelector(`[data-size="${axis}:${size}"]`)?.focus();
        });
        line.append(button, " ");
      }
      place.append(line);
    });
  }

  function sentence() {
    const choice = pointed ?? chosen;
    const { x, y, kernel } = arrays();
    if (!choice) return "Point at a cell, or tap it.";
    const found = Arithmetic.partners(shown, choice);
    const name = (index, sizes) => (sizes.length === 1 ? `${index}` : `${Math.floor(index / sizes[1])},${index % sizes[1]}`);
    const [X, Y, K] = [(b) => `[${name(b, shown.big)}]`, (q) => `[${name(q, shown.small)}]`, (t) => `[${name(t, shown.kernel)}]`];
    const signed = (value) => (value < 0 ? `(${value})` : `${value}`);
    const term = (a, b) => `${signed(a)}·${signed(b)}`;
    const sum = (terms) => (terms.length ? terms.join(" + ") : "nothing");
    if (choice.b !== undefined && choice.q !== undefined) {
      if (!found.length) return `A${Y(choice.q)}${X(choice.b)} = 0: no tap lies between x${X(choice.b)} and y${Y(choice.q)}.`;
      const { t } = found[0];
      return `A${Y(choice.q)}${X(choice.b)} = kernel${K(t)} = ${kernel[t]}: conv reads x${X(choice.b)} for y${Y(choice.q)} through it, ` +
        `and deconv adds y${Y(choice.q)} to x${X(choice.b)} through the same.`;
    }
    if (choice.q !== undefined) {
      const gathered = found.map(({ b, t }) => term(kernel[t], x[b]));
      const total = found.reduce((all, { b, t }) => all + kernel[t] * x[b], 0);
      return `conv gathers: Ax${Y(choice.q)} = ${sum(gathered)} = ${total}. deconv scatters y${Y(choice.q)} = ${y[choice.q]} ` +
        `into ${found.length} cell${found.length === 1 ? "" : "s"} of A′y.`;
    }
    if (choice.b !== undefined) {
      const added = found.map(({ q, t }) => term(kernel[t], y[q]));
      const total = found.reduce((all, { q, t }) => all + kernel[t] * y[q], 0);
      return `deconv adds up: A′y${X(choice.b)} = ${sum(added)} = ${total}. conv reads x${X(choice.b)} = ${x[choice.b]} ` +
        `for ${found.length} cell${found.length === 1 ? "" : "s"} of Ax.`;
    }
    return `kernel${K(choice.t)} = ${kernel[choice.t]} ties ${found.length} pair${found.length === 1 ? "" : "s"} of cells: a diagonal of A.`;
  }

  // ---- drawing

  const arrays = () => ({
    x: values("x", shown.big), y: values("y", shown.small), kernel: values("kernel", shown.kernel),
  });

  function draw() {
    const { x, y, kernel } = arrays();
    const ax = Arithmetic.conv(shown, x, kernel);
    const aty = Arithmetic.deconv(shown, y, kernel);
    Views.taps(part("kernel"), shown, kernel);
    Views.gather(part("gather"), shown, { x, ax });
    Views.scatter(part("scatter"), shown, { y, aty });
    Views.matrix(part("matrix"), shown, kernel, false);
    Views.matrix(part("transpose"), shown, kernel, true);
    for (const view of root.querySelectorAll("svg")) view.querySelector("[data-choice]")?.setAttribute("tabindex", "0");
    part("inner-left").textContent = Arithmetic.inner(ax, y);
    part("inner-right").textContent = Arithmetic.inner(x, aty);
    light();
  }

  function light() {
    const choice = pointed ?? chosen;
    Views.light(root, choice, choice ? Arithmetic.partners(shown, choice) : []);
    part("sentence").textContent = sentence();
  }

  function update() {
    history.replaceState(null, "", link());
    try {
      shown = Arithmetic.window(settings);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      shown = null;
      part("error").textContent = `There is no such conv: ${error.message}. Pad more, or take a smaller kernel.`;
    }
    root.classList.toggle("impossible", shown === null);
    chosen = shown && chosen && fits(chosen) ? chosen : null;
    pointed = null;
    if (sliders.length !== 6 * rank()) makeControls();
    showControls();
    if (!shown) return;
    part("error").textContent = "";
    calls();
    ambiguity();
    draw();
  }

  const fits = (choice) => {
    const sizes = { b: shown.big, q: shown.small, t: shown.kernel };
    return Object.entries(choice).every(([name, index]) => index < Arithmetic.count(sizes[name]));
  };

  // ---- pointer, touch and keys

  const choiceAt = (target) => {
    const group = target.closest?.("[data-choice]");
    return group ? JSON.parse(group.dataset.choice) : null;
  };

  root.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse" || !shown) return;
    pointed = choiceAt(event.target);
    light();
  });
  root.addEventListener("pointerleave", () => {
    pointed = null;
    if (shown) light();
  });
  root.addEventListener("click", (event) => {
    if (!shown || !event.target.closest("svg")) return;
    const choice = choiceAt(event.target);
    chosen = JSON.stringify(choice) === JSON.stringify(chosen) ? null : choice;
    pointed = null;
    light();
  });
  root.addEventListener("focusin", (event) => {
    if (!shown || !event.target.matches?.("[data-choice]:focus-visible")) return;
    chosen = choiceAt(event.target);
    pointed = null;
    light();
  });

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  root.addEventListener("keydown", (event) => {
    const group = event.target.closest?.("[data-choice]");
    if (!group || !shown) return;
    if (event.key === "Escape") {
      chosen = null;
      light();
    } else if (STEPS[event.key]) {
      event.preventDefault();
      neighbor(group, STEPS[event.key])?.focus();
    } else if (["+", "=", "-"].includes(event.key) && group.dataset.nudge) {
      event.preventDefault();
      nudge(group, event.key === "-" ? -1 : 1);
    }
  });

  // The nearest cell of the same view in that direction.
  function neighbor(group, [right, down]) {
    const from = group.getBoundingClientRect();
    let best = null;
    let least = Infinity;
    for (const other of group.closest("svg").querySelectorAll("[data-choice]")) {
      const to = other.getBoundingClientRect();
      const along = (to.x - from.x + (to.width - from.width) / 2) * right + (to.y - from.y + (to.height - from.height) / 2) * down;
      const across = Math.abs((to.x - from.x) * down) + Math.abs((to.y - from.y) * right);
      if (along > 1 && along + 3 * across < least) [best, least] = [other, along + 3 * across];
    }
    return best;
  }

  function nudge(group, step) {
    const { array, index } = JSON.parse(group.dataset.nudge);
    const { view, place } = { view: group.closest("[data-part]").dataset.part, place: group.dataset.choice };
    changed[array][index] = (changed[array][index] ?? START_VALUES[array](index)) + step;
    draw();
    part(view).querySelector(`[data-choice='${place}']`)?.focus();
  }

  for (const step of [-1, 1]) {
    part(step > 0 ? "more" : "less").addEventListener("click", () => {
      const found = chosen && [...root.querySelectorAll("[data-nudge]")].find((g) => g.dataset.choice === JSON.stringify(chosen));
      if (!found) {
        part("sentence").textContent = "Tap a cell of x, of y or of the kernel first; then change its value here.";
        return;
      }
      const { array, index } = JSON.parse(found.dataset.nudge);
      changed[array][index] = (changed[array][index] ?? START_VALUES[array](index)) + step;
      draw();
    });
  }
  for (const button of root.querySelectorAll("[data-rank]")) {
    button.addEventListener("click", () => {
      if (Number(button.dataset.rank) === rank()) return;
      settings = structuredClone(START[button.dataset.rank]);
      chosen = null;
      update();
    });
  }
  part("reset").addEventListener("click", () => {
    settings = structuredClone(START[rank()]);
    for (const array of Object.values(changed)) for (const index of Object.keys(array)) delete array[index];
    chosen = null;
    update();
  });
  part("copy").addEventListener("click", async () => {
    await navigator.clipboard?.writeText(location.href);
    part("copy").textContent = navigator.clipboard ? "Copied" : "The address bar has the link";
    setTimeout(() => (part("copy").textContent = "Copy link"), 1500);
  });
  window.addEventListener("hashchange", () => {
    const found = read(location.hash);
    if (!found) return;
    settings = found;
    update();
    root.scrollIntoView({ block: "start" });
  });

  update();
});
