// The page: what is set, what is chosen, and what is drawn for it.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("figure");
  if (!root) return;
  const BEGIN = { x: (n) => ((5 * n + 3) % 7) - 1, y: (n) => ((3 * n + 2) % 5) - 1, kernel: (n) => n + 1 };
  const part = (name) => root.querySelector(`[data-part="${name}"]`);

  let settings = null;
  let joined = true; // one slider for both axes
  let w = null; // the window, or null where there is none
  let changed = null; // values that are not as they began, by index: { x, y, kernel }
  let chosen = null; // what the sentence is about, and the value behind it: { choice, nudge }
  let last = null; // while stepping: how far sums have come. null: to the end
  let walk = "q"; // what a step goes to: the next cell of y ("q"), or of deconv's result ("b")
  let pointed = null; // the choice under the mouse
  let drawn = []; // the three views
  const rank = () => Settings.rankOf(settings);

  const valueOf = (array, index) => changed[array][index] ?? BEGIN[array](index);
  const values = (array, sizes) => Array.from({ length: Arithmetic.count(sizes) }, (_, n) => valueOf(array, n));

  // All numbers, with those results missing that a walk has not come to.
  function numbersUpTo(end) {
    const [x, y, kernel] = [values("x", w.big), values("y", w.small), values("kernel", w.kernel)];
    const until = (letter, results) =>
      results.map((value, i) => (end !== null && walk === letter && i > end ? null : value));
    return {
      x, y, kernel,
      conv: until("q", Arithmetic.conv(w, x, kernel)),
      uncropped: Arithmetic.uncropped(w, y, kernel, end !== null && walk === "q" ? end : Infinity),
      overZeros: until("b", Arithmetic.overZeros(w, y, kernel)),
    };
  }

  // ---- drawing

  function draw() {
    const { draw: drawView } = rank() === 1 ? Line : Plane;
    drawn = ["gather", "scatter", "insertion"].map((name) => {
      const view = Views[name](w);
      return { ...view, ...drawView(part(name), w, view) };
    });
    Matrix.kernel(part("kernel"), w);
    Matrix.matrix(part("matrix"), w, false);
    Matrix.matrix(part("transpose"), w, true);
    for (const view of root.querySelectorAll("svg")) {
      const cells = [...view.querySelectorAll(".cell[data-choice]")];
      if (cells.length) rove(cells.find((group) => Light.same(group.choice, chosen.choice)) ?? cells[0]);
    }
    show();
  }

  // Tab enters a picture at this cell.
  function rove(cell) {
    cell.closest("svg").querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    cell.setAttribute("tabindex", "0");
  }

  function show() {
    if (!w) return;
    const choice = pointed ?? chosen.choice;
    const numbers = numbersUpTo(pointed ? null : last);
    for (const view of drawn) {
      const found = Views.lit(view, choice);
      view.show(choice, found, numbers);
      Light.view(view, found, choice);
    }
    Light.rest(["kernel", "matrix", "transpose"].map(part), Arithmetic.partners(w.triples, choice), choice);
    for (const group of root.querySelectorAll(".cell:not(.stamp)")) Svg.write(group, numbers);
    const { x, y, kernel } = numbers;
    part("sentence").replaceChildren(...Words.sentences(w, choice, numbers).map((text) => {
      const line = document.createElement("p");
      line.textContent = text;
      return line;
    }));
    part("progress").textContent = Words.progress(walk, choice, w);
    part("inner-left").textContent = Arithmetic.inner(Arithmetic.conv(w, x, kernel), y);
    part("inner-right").textContent = Arithmetic.inner(x, Arithmetic.deconv(w, y, kernel));
  }

  // A picture wider than its place scrolls to the cell of the step.
  function follow() {
    for (const place of ["gather", "scatter", "insertion"].map(part)) {
      const here = place.querySelector("[data-here]").getBoundingClientRect();
      const whole = place.getBoundingClientRect();
      place.scrollLeft += here.x + here.width / 2 - whole.x - whole.width / 2;
    }
  }

  // ---- settings

  let showSliders = null;

  function makeSliders() {
    showSliders = Controls.sliders(part("controls"), rank(), joined, (name, axes, value) => {
      for (const axis of axes) {
        if (name !== "outputPadding") settings[name][axis] = value;
        else settings.big[axis] += value - w.axes[axis].outputPadding;
      }
      update();
    });
    part("joined").checked = joined;
    part("joined").closest("label").hidden = rank() === 1;
    for (const button of root.querySelectorAll("[data-rank]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.rank) === rank()));
    }
  }

  let layout = null; // what an index means: it is another cell where rows have another length

  function update({ write = true } = {}) {
    try {
      w = Arithmetic.window(settings);
      part("error").textContent = "";
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      w = null;
      part("error").textContent = `There is no such conv: ${error.message}. Pad more, or take a smaller kernel.`;
    }
    root.classList.toggle("impossible", w === null);
    pointed = null;
    player.pause();
    showSliders(settings, w);
    Controls.layers(part("layers"), settings, (found) => begin(found));
    if (write) Links.write(settings);
    if (!w) return;
    const now = [rank(), ...(rank() === 1 ? [] : [w.big[1], w.small[1], w.kernel[1]])].join();
    if (now !== layout) [chosen, changed] = [null, { x: {}, y: {}, kernel: {} }];
    layout = now;
    if (!chosen || !fits(chosen.choice)) [chosen, last] = [atStart(), null];
    part("calls").textContent = Words.calls(settings, w);
    part("shapes").textContent = Words.shapes(w);
    Controls.sizes(part("sizes"), w, joined, (axis, size) => {
      if (joined) settings.big.fill(size);
      else settings.big[axis] = size;
      update();
    });
    draw();
  }

  const atStart = () => cellOf("q", Math.floor((Arithmetic.count(w.small) - 1) / 2));
  const cellOf = (letter, index) => ({ choice: { [letter]: index }, nudge: null });

  function fits(choice) {
    const sizes = { b: w.big, q: w.small, t: w.kernel };
    return Object.entries(choice).every(([name, index]) => index < Arithmetic.count(sizes[name]));
  }

  function begin(found, { write = true } = {}) {
    [settings, chosen, last, changed] = [found, null, null, { x: {}, y: {}, kernel: {} }];
    joined = Settings.isSquare(settings);
    makeSliders();
    update({ write });
  }

  // ---- time

  const player = Player.make({
    length: () => Arithmetic.count(walk === "q" ? w.small : w.big),
    place: () => chosen.choice[walk] ?? -1,
    go(n) {
      [chosen, last, pointed] = [cellOf(walk, n), n, null];
      show();
      follow();
    },
    told(playing) {
      part("play").textContent = playing ? "Pause" : "Play";
      part("play").setAttribute("aria-pressed", String(playing));
      part("sentence").setAttribute("aria-live", playing ? "off" : "polite");
    },
  });

  part("play").addEventListener("click", player.toggle);
  part("back").addEventListener("click", () => player.step(-1));
  part("next").addEventListener("click", () => player.step(1));
  for (const button of root.querySelectorAll("[data-walk]")) {
    button.addEventListener("click", () => {
      walk = button.dataset.walk;
      for (const other of root.querySelectorAll("[data-walk]")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      player.to(0);
      part(walk === "q" ? "gather" : "insertion").scrollIntoView({ block: "nearest" });
    });
  }

  // ---- choosing and changing

  function choose(cell) {
    player.pause();
    chosen = cell ? { choice: cell.choice, nudge: cell.nudge } : atStart();
    [last, pointed] = [null, null];
    if (cell) rove(cell);
    show();
  }

  function change(step) {
    if (!chosen.nudge) {
      part("sentence").textContent = "Choose a cell of x, of y or of the kernel; then its value can be changed.";
      return;
    }
    const { array, index } = chosen.nudge;
    changed[array][index] = valueOf(array, index) + step;
    show();
  }

  Input.listen(root, {
    point(choice) {
      if (player.playing()) return;
      pointed = choice;
      show();
    },
    choose,
    keys: {
      "+": () => change(1), "=": () => change(1), "-": () => change(-1), Escape: () => choose(null),
      p: player.toggle, n: () => player.step(1), b: () => player.step(-1),
    },
  });

  // ---- buttons and links

  part("less").addEventListener("click", () => change(-1));
  part("more").addEventListener("click", () => change(1));
  for (const button of root.querySelectorAll("[data-rank]")) {
    button.addEventListener("click", () => {
      if (Number(button.dataset.rank) !== rank()) begin(Settings.start(Number(button.dataset.rank)));
    });
  }
  part("joined").addEventListener("change", (event) => {
    joined = event.target.checked;
    if (joined) for (const numbers of Object.values(settings)) numbers.fill(numbers[0]);
    makeSliders();
    update();
  });
  part("reset").addEventListener("click", () => begin(Settings.start(rank())));
  part("copy").addEventListener("click", () => Links.copy(part("copy"), settings));
  Links.listen((found) => begin(found, { write: false }));

  root.hidden = false;
  begin(Settings.read(location.hash) ?? Settings.start(1), { write: false });
});
