// The dialog that shows one cell large, or two beside each other, with everything about them.

import { zoomButtons } from "./controls.js";
import { h } from "./dom.js";
import { factsOf } from "./facts.js";
import { Alone, MODES, WithoutPicture, defaultSettings } from "./modes.js";
import { fittingScale, isSharp } from "./sizes.js";
import { addGestures } from "./zoom.js";

const STAGE_GAP = 12;

export class Pair {
  constructor(viewer, signal) {
    this.viewer = viewer;
    this.settings = defaultSettings();
    this.lastMode = "side";
    this.numbers = []; // of the cell or the two cells that are shown; none while it is closed
    this.shown = null; // the mode at work
    this.scale = 1;
    this.modes = h("div.modes", { role: "radiogroup", "aria-label": "How to compare" },
      ...Object.entries(MODES).map(([name, { label, key }]) => h("button", {
        role: "radio", "data-mode": name, title: `${label} (${key})`,
        onclick: () => this.setMode(name),
      }, label)));
    this.stage = h("div.stage");
    this.extra = h("div.extra");
    this.titles = h("div.titles");
    this.openers = h("div.openrun");
    this.facts = h("div.facts");
    this.stepBar = viewer.steps.addBar("Denoising step of both");
    this.percent = h("button.percent", {
      onclick: () => viewer.zoom.reset(), title: "Whole pictures (0)",
    });
    this.dialog = this.makeDialog();
    addGestures(this.stage, viewer.zoom, {
      frameOf: (target) => target.closest(".view"), anyWheel: true, signal,
    });
  }

  makeDialog() {
    const { zoom } = this.viewer;
    const close = () => this.dialog.close();
    return h("dialog.pair", {
      "aria-label": "Cells beside each other", onclose: () => this.closed(),
    },
    h("header", {}, this.modes, zoomButtons(zoom, "Zoom into both pictures", this.percent),
      h("button.textual.close", {
        "aria-label": "Close", title: "Close (Escape)", onclick: close,
      }, "✕")),
    h("div.twocolumns", {},
      h("div.left", {}, this.stage, this.extra, this.stepBar),
      h("div.right", {
        tabindex: 0, role: "region", "aria-label": "Parameters and measurements",
      }, this.titles, this.openers, this.facts)));
  }

  get isOpen() {
    return this.numbers.length > 0;
  }

  get isTwo() {
    return this.numbers.length > 1;
  }

  // Show a cell, or two in a mode.
  open(numbers, mode = this.lastMode) {
    this.numbers = numbers;
    this.mode = mode;
    this.draw();
    this.dialog.showModal();
    if (this.isTwo) this.checkedMode.focus();
    this.fit();
  }

  closed() {
    const number = this.numbers.at(-1);
    this.shown.close();
    this.shown = null;
    this.numbers = [];
    this.stage.replaceChildren();
    this.viewer.focusTile(this.viewer.sheet.tiles[number]);
  }

  // The sheet's data changed: the dialog shows what is new of its cells.
  update() {
    if (!this.isOpen) return;
    const { tiles } = this.viewer.sheet;
    if (this.numbers.some((number) => !tiles[number])) this.dialog.close();
    else if (this.numbers.some((number, i) => tiles[number].cell !== this.cells[i])) this.draw();
  }

  setMode(mode) {
    this.mode = mode;
    this.lastMode = mode;
    this.draw();
    this.checkedMode.focus();
  }

  get checkedMode() {
    return this.modes.querySelector("[aria-checked=true]");
  }

  swap() {
    this.numbers.reverse();
    this.draw();
  }

  // Go on to another cell: the one that is shown, or B, is replaced.
  walk(direction) {
    const tile = this.viewer.sheet.next(this.numbers.at(-1), direction);
    if (!tile?.cell.picture) return;
    this.viewer.sheet.focus = tile.number;
    this.numbers[this.numbers.length - 1] = tile.number;
    this.draw();
  }

  // Act on a letter while two cells are open; false if it means nothing.
  key(key) {
    if (!this.isTwo) return false;
    const mode = Object.keys(MODES).find((name) => MODES[name].key === key);
    if (mode) this.setMode(mode);
    else if (key === "x") this.swap();
    else return this.shown.key(key);
    return true;
  }

  draw() {
    const { tiles } = this.viewer.sheet;
    this.cells = this.numbers.map((number) => tiles[number].cell);
    this.modes.hidden = !this.isTwo;
    for (const button of this.modes.children) {
      const checked = button.dataset.mode === this.mode;
      button.setAttribute("aria-checked", String(checked));
      button.tabIndex = checked ? 0 : -1;
    }
    this.dialog.setAttribute("aria-label", this.cells.map((cell) => cell.label).join(" beside "));
    this.shown?.close();
    this.shown = new (this.modeClass())(this);
    this.stage.replaceChildren(...this.shown.views);
    this.extra.replaceChildren(...this.shown.extra);
    this.stepBar.hidden = !this.viewer.steps.any;
    this.drawText();
    this.fit();
    this.viewer.draw();
  }

  modeClass() {
    if (!this.cells[0].picture) return WithoutPicture;
    return this.isTwo ? MODES[this.mode].Mode : Alone;
  }

  drawText() {
    const { cells, isTwo, viewer } = this;
    this.titles.replaceChildren(
      ...cells.map((cell, i) => h("p", {},
        isTwo ? h("span.badge", {}, "AB"[i]) : null, ` ${cell.label}`)),
      isTwo ? h("button.textual", {
        title: "Swap A and B (x)", onclick: () => this.swap(),
      }, "Swap A and B") : "");
    const open = (cell) => {
      this.dialog.close();
      viewer.hooks.open(cell.run_id);
    };
    this.openers.replaceChildren(...(viewer.hooks.open ? cells : []).map((cell, i) => (
      h("button.textual", { onclick: () => open(cell) }, `Everything about ${"AB"[i]}`))));
    this.facts.replaceChildren(...factsOf(viewer.data, cells));
  }

  paint() {
    this.percent.textContent = this.viewer.zoom.percent;
    this.shown?.paint();
  }

  // Make the pictures as large as the stage.
  fit() {
    if (!this.isOpen || !this.stage.clientWidth) return;
    const { width, height } = this.viewer.data;
    const beside = this.shown.views.length;
    const room = (this.stage.clientWidth - STAGE_GAP * (beside - 1)) / beside;
    this.scale = fittingScale(width, height, room, this.stage.clientHeight || 400);
    this.stage.style.setProperty("--w", `${width * this.scale}px`);
    this.stage.style.setProperty("--h", `${height * this.scale}px`);
    this.sharpen();
  }

  sharpen() {
    this.stage.classList.toggle("sharp", isSharp(this.scale * this.viewer.zoom.scale));
  }
}
