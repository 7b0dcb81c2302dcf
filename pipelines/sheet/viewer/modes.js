// The ways to show one cell large or two cells together. Each is a class with `views` for the
// stage, `extra` nodes below it, paint() at the shared zoom and step, and close(). The settings
// that they share (cut, factor, rate) outlive them: they are the pair's.

import { h } from "./dom.js";
import { Mode, badge, over, view } from "./mode.js";
import { clamp } from "./sizes.js";
import { Difference, Flip } from "./worked.js";

const FLICKERS = [1, 2, 3]; // changes a second; more than three flashes can harm

export const defaultSettings = () => ({ cut: 0.5, factor: 4, rate: FLICKERS[1] });

export class WithoutPicture extends Mode {
  constructor(pair) {
    super(pair);
    const [{ text, status }] = pair.cells;
    this.faces = [];
    this.views = [h("p.words", {}, text || status)];
  }
}

export class Alone extends Mode {
  constructor(pair) {
    super(pair);
    this.views = [view(this.faces[0].pane)];
  }
}

class SideBySide extends Mode {
  constructor(pair) {
    super(pair);
    this.views = this.faces.map((face, i) => view(face.pane, badge("AB"[i])));
  }
}

// B lies over A up to a cut that a handle moves.
class Slider extends Mode {
  constructor(pair) {
    super(pair);
    const [a, b] = this.faces;
    this.handle = h("div.handle", {
      role: "slider", tabindex: 0, "aria-label": "Share of A in view",
      "aria-valuemin": 0, "aria-valuemax": 100, onkeydown: (event) => this.nudge(event),
    });
    this.over = over(b);
    this.view = view(a.pane, this.over, badge("A"), badge("B", "badge other"), this.handle);
    this.view.addEventListener("pointerdown", (event) => this.press(event));
    this.view.addEventListener("pointermove", (event) => {
      if (this.view.hasPointerCapture(event.pointerId)) this.cutAt(event);
    });
    this.views = [this.view];
    this.setCut(pair.settings.cut);
  }

  setCut(cut) {
    const part = clamp(cut, 0, 1);
    this.pair.settings.cut = part;
    this.over.style.clipPath = `inset(0 0 0 ${part * 100}%)`;
    this.handle.style.left = `${part * 100}%`;
    this.handle.setAttribute("aria-valuenow", Math.round(part * 100));
  }

  nudge(event) {
    const by = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
    if (!by || event.shiftKey) return;
    this.setCut(this.pair.settings.cut + by);
    event.preventDefault();
    event.stopPropagation();
  }

  // Zoomed in, only the handle moves the cut: a drag elsewhere moves the part in view.
  press(event) {
    if (event.target !== this.handle && this.pair.viewer.zoom.scale !== 1) return;
    this.view.setPointerCapture(event.pointerId);
    this.cutAt(event);
    event.stopPropagation();
  }

  cutAt(event) {
    const rect = this.view.getBoundingClientRect();
    this.setCut((event.clientX - rect.x) / rect.width);
  }
}

// A and B in turn.
class Flicker extends Mode {
  constructor(pair) {
    super(pair);
    const [a, b] = this.faces;
    this.over = over(b);
    this.over.hidden = true;
    this.letter = badge("A");
    this.views = [view(a.pane, this.over, this.letter)];
    const setRate = (event) => {
      pair.settings.rate = Number(event.target.value);
      this.start();
    };
    this.extra = [h("label", {}, "Changes a second ", h("select", { onchange: setRate },
      ...FLICKERS.map((rate) => h("option", {
        value: rate, selected: rate === pair.settings.rate,
      }, String(rate)))))];
    this.start();
  }

  start() {
    clearInterval(this.turning);
    this.turning = setInterval(() => {
      this.over.hidden = !this.over.hidden;
      this.letter.textContent = this.over.hidden ? "A" : "B";
    }, 1000 / this.pair.settings.rate);
  }

  close() {
    clearInterval(this.turning);
  }
}

// name -> how it is called, the key that chooses it, and what shows it
export const MODES = {
  side: { label: "Side by side", key: "s", Mode: SideBySide },
  slider: { label: "Slider", key: "w", Mode: Slider },
  flicker: { label: "Flicker", key: "f", Mode: Flicker },
  difference: { label: "Difference", key: "d", Mode: Difference },
  flip: { label: "FLIP", key: "e", Mode: Flip },
};
