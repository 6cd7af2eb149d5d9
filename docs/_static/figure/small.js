// The small figure of the home page: conv and deconv, one step after the other, with nothing to set.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("small-figure");
  if (!root) return;
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const w = Arithmetic.window({ big: [7], kernel: [3], stride: [2], padding: [0], dilation: [1] });
  const [x, y, kernel] = [[2, 0, 5, 3, 1, 4, 2], [1, 3, 2], [1, 2, 3]];
  const views = ["gather", "scatter"].map((name) => {
    const view = Views[name](w);
    return { ...view, ...Line.draw(part(name), w, view) };
  });
  let at = w.small[0] - 1;

  function show(q) {
    at = q;
    const numbers = {
      x, y, kernel,
      conv: Arithmetic.conv(w, x, kernel).map((value, i) => (i > q ? null : value)),
      uncropped: Arithmetic.uncropped(w, y, kernel, q),
    };
    const choice = { q };
    for (const view of views) {
      const found = Views.lit(view, choice);
      view.show(choice, found, numbers);
      Light.view(view, found, choice);
      for (const group of [...view.groups.long, ...view.groups.short]) Svg.write(group, numbers);
    }
  }

  const player = Player.make({
    length: () => w.small[0], place: () => at, go: show, repeat: true, pace: 1600,
    told: (playing) => (part("play").textContent = playing ? "Pause" : "Play"),
  });
  part("play").addEventListener("click", player.toggle);
  root.hidden = false;
  show(at);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) player.play();
});
