// Steps in time: play, pause, one step on, one step back.
"use strict";

const Player = (() => {
  const PACE = 1200; // milliseconds a step

  // `length()` is the number of steps, `place()` the one shown, and `go(n)` shows another. `told(playing)` hears when
  // it starts and when it stops.
  function make({ length, place, go, told, repeat = false, pace = PACE }) {
    let timer = null;

    function tick() {
      if (!repeat && place() >= length() - 1) pause();
      else step(1);
    }

    function play() {
      if (timer !== null) return;
      timer = setInterval(tick, pace);
      step(1);
      told(true);
    }

    function pause() {
      if (timer === null) return;
      clearInterval(timer);
      timer = null;
      told(false);
    }

    const step = (by) => go((place() + by + length()) % length());

    return {
      play, pause,
      toggle: () => (timer === null ? play() : pause()),
      step: (by) => { pause(); step(by); },
      to: (n) => { pause(); go(n); },
      playing: () => timer !== null,
    };
  }

  return { make };
})();
