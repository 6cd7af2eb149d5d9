// What can be set, where it starts, and how a link carries it.
"use strict";

const Settings = (() => {
  const LIMITS = {
    1: { big: [1, 16], kernel: [1, 6], stride: [1, 4], padding: [0, 4], dilation: [1, 3] },
    2: { big: [1, 6], kernel: [1, 3], stride: [1, 3], padding: [0, 2], dilation: [1, 2] },
  };
  const START = {
    1: { big: [8], kernel: [3], stride: [2], padding: [1], dilation: [1] },
    2: { big: [5, 4], kernel: [3, 2], stride: [2, 1], padding: [1, 0], dilation: [1, 1] },
  };
  const LETTERS = { big: "i", kernel: "k", stride: "s", padding: "p", dilation: "d" };
  const WORDS = { big: "input size", kernel: "kernel", stride: "stride", padding: "padding", dilation: "dilation" };

  const start = (rank) => structuredClone(START[rank]);
  const rankOf = (settings) => settings.big.length;

  // The settings of a link such as "#i=5,4&k=3,2&s=2,1&p=1,0&d=1,1", or null where it has none or they are out of reach.
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

  return { LIMITS, WORDS, start, rankOf, read, link };
})();
