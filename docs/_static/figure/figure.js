// The page: what is set, what is chosen, and what pointer, fingers and keys do about it.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("figure");
  if (!root) return;
  const BEGIN = { x: (n) => ((5 * n + 3) % 7) - 1, y: (n) => ((3 * n + 2) % 5) - 1, kernel: (n) => n + 1 };
  const LINK_DELAY = 400; // milliseconds; Safari takes a hundred changes of the address in half a minute
  const part = (name) => root.querySelector(`[data-part="${name}"]`);

  let settings = Settings.read(location.hash) ?? Settings.start(1);
  let shown = null; // the window, or null where there is none
  let changed = { x: {}, y: {}, kernel: {} }; // values that are not as they began, by index
  let chosen = null; // the choice that stays, and the value behind it: { choice, nudge }
  let pointed = null; // the choice under the mouse
  const rank = () => Settings.rankOf(settings);

  const valueOf = (array, index) => changed[array][index] ?? BEGIN[array](index);
  const values = (array, sizes) => Array.from({ length: Arithmetic.count(sizes) }, (_, n) => valueOf(array, n));
  const arrays = () => ({ x: values("x", shown.big), y: values("y", shown.small), kernel: values("kernel", shown.kernel) });

  // ---- controls: made once for a number of axes, then kept in step, so that a slider can be dragged

  let sliders = [];

  function slider(name, label, axis, change) {
    const row = document.createElement("label");
    const [text, input, number] = ["span", "input", "span"].map((tag) => document.createElement(tag));
    text.textContent = rank() === 1 ? label : `${label}, ${axis === 0 ? "rows" : "columns"}`;
    number.setAttribute("aria-hidden", "true"); // the slider says it
    Object.assign(input, { type: "range", step: 1 });
    input.dataset.setting = `${name}${axis}`;
    input.addEventListener("input", () => {
      change(Number(input.value));
      update();
    });
    row.append(text, input, number);
    part("controls").append(row);
    return { axis, name, show: ([least, most], value) => {
      Object.assign(input, { min: least, max: most, value, disabled: least === most });
      number.textContent = value;
    } };
  }

  function makeControls() {
    part("controls").replaceChildren();
    sliders = [];
    const axes = settings.big.map((_, axis) => axis);
    for (const [name, label] of Object.entries(Settings.WORDS)) {
      for (const axis of axes) {
        sliders.push(slider(name, label, axis, (value) => (settings[name][axis] = value)));
      }
    }
    for (const axis of axes) {
      sliders.push(slider("outputPadding", "output_padding", axis, (value) => {
        settings.big[axis] += value - shown.axes[axis].outputPadding;
      }));
    }
    for (const button of root.querySelectorAll("[data-rank]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.rank) === rank()));
    }
  }

  function showControls() {
    const limits = Settings.LIMITS[rank()];
    for (const { axis, name, show } of sliders) {
      if (name !== "outputPadding") {
        show(limits[name], settings[name][axis]);
      } else if (shown) {
        const { big, sizes, outputPadding } = shown.axes[axis];
        const most = Math.min(sizes.at(-1), limits.big[1]);
        show([sizes[0], most].map((size) => outputPadding + size - big), outputPadding);
      } else {
        show([0, 0], 0);
      }
    }
  }

  function showSizes() {
    const place = part("sizes");
    place.replaceChildren();
    shown.axes.forEach((axis, index) => {
      const line = document.createElement("p");
      line.append(Words.answer(rank(), index, axis));
      for (const size of axis.sizes.length === 1 ? [] : axis.sizes) {
        const button = document.createElement("button");
        Object.assign(button, { type: "button", textContent: size, disabled: size > Settings.LIMITS[rank()].big[1] });
        button.dataset.size = `${index}:${size}`;
        button.setAttribute("aria-pressed", String(size === axis.big));
        button.addEventListener("click", () => {
          settings.big[index] = size;
          update();
          place.querySelector(`[data-size="${index}:${size}"]`)?.focus();
        });
        line.append(button, " ");
      }
      place.append(line);
    });
  }

  // ---- drawing

  function draw() {
    const { x, y, kernel } = arrays();
    const [ax, aty] = [Arithmetic.conv(shown, x, kernel), Arithmetic.deconv(shown, y, kernel)];
    Views.taps(part("kernel"), shown, kernel);
    Views.gather(part("gather"), shown, { x, ax });
    Views.scatter(part("scatter"), shown, { y, aty });
    Views.matrix(part("matrix"), shown, kernel, false);
    Views.matrix(part("transpose"), shown, kernel, true);
    for (const view of root.querySelectorAll("svg")) {
      const cells = [...view.querySelectorAll(".cell[data-choice]")];
      rove(cells.find((group) => Views.same(group.choice, chosen?.choice)) ?? cells[0]);
    }
    part("inner-left").textContent = Arithmetic.inner(ax, y);
    part("inner-right").textContent = Arithmetic.inner(x, aty);
    light();
  }

  // Tab enters a view at this cell.
  function rove(cell) {
    cell.closest("svg").querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    cell.setAttribute("tabindex", "0");
  }

  function light() {
    const choice = pointed ?? chosen?.choice ?? null;
    Views.light(root, choice, choice ? Arithmetic.partners(shown, choice) : []);
    part("sentence").textContent = Words.sentence(shown, choice, arrays());
  }

  let layout = null; // what an index means: it is another cell where rows have another length

  function update({ write = true } = {}) {
    try {
      shown = Arithmetic.window(settings);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      shown = null;
      part("error").textContent = `There is no such conv: ${error.message}. Pad more, or take a smaller kernel.`;
    }
    root.classList.toggle("impossible", shown === null);
    pointed = null;
    if (sliders.length !== 6 * rank()) makeControls();
    showControls();
    if (write) writeLink();
    if (!shown) return;
    const now = [rank(), ...(rank() === 1 ? [] : [shown.big[1], shown.small[1], shown.kernel[1]])].join();
    if (layout !== null && now !== layout) [chosen, changed] = [null, { x: {}, y: {}, kernel: {} }];
    layout = now;
    if (chosen && !fits(chosen.choice)) chosen = null;
    part("error").textContent = "";
    part("calls").textContent = Words.calls(settings, shown);
    part("shapes").textContent = Words.shapes(shown);
    showSizes();
    draw();
  }

  function fits(choice) {
    const sizes = { b: shown.big, q: shown.small, t: shown.kernel };
    return Object.entries(choice).every(([name, index]) => index < Arithmetic.count(sizes[name]));
  }

  let writing = 0;

  function writeLink() {
    clearTimeout(writing);
    writing = setTimeout(() => history.replaceState(null, "", Settings.link(settings)), LINK_DELAY);
  }

  // ---- choosing and changing

  const cellAt = (target) => target.closest?.(".cell[data-choice]") ?? null;

  function choose(cell) {
    chosen = cell && { choice: cell.choice, nudge: cell.nudge };
    pointed = null;
    if (cell) rove(cell);
    light();
  }

  const toggle = (cell) => choose(cell && Views.same(cell.choice, chosen?.choice) ? null : cell);

  function change(step) {
    if (!chosen?.nudge) {
      part("sentence").textContent = "Choose a cell of x, of y or of the kernel; then its value can be changed.";
      return;
    }
    const { array, index } = chosen.nudge;
    const view = document.activeElement.closest?.("#figure [data-part]")?.dataset.part;
    changed[array][index] = valueOf(array, index) + step;
    draw();
    const cells = view ? [...part(view).querySelectorAll(".cell[data-choice]")] : [];
    cells.find((group) => Views.same(group.choice, chosen.choice))?.focus();
  }

  let mouse = ""; // where it was: what moves under a mouse at rest is not pointed at

  root.addEventListener("pointermove", (event) => {
    const [before, choice] = [mouse, cellAt(event.target)?.choice ?? null];
    mouse = `${event.clientX},${event.clientY}`;
    const unmoved = mouse === before || choice === pointed || Views.same(choice, pointed);
    if (event.pointerType !== "mouse" || !shown || unmoved) return;
    pointed = choice;
    light();
  });
  root.addEventListener("pointerleave", () => {
    if (!shown || pointed === null) return;
    pointed = null;
    light();
  });
  root.addEventListener("click", (event) => {
    if (shown && event.target.closest("svg")) toggle(cellAt(event.target));
  });
  root.addEventListener("focusin", (event) => {
    if (shown && event.target.matches?.(".cell[data-choice]:focus-visible")) choose(event.target);
  });

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const CHANGES = { "+": 1, "=": 1, "-": -1 };
  root.addEventListener("keydown", (event) => {
    const cell = cellAt(event.target);
    if (!cell || !shown || event.ctrlKey || event.metaKey || event.altKey) return;
    if (STEPS[event.key]) Views.neighbor(cell, STEPS[event.key])?.focus();
    else if (CHANGES[event.key]) change(CHANGES[event.key]);
    else if (event.key === "Enter" || event.key === " ") toggle(cell);
    else if (event.key === "Escape") choose(null);
    else return;
    event.preventDefault();
  });

  // ---- buttons and links

  part("less").addEventListener("click", () => change(-1));
  part("more").addEventListener("click", () => change(1));

  function begin(found) {
    [settings, chosen, changed] = [found, null, { x: {}, y: {}, kernel: {} }];
  }

  for (const button of root.querySelectorAll("[data-rank]")) {
    button.addEventListener("click", () => {
      if (Number(button.dataset.rank) === rank()) return;
      begin(Settings.start(button.dataset.rank));
      update();
    });
  }
  part("reset").addEventListener("click", () => {
    begin(Settings.start(rank()));
    update();
  });
  part("copy").addEventListener("click", async () => {
    const button = part("copy");
    const address = new URL(Settings.link(settings), location.href).href;
    try {
      await navigator.clipboard.writeText(address);
      button.textContent = "Copied";
    } catch {
      history.replaceState(null, "", address); // no clipboard here, or no permission
      button.textContent = "See the address";
    }
    setTimeout(() => (button.textContent = "Copy link"), 1500);
  });

  // Links of this page to settings: each is a step of the browser's history.
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest?.('a[href^="#i="]');
    const found = anchor && Settings.read(anchor.getAttribute("href"));
    if (!found || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    clearTimeout(writing);
    history.pushState(null, "", anchor.getAttribute("href"));
    begin(found);
    update({ write: false });
    root.scrollIntoView({ block: "start" });
  });
  window.addEventListener("popstate", () => {
    const found = Settings.read(location.hash);
    if (!found) return;
    begin(found);
    update({ write: false });
  });

  root.hidden = false;
  update({ write: false });
});
