// The viewer of a comparison, for the dashboard and for the exported page: the sheet of all cells
// with what stands above it, the dialog for two cells, and what they share.

import { Arrangement } from "./arrangement.js";
import { AxisControls, Panels, sizeButtons, zoomButtons } from "./controls.js";
import { h, isDark, recall, remember } from "./dom.js";
import { helpDialog, onKey } from "./keys.js";
import { Pair } from "./pair.js";
import { Sheet } from "./sheet.js";
import { Steps } from "./steps.js";
import { Zoom, addGestures } from "./zoom.js";

const LABELS = ["total", "nfe", "rms_latents", "psnr", "changed_unmasked_pixels"];
const SAID_FOR = 6000; // milliseconds

export class Viewer {
  // `hooks` may have open(run_id), for a click on a cell, and askForSteps().
  constructor(root, hooks = {}) {
    this.root = root;
    this.hooks = hooks;
    this.picked = null; // the number of the cell that is chosen for a comparison of two
    this.labels = new Set(recall("contact-sheet.labels") || LABELS);
    this.zoom = new Zoom(() => this.zoomed());
    this.steps = new Steps({
      onChange: () => this.draw(), onWanted: () => this.hooks.askForSteps?.(),
    });
    this.sheet = new Sheet(this.zoom, (tile) => this.paint(tile));
    this.axisControls = new AxisControls(this);
    this.panels = new Panels(this);
    this.gone = new AbortController();
    this.help = helpDialog();
    this.build();
  }

  // ---- the frame: made once ----

  build() {
    const { root, sheet, zoom } = this;
    const { signal } = this.gone;
    this.hidden = h("button.textual", {
      title: "Show all values again (u)", onclick: () => this.showAll(),
    });
    this.percent = h("button.percent", { onclick: () => zoom.reset(), title: "Whole pictures" });
    this.said = h("div.said", { role: "status", "aria-live": "polite" });
    const steps = this.steps.addBar("Denoising step");
    this.pair = new Pair(this, signal);
    root.replaceChildren(
      h("div.bar", {}, this.axisControls.node,
        h("div.tools", {}, this.hidden, ...this.panels.buttons, sizeButtons(sheet),
          zoomButtons(zoom, "Zoom into all pictures", this.percent, "Zoom"),
          h("button.textual", {
            "aria-label": "Keys", title: "Keys (?)", onclick: () => this.help.showModal(),
          }, "?")),
        this.panels.node),
      steps, sheet.box, this.said, this.pair.dialog, this.help);
    root.addEventListener("keydown", (event) => onKey(this, event), { signal });
    sheet.box.addEventListener("click", (event) => this.clicked(event));
    addGestures(sheet.box, zoom, { frameOf: (target) => target.closest(".cell"), signal });
    this.observer = new ResizeObserver(() => {
      sheet.resize();
      this.pair.fit();
    });
    this.observer.observe(root);
    this.observer.observe(this.pair.stage);
  }

  destroy() {
    this.gone.abort();
    this.observer.disconnect();
    this.sheet.watcher.disconnect();
    this.steps.stop();
    this.pair.shown?.close();
  }

  get activeElement() {
    return this.root.getRootNode().activeElement;
  }

  // ---- data ----

  // Show a comparison, the JSON of viewer_data(): at first, and again whenever it has changed.
  update(data) {
    this.root.style.colorScheme = isDark(this.root) ? "dark" : "light";
    const shape = JSON.stringify(data.axes);
    const isNew = shape !== this.shape;
    this.data = data;
    if (isNew) {
      this.shape = shape;
      this.picked = null;
      this.arrangement = new Arrangement(data.axes, recall(this.memory));
      this.sheet.clear(data.cells);
    }
    const changed = this.sheet.update(data);
    this.labelTiles(changed);
    if (isNew) this.layout();
    else this.sheet.resize();
    this.steps.update(data.cells);
    this.pair.update();
  }

