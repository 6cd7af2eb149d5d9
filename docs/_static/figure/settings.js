// What can be set, where it starts, layers that people know, and how a link carries the settings.
"use strict";

const Settings = (() => {
  const LIMITS = {
    1: { big: [1, 16], kernel: [1, 7], stride: [1, 4], padding: [0, 4], dilation: [1, 3] },
    2: { big: [1, 8], kernel: [1, 4], stride: [1, 4], padding: [0, 2], dilation: [1, 2] },
  };
  const LETTERS = { big: "i", kernel: "k", stride: "s", padding: "p", dilation: "d" };
  const WORDS = { big: "size of x", kernel: "kernel", stride: "stride", padding: "padding", dilation: "dilation" };

  // `big` is the size of x: with one axis, and of each of two axes.
  const LAYERS = [
    { name: "DCGAN's k4 s2 p1", big: [8, 6], steps: { kernel: 4, stride: 2, padding: 1, dilation: 1 } },
    { name: "U-Net's k2 s2", big: [8, 6], steps: { kernel: 2, stride: 2, padding: 0, dilation: 1 } },
    { name: "k3 s2 p1 op1", big: [8, 6], steps: { kernel: 3, stride: 2, padding: 1, dilation: 1 } },
    { name: "ResNet's k3 s1 p1", big: [8, 5], steps: { kernel: 3, stride: 1, padding: 1, dilation: 1 } },
    { name: "ConvNeXt's k4 s4", big: [12, 8], steps: { kernel: 4, stride: 4, padding: 0, dilation: 1 } },
    { name: "DeepLab's k3 d2 p2", big: [10, 6], steps: { kernel: 3, stride: 1, padding: 2, dilation: 2 } },
  ];

  function layer(rank, { big, steps }) {
    const all = Object.entries({ big: big[rank - 1], ...steps });
    return Object.fromEntries(all.map(([name, number]) => [name, new Array(rank).fill(number)]));
  }

  const start = (rank) => layer(rank, LAYERS[0]);
  const rankOf = (settings) => settings.big.length;
  const isSquare = (settings) => Object.values(settings).every((numbers) => new Set(numbers).size === 1);

  // The settings of a link such as "#i=5,4&k=3,2&s=2,1&p=1,0&d=1,1", or null where it has none or they are out of
  // reach.
  function read(link) {
    const found = new URLSearchParams(link.replace(/^#/, ""));
    const result = {};
    for (const [name, letter] of Object.entries(LETTERS)) {
      const words = (found.get(letter) ?? "").split(",");
      const limits = LIMITS[words.length]?.[name];
      if (!limits || !words.every((word) => /^\d+$/.test(word))) return null;
      result[name] = words.map(Number);
      if (!result[name].every((n) => limits[0] <= n && n <= limits[1])) return null;
    }
    return new Set(Object.values(result).map((numbers) => numbers.length)).size === 1 ? result : null;
  }

  const link = (settings) =>
    "#" + Object.entries(LETTERS).map(([name, letter]) => `${letter}=${settings[name]}`).join("&");

  return { LIMITS, WORDS, LAYERS, layer, start, rankOf, isSquare, read, link };
})();
