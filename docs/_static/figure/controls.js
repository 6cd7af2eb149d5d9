// The sliders, the layers that people know, and the sizes that share an answer. They are made once for a number of axes
// and then kept in step, so that a slider can be dragged.
"use strict";

const Controls = (() => {
  function button(text, pressed, act) {
    const made = document.createElement("button");
    Object.assign(made, { type: "button", textContent: text });
    made.setAttribute("aria-pressed", String(pressed));
    made.addEventListener("click", act);
    return made;
  }

  function slider(place, name, label, change) {
    const row = document.createElement("label");
    const [text, input, number] = ["span", "input", "span"].map((tag) => document.createElement(tag));
    text.textContent = label;
    number.setAttribute("aria-hidden", "true"); // the slider says it
    Object.assign(input, { type: "range", step: 1 });
    input.dataset.setting = name;
    input.addEventListener("input", () => change(Number(input.value)));
    row.append(text, input, number);
    place.append(row);
    return ([least, most], value) => {
      Object.assign(input, { min: least, max: most, value, disabled: least === most });
      number.textContent = value;
    };
  }

  // The output_padding of an axis: it says how long x is, beyond the least.
  function paddings({ sizes, big, outputPadding }, [, limit]) {
    return [[sizes[0], Math.min(sizes.at(-1), limit)].map((size) => outputPadding + size - big), outputPadding];
  }

  // Sliders for each setting of each axis, or for all axes at once where `joined`. Returns how to show settings.
  function sliders(place, rank, joined, change) {
    place.replaceChildren();
    const axes = joined ? [0] : Array.from({ length: rank }, (_, axis) => axis);
    const names = { ...Settings.WORDS, outputPadding: "output_padding" };
    const shows = Object.entries(names).flatMap(([name, label]) => axes.map((axis) => {
      const words = joined ? label : `${label}, ${axis === 0 ? "rows" : "columns"}`;
      const set = joined ? [0, 1].slice(0, rank) : [axis];
      return { name, axis, show: slider(place, `${name}${axis}`, words, (value) => change(name, set, value)) };
    }));
    return (settings, w) => {
      const limits = Settings.LIMITS[rank];
      for (const { name, axis, show } of shows) {
        if (name !== "outputPadding") show(limits[name], settings[name][axis]);
        else if (w) show(...paddings(w.axes[axis], limits.big));
        else show([0, 0], 0);
      }
    };
  }

  function layers(place, settings, choose) {
    place.replaceChildren(...Settings.LAYERS.map((known) => {
      const found = Settings.layer(Settings.rankOf(settings), known);
      return button(known.name, Settings.link(found) === Settings.link(settings), () => {
        choose(found);
        place.querySelector('[aria-pressed="true"]').focus();
      });
    }));
  }

  function sizes(place, w, joined, choose) {
    const rank = w.axes.length;
    place.replaceChildren(...w.axes.slice(0, joined ? 1 : rank).map((axis, index) => {
      const line = document.createElement("p");
      line.append(joined ? "" : ["Rows: ", "Columns: "][index], Words.answer(axis));
      for (const size of axis.sizes.length === 1 ? [] : axis.sizes) {
        const key = `${index}:${size}`;
        const made = button(size, size === axis.big, () => {
          choose(index, size);
          place.querySelector(`[data-size="${key}"]`)?.focus();
        });
        made.dataset.size = key;
        made.disabled = size > Settings.LIMITS[rank].big[1];
        line.append(made, " ");
      }
      return line;
    }));
  }

  return { sliders, layers, sizes };
})();
