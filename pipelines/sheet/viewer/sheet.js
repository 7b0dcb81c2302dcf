// The sheet: a table of tiles, the size of its cells, and the cell that has the focus.

import { breakable, h } from "./dom.js";
import { fittingCellScale, isSharp, nextCellScale } from "./sizes.js";
import { Tile } from "./tile.js";

const CELL_GAP = 10;
const SCROLLBAR = 15;

export class Sheet {
  // `onpaint` is called with a tile that comes into or near the view.
  constructor(zoom, onpaint) {
    this.zoom = zoom;
    this.tiles = [];
    this.near = new Set(); // the tiles in or near the view: only those are painted
    this.focus = 0; // a cell's number
    this.scale = null; // chosen; null fits
    this.shownScale = 1;
    this.head = h("thead");
    this.body = h("tbody");
    this.table = h("table", { role: "grid", "aria-label": "Contact sheet" }, this.head, this.body);
    this.box = h("div.table", { onfocusin: (event) => this.focused(event) }, this.table);
    this.watcher = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const tile = this.tileAt(target);
        if (!tile) continue;
        if (isIntersecting) {
          this.near.add(tile);
          onpaint(tile);
        } else this.near.delete(tile);
      }
    }, { root: this.box, rootMargin: "150px" });
  }

  // ---- tiles ----

  // Begin with other axes: no tile is kept.
  clear(cells) {
    for (const tile of this.tiles) tile.item.remove();
    this.tiles = [];
    this.near.clear();
    this.byPlace = new Map(cells.map((cell, number) => [cell.at.join(), number]));
    this.focus = 0;
  }

  // Show the cells' data; the tiles that changed.
  update(data) {
    this.data = data;
    return data.cells.map((cell, number) => {
      if (!this.tiles[number]) {
        this.tiles[number] = new Tile(number);
        this.watcher.observe(this.tiles[number].item);
      }
      return this.tiles[number].update(cell) ? this.tiles[number] : null;
    }).filter(Boolean);
  }

  // The tile that an element is in.
  tileAt(element) {
    const item = element.closest(".item");
    return item ? this.tiles[item.dataset.cell] : undefined;
  }

  get focusedTile() {
    return this.tiles[this.focus];
  }

  focused(event) {
    const tile = this.tileAt(event.target);
    if (!tile) return;
    this.tiles[this.focus].button.tabIndex = -1;
    this.focus = tile.number;
    tile.button.tabIndex = 0;
  }

  // ---- the table ----

  // Lay the tiles out. Pictures move with their tiles: nothing is loaded or painted again.
  layout(arrangement) {
    const { rows, columns, inner } = arrangement;
    const [down, across, within] = [rows, columns, inner].map((axis) => arrangement.visible(axis));
    this.head.replaceChildren(...this.headRows(arrangement, across, within));
    this.grid = down.map((row) => across.flatMap((column) => within.map((value) => (
      this.tiles[this.byPlace.get(arrangement.at(row, column, value).join())] ?? null))));
    this.body.replaceChildren(...this.grid.map((line, i) => h("tr", {},
      rows === null ? null : this.heading(rows, down[i], { scope: "row" }),
      ...line.map((tile, j) => h("td", { class: opens(j, within.length, inner) },
        tile ? tile.item : h("div.gap", { title: "not in this grid" }))))));
    const shown = this.grid.flat().filter(Boolean);
    if (!shown.includes(this.tiles[this.focus])) this.focus = shown[0]?.number ?? 0;
    for (const tile of this.tiles) tile.button.tabIndex = tile.number === this.focus ? 0 : -1;
    this.resize();
  }

  headRows({ rows, columns, inner }, across, within) {
    const { axes } = this.data;
    const name = (sign, axis) => (axis === null ? ""
      : h("span", {}, sign, breakable(axes[axis].name)));
    const corner = rows === null ? null : h("th.corner", { rowspan: inner === null ? 1 : 2 },
      name("↓ ", rows), name("→ ", columns), name("⇢ ", inner));
    const first = h("tr", {}, corner, ...across.map((value, i) => this.heading(columns, value, {
      scope: "col", colspan: within.length, class: opens(i, 1, inner),
    })));
    if (inner === null) return [first];
    const second = across.flatMap((_, i) => within.map((value, j) => this.heading(inner, value, {
      scope: "col", class: opens(i * within.length + j, within.length, inner),
    })));
    return [first, h("tr.second", {}, ...second)];
  }

  heading(axis, value, attributes) {
    const label = axis === null ? "" : this.data.axes[axis].labels[value];
    return h("th", { title: label, ...attributes }, h("span.clip", {}, label));
  }

  // ---- the size of the cells ----

  resize() {
    if (!this.grid || !this.box.parentElement?.clientWidth) return;
    const { width, height } = this.data;
    this.shownScale = this.scale ?? fittingCellScale(width, height, this.columnRoom);
    this.table.style.setProperty("--w", `${width * this.shownScale}px`);
    this.table.style.setProperty("--h", `${height * this.shownScale}px`);
    this.sharpen();
  }

  get columnRoom() {
    const { box } = this;
    const head = this.body.querySelector("th")?.offsetWidth || 0;
    const scrollbar = box.offsetWidth - box.clientWidth || SCROLLBAR;
    const columns = this.grid[0]?.length || 1;
    return (box.parentElement.clientWidth - scrollbar - head) / columns - CELL_GAP;
  }

  fit() {
    this.scale = null;
    this.resize();
  }

  // Make the cells larger (1) or smaller (-1).
  resizeBy(direction) {
    const { width, height } = this.data;
    this.scale = nextCellScale(width, height, this.shownScale, direction) ?? this.scale;
    this.resize();
  }

  // Pixels are repeated where a picture grows, never blurred.
  sharpen() {
    this.table.classList.toggle("sharp", isSharp(this.shownScale * this.zoom.scale));
  }

  // ---- from cell to cell ----

  // The next tile in a direction, over places that the grid leaves out; undefined at the edge.
  next(number, [dx, dy]) {
    const tile = this.tiles[number];
    let row = this.grid.findIndex((line) => line.includes(tile));
    let column = this.grid[row]?.indexOf(tile);
    let next = null;
    while (next === null) {
      row += dy;
      column += dx;
      next = this.grid[row]?.[column];
    }
    return next;
  }

  // The first or the last tile in the focused one's row.
  end(first) {
    const line = this.grid.find((tiles) => tiles.includes(this.focusedTile)).filter(Boolean);
    return first ? line[0] : line.at(-1);
  }
}

// A column that opens a group of inner columns has a line before it.
function opens(column, within, inner) {
  return column > 0 && inner !== null && column % within === 0 ? "opens" : null;
}
