// Ways to show two cells as one picture that is worked out of theirs.

import { difference, differenceText, readPixels } from "./difference.js";
import { h } from "./dom.js";
import { flipMap, magma, magmaScale } from "./flip.js";
import { Mode, badge, view } from "./mode.js";
import { clamp } from "./sizes.js";

const LARGEST_FACTOR = 64;
const NARROW = 700; // pixels of a window that has no room for three pictures

// A picture that is worked out of those of A and B, of their steps too.
class Worked extends Mode {
  constructor(pair, name, letter) {
    super(pair);
    this.canvas = h("canvas.picture", { role: "img", "aria-label": name });
    this.pane = h("div.pane", {}, this.canvas);
    this.views = [view(this.pane, badge(letter))];
    this.text = h("output.differencetext");
  }

  paint() {
    super.paint();
    this.pane.style.transform = this.pair.viewer.zoom.transform;
    this.draw();
  }

  // What decides the picture beside the two pictures.
  get decides() {
    return "";
  }

  async draw() {
    const { cells, viewer: { steps } } = this.pair;
    const [{ width, height }] = cells;
    const frames = cells.map((cell) => steps.frameOf(cell));
    const state = [this.decides, ...frames].join();
    if (this.drawn === state) return;
    this.drawn = state;
    try {
      const pixels = await Promise.all(
        cells.map((cell, i) => readPixels(cell, frames[i], width, height)));
      if (this.drawn !== state) return; // another factor or step came meanwhile
      const { rgba, text } = this.worked(pixels, width, height);
      Object.assign(this.canvas, { width, height });
      this.canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
      this.text.textContent = text;
    } catch {
      this.text.textContent = "a picture cannot be read";
    }
  }
}

// The amplified difference of A and B.
export class Difference extends Worked {
  constructor(pair) {
    super(pair, "Amplified difference", "|A − B|");
    this.input = h("input", {
      type: "range", min: 0, max: Math.log2(LARGEST_FACTOR), step: 1, "aria-label": "Amplified",
      oninput: () => this.setFactor(2 ** Number(this.input.value)),
    });
    this.factorText = h("output");
    this.extra = [h("label", {}, "Amplified ", this.input), this.factorText, this.text];
    this.setFactor(pair.settings.factor);
  }

  get decides() {
    return this.pair.settings.factor;
  }

  worked(pixels) {
    const result = difference(...pixels, this.decides);
    return { rgba: result.rgba, text: differenceText(result) };
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
}

// How different A and B look, pixel by pixel: FLIP's map with its scale, beside them where there is
// room.
export class Flip extends Worked {
  constructor(pair) {
    super(pair, "FLIP's error map", "FLIP");
    if (window.innerWidth > NARROW) {
      this.views = [...this.faces.map((face, i) => view(face.pane, badge("AB"[i]))), ...this.views];
    }
    const scale = h("span.flipscale", { "aria-hidden": "true" });
    scale.style.background = magmaScale;
    this.extra = [h("span", {}, "0 equal"), scale, h("span", {}, "1"), this.text];
  }

  worked(pixels, width, height) {
    const map = flipMap(...pixels, width, height);
    const rgba = new Uint8ClampedArray(4 * map.length);
    map.forEach((error, i) => rgba.set([...magma(error), 255], 4 * i));
    const mean = map.reduce((sum, error) => sum + error, 0) / map.length;
    const largest = map.reduce((most, error) => Math.max(most, error), 0);
    const text = `mean ${mean.toFixed(4)}, largest ${largest.toFixed(2)}`;
    return { rgba, text: `${text}, as seen at 67 pixels per degree` };
  }
}
