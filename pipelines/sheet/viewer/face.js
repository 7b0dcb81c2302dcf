// A picture with its denoising steps over it, at the zoom and step that all cells share.

import { h } from "./dom.js";

export class Face {
  constructor(cell) {
    this.cell = cell;
    this.picture = h("img.picture", {
      src: cell.picture, alt: "", decoding: "async", loading: "lazy", draggable: "false",
    });
    this.step = h("div.frame", { hidden: true });
    this.pane = h("div.pane", {}, this.picture, this.step);
  }

  // `frame` is the step to show, null the final picture; `sheet` has the width and height that all
  // pictures are fitted into.
  paint(zoom, frame, sheet) {
    if (this.pane.style.transform !== zoom.transform) this.pane.style.transform = zoom.transform;
    const { cell, step } = this;
    step.hidden = frame === null || !cell.strip;
    if (step.hidden) return;
    this.loadStrip(sheet);
    const count = cell.steps.length;
    step.style.backgroundPosition = `${count > 1 ? (frame / (count - 1)) * 100 : 0}% 0`;
  }

  loadStrip(sheet) {
    if (this.loaded) return;
    this.loaded = true;
    const { cell, step } = this;
    step.style.backgroundImage = `url("${cell.strip}")`;
    step.style.backgroundSize = `${cell.steps.length * 100}% 100%`;
    // The steps have the picture's shape; in a frame of another shape both are centred.
    const fit = Math.min(sheet.width / cell.width, sheet.height / cell.height);
    step.style.width = `${((cell.width * fit) / sheet.width) * 100}%`;
    step.style.height = `${((cell.height * fit) / sheet.height) * 100}%`;
  }
}
