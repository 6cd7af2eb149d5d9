// The address carries the settings: links of the page set them, and changes go into the address.
"use strict";

const Links = (() => {
  const DELAY = 400; // milliseconds; Safari takes a hundred changes of the address in half a minute
  let writing = 0;

  // Put the settings into the address, once they have rested for a moment.
  function write(settings) {
    clearTimeout(writing);
    writing = setTimeout(() => history.replaceState(null, "", Settings.link(settings)), DELAY);
  }

  // `begin` hears of the settings of a link that is followed; each is a step of the browser's history.
  function listen(begin) {
    document.addEventListener("click", (event) => {
      const anchor = event.target.closest?.('a[href^="#i="]');
      const found = anchor && Settings.read(anchor.getAttribute("href"));
      if (!found || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      clearTimeout(writing);
      history.pushState(null, "", anchor.getAttribute("href"));
      begin(found);
      document.getElementById("figure").scrollIntoView({ block: "start" });
    });
    window.addEventListener("popstate", () => {
      const found = Settings.read(location.hash);
      if (found) begin(found);
    });
  }

  async function copy(button, settings) {
    const address = new URL(Settings.link(settings), location.href).href;
    try {
      await navigator.clipboard.writeText(address);
      button.textContent = "Copied";
    } catch {
      history.replaceState(null, "", address); // no clipboard here, or no permission
      button.textContent = "See the address";
    }
    setTimeout(() => (button.textContent = "Copy link"), 1500);
  }

  return { write, listen, copy };
})();
