// A cell of the sheet: its picture or why there is none, its caption, and the button that picks it.

import { h } from "./dom.js";
import { Face } from "./face.js";

export class Tile {
  constructor(number) {
    this.number = number;
    this.button = h("button.cell", { tabindex: -1 });
    this.pick = h("button.pick", {
      tabindex: -1, title: "Choose for a comparison of two (Space)",
    });
    this.texts = h("span.texts");
    this.item = h("div.item", { "data-cell": number }, this.button,
      h("div.caption", {}, this.texts, this.pick));
  }

  // Show a cell's data; false if it is what is shown already.
  update(cell) {
    const signature = JSON.stringify(cell);
    if (this.signature === signature) return false;
    this.signature = signature;
    this.cell = cell;
    this.button.dataset.status = cell.status;
    this.pick.setAttribute("aria-label", `Choose ${cell.label}`);
    this.pick.hidden = !cell.picture;
    this.face = new Face(cell);
    this.stepText = h("span.at");
    const content = cell.picture ? [this.face.pane, this.stepText]
      : [h("span.words", { title: cell.text }, cell.text || cell.status)];
    this.button.replaceChildren(...content);
    return true;
  }

  // Write the caption: `measures` are those to show; the picked cell is called A.
  label(measures, picked) {
    const { cell } = this;
    const shown = measures.filter(({ key }) => cell.texts[key]);
    const spoken = shown.map(({ key, label }) => `${label} ${cell.texts[key]}`).join(", ");
    this.button.setAttribute("aria-label", `${cell.label}: ${cell.text || spoken}`);
    this.texts.replaceChildren(
      ...shown.map(({ key, label, short }) => h("span", { title: label },
        `${short} ${cell.texts[key]}`.trim())),
      ...cell.marks.map((mark) => h("span.mark", {}, mark)));
    this.pick.textContent = picked ? "A" : "";
    this.pick.setAttribute("aria-pressed", String(picked));
  }

  paint(zoom, steps, sheet) {
    const { cell } = this;
    const frame = steps.frameOf(cell);
    this.face.paint(zoom, frame, sheet);
    let text = "";
    if (frame !== null) text = `${cell.steps[frame]}/${cell.total_steps}`;
    else if (steps.position !== null && cell.picture) text = "no steps kept";
    if (this.stepText.textContent !== text) this.stepText.textContent = text;
  }
}
