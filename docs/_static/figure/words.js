// What the figure says: the calls, the sizes that share an answer, and a sentence about the chosen cell.
"use strict";

const Words = (() => {
  const tuple = (numbers) => (numbers.length === 1 ? `${numbers[0]}` : `(${numbers.join(", ")})`);
  const sized = (numbers) => numbers.join(" × ");
  const signed = (value) => (value < 0 ? `(${value})` : `${value}`);
  const cells = (number) => `${number} cell${number === 1 ? "" : "s"}`;

  function calls(settings, w) {
    const said = [["stride", 1], ["padding", 0], ["dilation", 1]]
      .filter(([name, usual]) => settings[name].some((value) => value !== usual))
      .map(([name]) => `, ${name}=${tuple(settings[name])}`)
      .join("");
    const extra = w.axes.map((axis) => axis.outputPadding);
    const more = extra.some(Boolean) ? `, output_padding=${tuple(extra)}` : "";
    return `y = conv(x, kernel${said})\nx = deconv(y, kernel${said}${more})`;
  }

  const shapes = (w) => `x is ${sized(w.big)}, y is ${sized(w.small)}.`;

  function answer(rank, index, { sizes, small }) {
    const where = rank === 1 ? "" : index === 0 ? "In rows, " : "In columns, ";
    const text = sizes.length === 1 ? `only size ${sizes[0]} has the answer ${small}. ` : `these sizes share one answer, ${small}: `;
    return where ? where + text : text[0].toUpperCase() + text.slice(1);
  }

  function sentence(w, choice, { x, y, kernel }) {
    if (!choice) return "Point at a cell, or tap it.";
    const found = Arithmetic.partners(w, choice);
    const at = (index, sizes) => (sizes.length === 1 ? `[${index}]` : `[${Math.floor(index / sizes[1])}, ${index % sizes[1]}]`);
    const [b, q, t] = [at(choice.b, w.big), at(choice.q, w.small), at(choice.t ?? found[0]?.t, w.kernel)];
    const sum = (terms) => (terms.length ? terms.map(([m, n]) => `${signed(m)}·${signed(n)}`).join(" + ") : "nothing");
    const total = (terms) => terms.reduce((all, [m, n]) => all + m * n, 0);
    if (choice.b !== undefined && choice.q !== undefined) {
      return found.length === 0 ? `A${q}${b} = 0: no tap lies between x${b} and y${q}.` :
        `A${q}${b} = kernel${t} = ${kernel[found[0].t]}: conv reads x${b} for y${q} through it, and deconv adds y${q} to x${b} ` +
        "through the same.";
    }
    if (choice.q !== undefined) {
      const terms = found.map((triple) => [kernel[triple.t], x[triple.b]]);
      return `conv gathers: Ax${q} = ${sum(terms)} = ${total(terms)}. deconv scatters y${q} = ${y[choice.q]} into ` +
        `${cells(found.length)} of A′y.`;
    }
    if (choice.b !== undefined) {
      const terms = found.map((triple) => [kernel[triple.t], y[triple.q]]);
      return `deconv adds up: A′y${b} = ${sum(terms)} = ${total(terms)}. conv reads x${b} = ${x[choice.b]} for ` +
        `${cells(found.length)} of Ax.`;
    }
    const entries = found.length === 1 ? "one entry" : `${found.length} entries`;
    return `kernel${t} = ${kernel[choice.t]} is ${entries} of A: so many pairs of a cell of x and a cell of y meet at it.`;
  }

  return { calls, shapes, answer, sentence };
})();
