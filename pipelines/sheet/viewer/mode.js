// What all ways to show one or two cells have in common (modes.js).

import { h } from "./dom.js";
import { Face } from "./face.js";

export const badge = (letter, classes = "badge") => (
  h("span", { class: classes, "aria-hidden": "true" }, letter));
export const view = (...children) => h("div.view", {}, ...children);
export const over = (face) => h("div.over", {}, face.pane);

export class Mode {
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
