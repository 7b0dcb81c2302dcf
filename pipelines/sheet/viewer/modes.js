// The ways to show one cell large or two cells together. Each is a class with `views` for the
// stage, `extra` nodes below it, paint() at the shared zoom and step, and close(). The settings
// that they share (cut, factor, rate) outlive them: they are the pair's.

import { difference, differenceText, readPixels } from "./difference.js";
import { h } from "./dom.js";
import { Face } from "./face.js";
import { clamp } from "./sizes.js";

const FLICKERS = [1, 2, 3]; // changes a second; more than three flashes can harm
const LARGEST_FACTOR = 64;

export const defaultSettings = () => ({ cut: 0.5, factor: 4, rate: FLICKERS[1] });

const badge = (letter, classes = "badge") => (
  h("span", { class: classes, "aria-hidden": "true" }, letter));
const view = (...children) => h("div.view", {}, ...children);
const over = (face) => h("div.over", {}, face.pane);

class Mode {
  constructor(pair) {
    this.pair = pair;
    this.extra = [];
    this.faces = pair.cells.map((cell) => {
      const face = new Face(cell);
      face.picture.loading = "eager";
      face.picture.alt = cell.label;
      return face;
    });
  }

  paint() {
    const { zoom, steps, data } = this.pair.viewer;
    for (const face of this.faces) face.paint(zoom, steps.frameOf(face.cell), data);
  }

  // Act on a key of this way alone; false if it has none such.
  key() {
    return false;
  }

  close() { /* nothing goes on */ }
}

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

// The amplified difference of A and B, of their steps too.
class Difference extends Mode {
  constructor(pair) {
    super(pair);
    this.canvas = h("canvas.picture", { role: "img", "aria-label": "Amplified difference" });
    this.pane = h("div.pane", {}, this.canvas);
    this.views = [view(this.pane, badge("|A − B|"))];
    this.text = h("output.differencetext");
    this.input = h("input", {
      type: "range", min: 0, max: Math.log2(LARGEST_FACTOR), step: 1, "aria-label": "Amplified",
      oninput: () => this.setFactor(2 ** Number(this.input.value)),
    });
    this.factorText = h("output");
    this.extra = [h("label", {}, "Amplified ", this.input), this.factorText, this.text];
    this.setFactor(pair.settings.factor);
  }

  setFactor(wanted) {
    const factor = clamp(wanted, 1, LARGEST_FACTOR);
    this.pair.settings.factor = factor;
    this.input.value = Math.log2(factor);
    this.input.setAttribute("aria-valuetext", `${factor} times`);
    this.factorText.textContent = `× ${factor}`;
    this.draw();
  }

  key(key) {
    const by = { "<": 0.5, ",": 0.5, ">": 2, ".": 2 }[key];
    if (by) this.setFactor(this.pair.settings.factor * by);
    return Boolean(by);
  }

  paint() {
    this.pane.style.transform = this.pair.viewer.zoom.transform;
    this.draw();
  }

  async draw() {
    const { cells, settings: { factor }, viewer: { steps } } = this.pair;
    const [{ width, height }] = cells;
    const frames = cells.map((cell) => steps.frameOf(cell));
    const state = [factor, ...frames].join();
    if (this.drawn === state) return;
    this.drawn = state;
    try {
      const pixels = await Promise.all(
        cells.map((cell, i) => readPixels(cell, frames[i], width, height)));
      if (this.drawn !== state) return; // another factor or step came meanwhile
      const result = difference(...pixels, factor);
      Object.assign(this.canvas, { width, height });
      this.canvas.getContext("2d").putImageData(new ImageData(result.rgba, width, height), 0, 0);
      this.text.textContent = differenceText(result);
    } catch {
      this.text.textContent = "a picture cannot be read";
    }
  }
}

// name -> how it is called, the key that chooses it, and what shows it
export const MODES = {
  side: { label: "Side by side", key: "s", Mode: SideBySide },
  slider: { label: "Slider", key: "w", Mode: Slider },
  flicker: { label: "Flicker", key: "f", Mode: Flicker },
  difference: { label: "Difference", key: "d", Mode: Difference },
};
