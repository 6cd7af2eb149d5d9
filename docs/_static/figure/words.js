// What the figure says: the calls, the sizes that share an answer, and the products of what is chosen.
"use strict";

const Words = (() => {
  const tuple = (numbers) => (numbers.length === 1 ? `${numbers[0]}` : `(${numbers.join(", ")})`);
  const sized = (numbers) => numbers.join(" × ");
  const signed = (value) => (value < 0 ? `(${value})` : `${value}`);
  const counted = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const product = ([m, n]) => `${signed(m)}·${signed(n)}`;
  const sum = (terms) => {
    const total = terms.reduce((all, [m, n]) => all + m * n, 0);
    return terms.length ? `${terms.map(product).join(" + ")} = ${total}` : "0, an empty sum";
  };
  const listed = (words) =>
    (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);

  function calls(settings, w) {
    const said = [["stride", 1], ["padding", 0], ["dilation", 1]]
      .filter(([name, usual]) => settings[name].some((value) => value !== usual))
      .map(([name]) => `, ${name}=${tuple(settings[name])}`)
      .join("");
    const extra = w.axes.map((axis) => axis.outputPadding);
    const more = extra.some(Boolean) ? `, output_padding=${tuple(extra)}` : "";
    return `conv(x, kernel${said})\ndeconv(y, kernel${said}${more})`;
  }

  const shapes = (w) => `x is ${sized(w.big)}, y is ${sized(w.small)}.`;

  const answer = ({ sizes, small }) => (sizes.length === 1
    ? `Only x of size ${sizes[0]} gives y of size ${small}. `
    : `y of size ${small} comes from x of several sizes, and output_padding chooses: `);

  // One cell of y, or one window: what conv gathers, and what deconv scatters.
  function ofWindow(w, q, { x, y, kernel }) {
    const at = Svg.where(q, w.small);
    const stamps = Arithmetic.partners(w.stamps, { q });
    const read = sum(stamps.map(({ b, t }) => [kernel[t], b === null ? 0 : x[b]]));
    const outside = stamps.filter(({ b }) => b === null).length;
    const [taps, products] = [counted(outside, "tap"), counted(outside, "product")];
    const padded = outside ? ` ${taps} ${outside === 1 ? "reads" : "read"} the padding, which is 0.` : "";
    const cropped = outside ? ` ${products} on the padding ${outside === 1 ? "is" : "are"} cropped.` : "";
    return [`conv(x)${at} = ${read}.${padded}`, `y${at} = ${y[q]} adds ${added(w, stamps, y[q], kernel)}.${cropped}`];
  }

  // What one cell of y adds: product by product, or with two axes the kernel as a whole.
  function added(w, stamps, value, kernel) {
    if (w.axes.length === 1) {
      const place = (b) => (b === null ? "the padding" : `cell ${b}`);
      return listed(stamps.map(({ b, t }) => `${product([value, kernel[t]])} = ${value * kernel[t]} to ${place(b)}`));
    }
    const products = kernel.map((tap) => value * tap);
    return `${signed(value)}·(${kernel.join(", ")}) = (${products.join(", ")}) to the cells in the frame`;
  }

  // One cell of x: who reads it, what deconv adds up there, and the same with zeros put in.
  function ofCell(w, b, { x, y, kernel }) {
    const at = Svg.where(b, w.big);
    const triples = Arithmetic.partners(w.triples, { b });
    const reads = Arithmetic.partners(w.reads, { b }).reverse(); // in the order of the flipped window
    const empty = reads.filter(({ q }) => q === null).length;
    const windows = triples.map(({ q }) => `conv(x)${Svg.where(q, w.small)}`);
    return [
      `conv reads x${at} = ${x[b]} for ${listed(windows) || "no cell"}.`,
      `deconv(y)${at} = ${sum(triples.map(({ q, t }) => [kernel[t], y[q]]))}. With zeros put in: ` +
        `${sum(reads.map(({ q, t }) => [kernel[t], q === null ? 0 : y[q]]))}. ` +
        (empty ? `${empty} of ${counted(reads.length, "product")} ${empty === 1 ? "has" : "have"} a zero; ` +
          "the rest are the same." : "No product has a zero here: the sums are the same."),
    ];
  }

  function ofTap(w, t, { kernel }) {
    const pairs = counted(Arithmetic.partners(w.triples, { t }).length, "pair");
    const name = `kernel${Svg.where(t, w.kernel)}`;
    return [
      `${name} = ${kernel[t]} connects ${pairs} of a cell of x and a cell of y: the framed entries of the matrix.`,
      "conv multiplies the cells of x by it, and deconv the cells of y, for the same pairs.",
    ];
  }

  function ofEntry(w, { q, b }, { kernel }) {
    const [y, x] = [Svg.where(q, w.small), Svg.where(b, w.big)];
    const [found] = Arithmetic.partners(w.triples, { q, b });
    if (!found) {
      return [
        `A${y}${x} = 0: the window of y${y} has no tap over x${x}.`,
        `So conv(x)${y} does not read x${x}, and y${y} adds nothing to deconv(y)${x}.`,
      ];
    }
    return [
      `A${y}${x} = kernel${Svg.where(found.t, w.kernel)} = ${kernel[found.t]}: conv multiplies x${x} by it.`,
      `deconv multiplies y${y} by it, and adds the product to deconv(y)${x}.`,
    ];
  }

  // Two sentences: of conv, and of deconv.
  function sentences(w, choice, arrays) {
    if (choice.t !== undefined) return ofTap(w, choice.t, arrays);
    if (choice.q === undefined) return ofCell(w, choice.b, arrays);
    return choice.b === undefined ? ofWindow(w, choice.q, arrays) : ofEntry(w, choice, arrays);
  }

  // Where a walk over y ("q") or over deconv's result ("b") is.
  function progress(walk, choice, w) {
    const total = Arithmetic.count(walk === "q" ? w.small : w.big);
    return `${choice[walk] === undefined ? "–" : choice[walk] + 1} of ${total}`;
  }

  return { calls, shapes, answer, sentences, progress };
})();