  get memory() {
    return `contact-sheet.${this.data.id}`;
  }

  // ---- drawing: only what is in or near the view, once a frame ----

  draw() {
    this.percent.textContent = this.zoom.percent;
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      this.sheet.near.forEach((tile) => this.paint(tile));
      this.pair.paint();
    });
  }

  paint(tile) {
    tile.paint(this.zoom, this.steps, this.data);
  }

  zoomed() {
    this.root.classList.toggle("zoomed", this.zoom.scale > 1);
    this.sheet.sharpen();
    this.pair.sharpen();
    this.draw();
  }

  labelTiles(tiles = this.sheet.tiles) {
    const measures = this.data.measures.filter(({ key }) => this.labels.has(key));
    for (const tile of tiles) tile.label(measures, tile.number === this.picked);
  }

  // Say what happened, below the sheet and to screen readers.
  say(text) {
    this.said.textContent = text;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { this.said.textContent = ""; }, SAID_FOR);
  }

  // ---- rows, columns and hidden values ----

  layout() {
    const { hiddenCount } = this.arrangement;
    this.axisControls.draw();
    this.sheet.layout(this.arrangement);
    this.hidden.textContent = `${hiddenCount} hidden`;
    this.hidden.hidden = !hiddenCount;
  }

  // Lay the sheet out again after the arrangement has changed.
  rearrange(said) {
    const inside = this.sheet.box.contains(this.activeElement);
    remember(this.memory, this.arrangement);
    this.layout();
    if (inside) this.focusTile(this.sheet.focusedTile);
    if (said) this.say(said);
  }

  swap() {
    this.arrangement.swap();
    this.rearrange("Rows and columns are swapped");
  }

  // Hide the focused cell's row or column.
  hide(role) {
    const { arrangement, sheet } = this;
    const axis = arrangement[role];
    if (axis === null || arrangement.visible(axis).length < 2) return;
    const value = sheet.focusedTile.cell.at[axis];
    arrangement.toggle(axis, value);
    this.rearrange(`${this.data.axes[axis].labels[value]} is hidden; u shows all`);
  }

  showAll() {
    this.arrangement.showAll();
    this.rearrange("All values are shown");
  }

  // ---- cells ----

  focusTile(tile) {
    if (tile?.item.isConnected) tile.button.focus();
  }

  clicked(event) {
    if (this.zoom.dragged) {
      this.zoom.dragged = false;
      return;
    }
    const tile = this.sheet.tileAt(event.target);
    if (!tile) return;
    const both = event.shiftKey || event.ctrlKey || event.metaKey;
    if (both || event.target.closest(".pick")) this.pick(tile.number);
    else if (event.target.closest(".cell")) this.open(tile.number);
  }

  // Everything about a cell: in the dashboard its run, else in the dialog.
  open(number) {
    const { run_id: run } = this.sheet.tiles[number].cell;
    if (!this.hooks.open) this.pair.open([number]);
    else if (run !== null) this.hooks.open(run);
  }

  // Choose a cell; the second one opens both beside each other.
  pick(number, mode) {
    const { cell } = this.sheet.tiles[number];
    const { picked } = this;
    if (!cell.picture) return;
    this.letGo();
    if (picked === number) this.say("No cell is chosen");
    else if (picked !== null) this.pair.open([picked, number], mode);
    else {
      this.picked = number;
      this.labelTiles([this.sheet.tiles[number]]);
      this.say(`A: ${cell.label}. Choose a second cell to see both beside each other.`);
    }
  }

  letGo() {
    const { picked } = this;
    this.picked = null;
    if (picked !== null) this.labelTiles([this.sheet.tiles[picked]]);
  }

  // The difference between the chosen cell and the focused one; without a chosen one, choose it.
  differ() {
    const { focus } = this.sheet;
    if (this.picked !== focus) this.pick(focus, "difference");
  }
}
