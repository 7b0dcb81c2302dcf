// The sheet viewer: one file for the dashboard's component and for the exported page.

const LEAST = 96; // pixels of a cell that is fitted; below that the table scrolls instead
const GAP = 10;
const LARGEST_ZOOM = 64;
const FLICKERS = [1, 2, 3]; // changes a second; more than three flashes can harm
const MODES = {
  side: ["Side by side", "s"], slider: ["Slider", "w"], flicker: ["Flicker", "f"],
  difference: ["Difference", "d"],
};
const KEYS = [
  ["← ↑ → ↓", "another cell; beside each other: another right-hand cell"],
  ["Home, End", "first, last cell of the row"],
  ["Enter", "everything about the cell"],
  ["Space", "choose the cell; the second one opens both beside each other"],
  ["d", "difference between the chosen cell and this one"],
  ["s w f d", "beside each other: side by side, slider, flicker, difference"],
  ["< >", "difference: weaker, stronger"],
  ["x", "beside each other: swap the two"],
  ["+ − 0", "zoom in, zoom out, whole picture, in all cells"],
  ["Shift + arrows", "move the part in view, in all cells"],
  ["[ ]", "one denoising step back, on"],
  ["p", "play the denoising"],
  ["t", "swap rows and columns"],
  ["h, H", "hide the cell's column, its row"],
  ["u", "show all values again"],
  ["Escape", "close, or let go of the chosen cell"],
  ["?", "this list"],
];

function h(name, attributes, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  if (tag === "button") node.type = "button";
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node[key] = value;
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const density = () => window.devicePixelRatio || 1;

function stored(key, value) {
  try { // a page from disk, or a browser that forbids it
    if (value === undefined) return JSON.parse(sessionStorage.getItem(key) || "null");
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch { /* nothing is kept then */ }
  return null;
}

// The browser's own sliders and lists follow the page's theme, not the system's.
function dark(node) {
  const probe = h("i", { hidden: true, style: "color: var(--st-background-color)" });
  node.append(probe);
  const [red, green, blue] = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return red + green + blue < 384;
}

function breakable(name) {
  const span = h("span.axis");
  name.split(/(?<=[_+])/).forEach((part) => span.append(part, document.createElement("wbr")));
  return span;
}

// Factors of a picture's own pixels: whole ones where it grows, halves where it shrinks.
function factors(width, height) {
  const all = [1 / 16, 1 / 8, 1 / 4, 1 / 2];
  for (let f = 1; f <= 32; f += 1) all.push(f);
  const longest = Math.max(width, height);
  return all.map((f) => f / density()).filter((f) => longest * f >= 32 && longest * f <= 1100);
}

function fitted(width, height, room, tall) {
  const scale = Math.min(room / width, tall / height);
  return scale * density() >= 1 ? Math.floor(scale * density()) / density() : scale;
}

class Viewer {
  constructor(root, hooks = {}) {
    this.root = root;
    this.hooks = hooks;
    this.nodes = [];
    this.zoom = { scale: 1, x: 0, y: 0 }; // x, y: the corner in view, in parts of a picture
    this.position = null; // of the step slider; null is its end, the final pictures
    this.size = null; // factor of a picture's pixels; null fits
    this.picked = null;
    this.pair = null;
    this.near = new Set();
    this.faces = [];
    this.build();
  }

  // ---- the frame: made once ----

  build() {
    const zoomer = (label, text, amount) => h("button", {
      "aria-label": label, title: label, onclick: () => this.zoomBy(amount),
    }, text);
    this.axes = h("div.axes");
    this.hidden = h("button.textual", { onclick: () => this.showAll() });
    this.valuesButton = this.panelButton("Values", () => this.valuesPanel());
    this.labelsButton = this.panelButton("Labels", () => this.labelsPanel());
    this.percent = h("button.percent", { onclick: () => this.setZoom(1, 0, 0), title: "Whole pictures" });
    this.step = h("input.step", {
      type: "range", min: 1, step: 1, "aria-label": "Denoising step",
      oninput: () => this.setPosition(Number(this.step.value)),
    });
    this.stepText = h("output.steptext");
    this.playButton = h("button.play", { "aria-label": "Play the denoising", onclick: () => this.play() }, "▶");
    this.steps = h("div.steps", {}, this.playButton, this.step, this.stepText);
    this.help = this.helpDialog();
    this.head = h("thead");
    this.body = h("tbody");
    this.table = h("table", { role: "grid", "aria-label": "Contact sheet" }, this.head, this.body);
    this.box = h("div.table", {}, this.table);
    this.said = h("div.said", { role: "status", "aria-live": "polite" });
    this.panel = h("div.panel", { hidden: true });
    this.dialog = this.pairDialog();
    this.root.replaceChildren(
      h("div.bar", {}, this.axes,
        h("div.tools", {}, this.hidden, this.valuesButton, this.labelsButton,
          h("span.group", { role: "group", "aria-label": "Size of the cells" },
            h("span.name", {}, "Cells"),
            h("button.less", { "aria-label": "Smaller pictures", title: "Smaller cells", onclick: () => this.resizeBy(-1) }, "−"),
            h("button.fit", { title: "As large as fits", onclick: () => { this.size = null; this.resize(); } }, "Fit"),
            h("button.more", { "aria-label": "Larger pictures", title: "Larger cells", onclick: () => this.resizeBy(1) }, "+")),
          h("span.group", { role: "group", "aria-label": "Zoom into all pictures" },
            h("span.name", {}, "Zoom"),
            zoomer("Zoom out", "−", 0.5), this.percent, zoomer("Zoom in", "+", 2)),
          h("button.textual", { "aria-label": "Keys", title: "Keys (?)", onclick: () => this.help.showModal() }, "?")),
        this.panel),
      this.steps, this.box, this.said, this.dialog, this.help);
    this.root.onkeydown = (event) => this.key(event);
    this.gestures(this.box, (target) => target.closest(".cell"), false);
    this.box.addEventListener("click", (event) => this.clicked(event));
    this.box.addEventListener("focusin", (event) => this.focused(event));
    this.root.addEventListener("pointerdown", (event) => {
      if (!this.panel.hidden && !this.panel.contains(event.target)
        && !event.target.closest("[aria-expanded]")) this.closePanel();
    });
    this.watcher = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const node = this.nodes[target.dataset.cell];
        if (!node) continue;
        if (isIntersecting) { this.near.add(node); this.paint(node); } else this.near.delete(node);
      }
    }, { root: this.box, rootMargin: "150px" });
    this.observer = new ResizeObserver(() => { this.resize(); this.fitStage(); });
    this.observer.observe(this.root);
    this.observer.observe(this.stage);
  }

  destroy() {
    this.watcher.disconnect();
    this.observer.disconnect();
    clearInterval(this.playing);
    clearInterval(this.flickering);
  }

  // ---- data ----

  update(data) {
    this.root.style.colorScheme = dark(this.root) ? "dark" : "light";
    const shape = JSON.stringify(data.axes);
    const first = shape !== this.shape;
    this.data = data;
    if (first) {
      this.shape = shape;
      this.start();
    }
    this.length = Math.max(1, ...data.cells.map((cell) => cell.steps.length));
    this.step.max = this.length;
    this.step.disabled = this.playButton.disabled = this.length < 2;
    data.cells.forEach((cell, number) => this.updateCell(cell, number));
    if (first) this.layout();
    else this.resize();
    this.showPosition();
    if (this.pair && (this.pair.a >= this.nodes.length || this.pair.b >= this.nodes.length)) this.dialog.close();
  }

  start() {
    const { axes } = this.data;
    for (const node of this.nodes) node.item.remove();
    this.nodes = [];
    this.near.clear();
    this.byPlace = new Map(this.data.cells.map((cell, number) => [cell.at.join(), number]));
    const kept = stored(`contact-sheet.${this.data.id}`);
    this.arrangement = kept && kept.order.length === axes.length
      && kept.order.every((order, i) => order.length === axes[i].labels.length) ? kept : {
        rows: axes.length > 1 ? 0 : null,
        columns: axes.length > 1 ? 1 : axes.length ? 0 : null,
        inner: null,
        chosen: axes.map(() => 0),
        order: axes.map((axis) => axis.labels.map((_, i) => i)),
        hidden: axes.map(() => []),
      };
    const labels = stored("contact-sheet.labels");
    this.labels = new Set(labels || ["total", "nfe", "rms_latents", "psnr", "changed_unmasked_pixels"]);
    this.focus = 0;
    this.picked = null;
  }

  keep() {
    stored(`contact-sheet.${this.data.id}`, this.arrangement);
  }

  updateCell(cell, number) {
    let node = this.nodes[number];
    if (!node) {
      const button = h("button.cell", { tabindex: -1 });
      const pick = h("button.pick", { tabindex: -1, title: "Choose for a comparison of two (Space)" });
      const caption = h("div.caption");
      const item = h("div.item", {}, button, caption);
      item.dataset.cell = number;
      node = { number, item, button, caption, pick, texts: h("span.texts") };
      caption.append(node.texts, pick);
      this.nodes[number] = node;
      this.watcher.observe(item);
    }
    const signature = JSON.stringify(cell);
    if (node.signature === signature) return;
    node.signature = signature;
    node.data = cell;
    node.button.dataset.status = cell.status;
    node.button.setAttribute("aria-label", `${cell.label}: ${cell.text || this.measured(cell)}`);
    node.pick.setAttribute("aria-label", `Choose ${cell.label}`);
    node.pick.hidden = !cell.picture;
    node.face = this.face(cell);
    node.stepText = h("span.at");
    node.button.replaceChildren(...(cell.picture ? [node.face.pane, node.stepText] : [h("span.words", { title: cell.text }, cell.text || cell.status)]));
    this.caption(node);
    if (this.near.has(node)) this.paint(node);
  }

  measured(cell) {
    return this.data.measures.filter(({ key }) => this.labels.has(key) && cell.texts[key])
      .map(({ key, label }) => `${label} ${cell.texts[key]}`).join(", ");
  }

  caption(node) {
    const { data } = node;
    const texts = this.data.measures.filter(({ key }) => this.labels.has(key) && data.texts[key])
      .map(({ key, label, short }) => h("span", { title: label }, `${short} ${data.texts[key]}`.trim()));
    const marks = data.marks.map((mark) => h("span.mark", {}, mark));
    node.texts.replaceChildren(...texts, ...marks);
    const letter = this.picked === node.number ? "A" : "";
    node.pick.textContent = letter;
    node.pick.setAttribute("aria-pressed", String(Boolean(letter)));
  }

  // A picture with its steps over it; several share zoom, place and step.
  face(cell) {
    const picture = h("img.picture", { src: cell.picture, alt: "", decoding: "async", loading: "lazy", draggable: "false" });
    const step = h("div.frame", { hidden: true });
    return { cell, picture, step, pane: h("div.pane", {}, picture, step) };
  }

  // ---- rows, columns and the axes beyond ----

  visible(axis) {
    if (axis === null) return [null];
    const { order, hidden } = this.arrangement;
    const shown = order[axis].filter((value) => !hidden[axis].includes(value));
    return shown.length ? shown : order[axis].slice(0, 1);
  }

  layout() {
    const { axes } = this.data;
    const { rows, columns, inner, chosen } = this.arrangement;
    this.axesControls();
    const [down, across, within] = [rows, columns, inner].map((axis) => this.visible(axis));
    const corner = () => h("th.corner", { rowspan: inner === null ? 1 : 2 },
      rows === null ? "" : h("span", {}, "↓ ", breakable(axes[rows].name)),
      columns === null ? "" : h("span", {}, "→ ", breakable(axes[columns].name)),
      inner === null ? "" : h("span", {}, "⇢ ", breakable(axes[inner].name)));
    const heading = (axis, value, scope, span) => h("th", { scope, colspan: span, title: axis === null ? "" : axes[axis].labels[value] },
      h("span.clip", {}, axis === null ? "" : axes[axis].labels[value]));
    const top = h("tr", {}, rows === null ? null : corner(),
      ...across.map((value, i) => {
        const th = heading(columns, value, "col", within.length);
        th.classList.toggle("opens", i > 0 && inner !== null);
        return th;
      }));
    const second = inner === null ? [] : [h("tr.second", {}, ...across.flatMap((_, i) => within.map((value, j) => {
      const th = heading(inner, value, "col", 1);
      th.classList.toggle("opens", j === 0 && i > 0);
      return th;
    })))];
    this.head.replaceChildren(top, ...second);
    this.grid = [];
    this.body.replaceChildren(...down.map((r) => {
      const line = [];
      const tr = h("tr", {}, rows === null ? null : heading(rows, r, "row", 1));
      across.forEach((c, i) => within.forEach((v, j) => {
        const at = [...chosen];
        if (rows !== null) at[rows] = r;
        if (columns !== null) at[columns] = c;
        if (inner !== null) at[inner] = v;
        const node = this.nodes[this.byPlace.get(at.join())];
        line.push(node || null);
        const td = h("td", { class: j === 0 && i > 0 && inner !== null ? "opens" : null }, node ? node.item : h("div.gap", { title: "not in this grid" }));
        tr.append(td);
      }));
      this.grid.push(line);
      return tr;
    }));
    const here = this.grid.flat();
    if (!here.includes(this.nodes[this.focus])) this.focus = here.find(Boolean)?.number ?? 0;
    for (const node of this.nodes) node.button.tabIndex = node.number === this.focus ? 0 : -1;
    const count = this.arrangement.hidden.reduce((sum, hidden) => sum + hidden.length, 0);
    this.hidden.textContent = `${count} hidden`;
    this.hidden.title = "Show all values again (u)";
    this.hidden.hidden = !count;
    this.resize();
  }

  axesControls() {
    const { axes } = this.data;
    const { rows, columns, inner, chosen } = this.arrangement;
    const role = (name, key, current) => h("label", {}, h("span.name", {}, name), h("select", {
      "aria-label": name, onchange: (event) => this.assign(key, event.target.value === "" ? null : Number(event.target.value)),
    }, h("option", { value: "", selected: current === null }, "–"),
    ...axes.map((axis, i) => h("option", { value: i, selected: i === current }, axis.name))));
    const rest = axes.map((axis, i) => i).filter((i) => ![rows, columns, inner].includes(i)).map((i) => {
      const select = h("select", { "aria-label": axes[i].name, onchange: (event) => this.choose(i, Number(event.target.value)) },
        ...this.arrangement.order[i].map((value) => h("option", { value, selected: value === chosen[i] }, axes[i].labels[value])));
      return h("span.group.rest", { role: "group", "aria-label": axes[i].name }, h("span.name", {}, axes[i].name),
        h("button", { "aria-label": `${axes[i].name}: previous`, onclick: () => this.turn(i, -1) }, "‹"), select,
        h("button", { "aria-label": `${axes[i].name}: next`, onclick: () => this.turn(i, 1) }, "›"));
    });
    const focused = this.axes.contains(this.active()) ? [...this.axes.querySelectorAll("select, button")].indexOf(this.active()) : -1;
    this.axes.replaceChildren(...(axes.length ? [
      role("Rows", "rows", rows),
      h("button.textual", { "aria-label": "Swap rows and columns", title: "Swap rows and columns (t)", onclick: () => this.swap() }, "⇄"),
      role("Columns", "columns", columns),
      axes.length > 2 ? role("In a cell", "inner", inner) : null, ...rest].filter(Boolean) : []));
    if (focused >= 0) this.axes.querySelectorAll("select, button")[focused]?.focus();
  }

  assign(key, axis) {
    const { arrangement } = this;
    const before = arrangement[key];
    const other = ["rows", "columns", "inner"].find((role) => role !== key && axis !== null && arrangement[role] === axis);
    arrangement[key] = axis;
    if (other) arrangement[other] = before;
    this.rearrange();
  }

  swap() {
    const { arrangement } = this;
    [arrangement.rows, arrangement.columns] = [arrangement.columns, arrangement.rows];
    this.rearrange("Rows and columns are swapped");
  }

  choose(axis, value) {
    this.arrangement.chosen[axis] = value;
    this.rearrange(`${this.data.axes[axis].name} ${this.data.axes[axis].labels[value]}`);
  }

  turn(axis, by) {
    const order = this.arrangement.order[axis];
    const place = order.indexOf(this.arrangement.chosen[axis]) + by;
    this.choose(axis, order[(place + order.length) % order.length]);
  }

  hide(axis, value) {
    if (axis === null || this.visible(axis).length < 2) return;
    this.arrangement.hidden[axis].push(value);
    this.rearrange(`${this.data.axes[axis].labels[value]} is hidden; u shows all`);
  }

  showAll() {
    this.arrangement.hidden = this.arrangement.hidden.map(() => []);
    this.rearrange("All values are shown");
  }

  // Pictures move with their nodes: nothing is loaded or computed again.
  rearrange(said) {
    const inside = this.box.contains(this.active());
    this.keep();
    this.layout();
    if (inside) this.nodes[this.focus]?.button.focus();
    if (said) this.say(said);
  }

  // ---- panels: which values, which labels ----

  panelButton(text, fill) {
    const button = h("button.textual", { "aria-expanded": "false", onclick: () => {
      const open = button.getAttribute("aria-expanded") === "true";
      this.closePanel();
      if (open) return;
      button.setAttribute("aria-expanded", "true");
      this.panelFill = () => this.panel.replaceChildren(...fill());
      this.panelFill();
      this.panel.setAttribute("role", "group");
      this.panel.setAttribute("aria-label", text);
      this.panel.hidden = false;
      this.panel.style.left = `${clamp(button.offsetLeft - 40, 0, Math.max(0, this.root.clientWidth - this.panel.offsetWidth))}px`;
      this.panel.querySelector("input, button")?.focus();
    } }, text);
    return button;
  }

  closePanel() {
    const button = this.root.querySelector("[aria-expanded=true]");
    const inside = this.panel.contains(this.active());
    button?.setAttribute("aria-expanded", "false");
    this.panel.hidden = true;
    if (inside) button?.focus();
  }

  valuesPanel() {
    const { order, hidden } = this.arrangement;
    return this.data.axes.map((axis, i) => h("fieldset", {}, h("legend", {}, axis.name),
      ...order[i].map((value, place) => {
        const shown = !hidden[i].includes(value);
        const move = (by, label, sign) => h("button", {
          "aria-label": `${axis.labels[value]}: ${label}`, title: label, disabled: place + by < 0 || place + by >= order[i].length,
          onclick: () => {
            order[i].splice(place, 1);
            order[i].splice(place + by, 0, value);
            this.refill(i, place + by, by);
          },
        }, sign);
        return h("div.value", {}, h("label", {}, h("input", {
          type: "checkbox", checked: shown, onchange: () => {
            hidden[i] = shown ? [...hidden[i], value] : hidden[i].filter((v) => v !== value);
            this.refill(i, place, 0);
          },
        }), h("span.clip", { title: axis.labels[value] }, axis.labels[value])), move(-1, "earlier", "↑"), move(1, "later", "↓"));
      }),
      h("button.textual", { onclick: () => { order[i].reverse(); this.refill(i, -1, 0); } }, "Reverse")));
  }

  // Draw the panel again and leave the focus on what was used.
  refill(axis, place, by) {
    this.rearrange();
    this.panelFill();
    const fieldset = this.panel.children[axis];
    const line = fieldset.querySelectorAll(".value")[place];
    if (!line) fieldset.lastElementChild.focus();
    else if (!by) line.querySelector("input").focus();
    else {
      const [up, down] = line.querySelectorAll("button");
      (by < 0 ? (up.disabled ? down : up) : (down.disabled ? up : down)).focus();
    }
  }

  labelsPanel() {
    return [h("fieldset", {}, h("legend", {}, "Under each cell"), ...this.data.measures.map(({ key, label }) => h("label.value", {}, h("input", {
      type: "checkbox", checked: this.labels.has(key), onchange: (event) => {
        if (event.target.checked) this.labels.add(key);
        else this.labels.delete(key);
        stored("contact-sheet.labels", [...this.labels]);
        this.nodes.forEach((node) => this.caption(node));
        this.near.forEach((node) => this.paint(node));
      },
    }), h("span", {}, label))))];
  }

  // ---- size of the cells ----

  resize() {
    const { data, box } = this;
    if (!data || !this.grid || !this.root.clientWidth) return;
    const choices = factors(data.width, data.height);
    if (!choices.length) choices.push(LEAST / Math.max(data.width, data.height));
    const columns = this.grid[0]?.length || 1;
    if (this.size === null) {
      const head = this.body.querySelector("th")?.offsetWidth || 0;
      const scrollbar = box.offsetWidth - box.clientWidth || 15;
      const room = (this.root.clientWidth - scrollbar - head) / columns - GAP;
      const fitting = choices.filter((f) => data.width * f <= room && data.height * f <= 640);
      this.shown = fitting.length ? fitting[fitting.length - 1] : choices[0];
      if (data.width * this.shown < LEAST) this.shown = choices.find((f) => data.width * f >= LEAST) ?? this.shown;
    } else {
      this.shown = this.size;
    }
    this.table.style.setProperty("--w", `${data.width * this.shown}px`);
    this.table.style.setProperty("--h", `${data.height * this.shown}px`);
    this.sharpen();
  }

  resizeBy(direction) {
    const choices = factors(this.data.width, this.data.height);
    const next = direction > 0 ? choices.find((f) => f >= this.shown * 1.2)
      : choices.filter((f) => f <= this.shown / 1.2).pop();
    if (next === undefined) return;
    this.size = next;
    this.resize();
  }

  // Pixels are repeated where a picture grows, never blurred.
  sharpen() {
    this.table.classList.toggle("sharp", this.shown * density() * this.zoom.scale >= 1);
    this.stage.classList.toggle("sharp", this.stageScale * density() * this.zoom.scale >= 1);
  }

  // ---- zoom and place, the same in all cells ----

  setZoom(scale, x, y) {
    scale = clamp(scale, 1, LARGEST_ZOOM);
    if (scale < 1.01) scale = 1;
    const most = 1 - 1 / scale;
    this.zoom = { scale, x: clamp(x, 0, most), y: clamp(y, 0, most) };
    this.root.classList.toggle("zoomed", scale > 1);
    this.sharpen();
    this.draw();
  }

  // Around a point given in parts of the frame.
  zoomBy(factor, px = 0.5, py = 0.5) {
    const { scale, x, y } = this.zoom;
    const next = clamp(scale * factor, 1, LARGEST_ZOOM);
    this.setZoom(next, x + px / scale - px / next, y + py / scale - py / next);
  }

  pan(dx, dy) {
    const { scale, x, y } = this.zoom;
    this.setZoom(scale, x - dx / scale, y - dy / scale);
  }

  gestures(surface, frameOf, anyWheel) {
    const pointers = new Map();
    let frame = null;
    surface.addEventListener("wheel", (event) => {
      const target = frameOf(event.target);
      if (!target || !(anyWheel || event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      const rect = target.getBoundingClientRect();
      const amount = clamp(event.deltaY * (event.deltaMode ? 30 : 1), -150, 150);
      this.zoomBy(Math.exp(-amount / (event.ctrlKey ? 150 : 300)), (event.clientX - rect.x) / rect.width, (event.clientY - rect.y) / rect.height);
    }, { passive: false });
    surface.addEventListener("pointerdown", (event) => {
      const target = frameOf(event.target);
      if (!target || event.button > 0) return;
      if (!pointers.size) this.dragged = false;
      frame = target.getBoundingClientRect();
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    surface.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const now = { x: event.clientX, y: event.clientY };
      const far = Math.hypot(now.x - before.x, now.y - before.y);
      if (pointers.size === 1) {
        if (this.zoom.scale === 1 || (!this.dragged && far < 4)) return;
        if (!this.dragged) surface.setPointerCapture(event.pointerId);
        this.dragged = true;
        this.pan((now.x - before.x) / frame.width, (now.y - before.y) / frame.height);
      } else {
        this.dragged = true;
        const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
        const apart = (p) => Math.max(20, Math.hypot(p.x - other.x, p.y - other.y));
        const middle = (p) => [((p.x + other.x) / 2 - frame.x) / frame.width, ((p.y + other.y) / 2 - frame.y) / frame.height];
        const [was, is] = [middle(before), middle(now)];
        this.zoomBy(apart(now) / apart(before), ...is);
        this.pan(is[0] - was[0], is[1] - was[1]);
      }
      pointers.set(event.pointerId, now);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      surface.addEventListener(name, (event) => pointers.delete(event.pointerId));
    }
    window.addEventListener("pointerup", (event) => pointers.delete(event.pointerId));
  }

  // ---- denoising steps ----

  setPosition(position) {
    this.position = position >= this.length ? null : clamp(position, 1, this.length);
    if (this.position !== null && !this.asked) {
      this.asked = true;
      this.hooks.askForSteps?.();
    }
    this.showPosition();
  }

  showPosition() {
    const at = this.position ?? this.length;
    this.step.value = at;
    const lengths = new Set(this.data.cells.filter((cell) => cell.steps.length).map((cell) => cell.total_steps));
    let text = this.length < 2 ? "no steps to show yet" : "final pictures";
    if (this.position !== null) {
      const [total] = lengths;
      text = lengths.size === 1 && total === this.length ? `predicted picture after step ${at} of ${total}`
        : `predicted pictures at ${Math.round((at / this.length) * 100)} % of the steps`;
    }
    this.stepText.textContent = text;
    this.step.setAttribute("aria-valuetext", text);
    if (this.pair) {
      this.pairStep.max = this.length;
      this.pairStep.value = at;
      this.pairStepText.textContent = text;
      this.pairStep.setAttribute("aria-valuetext", text);
    }
    this.draw();
  }

  play() {
    if (this.playing) {
      clearInterval(this.playing);
      this.playing = null;
    } else {
      if (this.position === null) this.setPosition(1);
      this.playing = setInterval(() => {
        this.setPosition((this.position ?? this.length) + 1);
        if (this.position === null) this.play();
      }, Math.max(60, 3000 / this.length));
    }
    for (const button of [this.playButton, this.pairPlay]) {
      button.textContent = this.playing ? "❚❚" : "▶";
      button.setAttribute("aria-label", this.playing ? "Stop" : "Play the denoising");
    }
  }

  // Which of a cell's kept steps stands at the slider's position; null: the final picture.
  frameAt(cell) {
    if (this.position === null || !cell.steps.length) return null;
    return this.length < 2 ? 0 : Math.round(((this.position - 1) / (this.length - 1)) * (cell.steps.length - 1));
  }

  // ---- drawing: only what is in or near the view, once a frame ----

  draw() {
    this.percent.textContent = `${Math.round(this.zoom.scale * 100)} %`;
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = null;
      for (const node of this.near) this.paint(node);
      for (const face of this.faces) this.paintFace(face);
      if (this.pair) this.pairZoom.textContent = this.percent.textContent;
      if (this.pair?.mode === "difference") this.difference();
    });
  }

  paint(node) {
    if (!node.face) return;
    this.paintFace(node.face);
    const frame = this.frameAt(node.data);
    let text = "";
    if (frame !== null) text = `${node.data.steps[frame]}/${node.data.total_steps}`;
    else if (this.position !== null && node.data.picture) text = "no steps kept";
    if (node.stepText.textContent !== text) node.stepText.textContent = text;
  }

  paintFace({ cell, pane, step }) {
    const { scale, x, y } = this.zoom;
    const transform = scale === 1 ? "" : `scale(${scale}) translate(${-x * 100}%, ${-y * 100}%)`;
    if (pane.style.transform !== transform) pane.style.transform = transform;
    const frame = this.frameAt(cell);
    step.hidden = frame === null || !cell.strip;
    if (step.hidden) return;
    const count = cell.steps.length;
    if (step.dataset.strip !== cell.strip.slice(-80)) {
      step.dataset.strip = cell.strip.slice(-80);
      step.style.backgroundImage = `url("${cell.strip}")`;
      step.style.backgroundSize = `${count * 100}% 100%`;
      // The frames have the picture's shape; in a frame of another shape both are centred.
      const fit = Math.min(this.data.width / cell.width, this.data.height / cell.height);
      step.style.width = `${((cell.width * fit) / this.data.width) * 100}%`;
      step.style.height = `${((cell.height * fit) / this.data.height) * 100}%`;
    }
    step.style.backgroundPosition = `${count > 1 ? (frame / (count - 1)) * 100 : 0}% 0`;
  }

  // ---- cells ----

  active() {
    return this.root.getRootNode().activeElement;
  }

  focused(event) {
    const item = event.target.closest(".item");
    if (!item) return;
    this.nodes[this.focus].button.tabIndex = -1;
    this.focus = Number(item.dataset.cell);
    this.nodes[this.focus].button.tabIndex = 0;
  }

  clicked(event) {
    const item = event.target.closest(".item");
    if (!item) return;
    const number = Number(item.dataset.cell);
    if (this.dragged) { this.dragged = false; return; }
    if (event.target.closest(".pick") || event.shiftKey || event.ctrlKey || event.metaKey) this.pick(number);
    else if (event.target.closest(".cell")) this.open(number);
  }

  open(number) {
    const { run_id } = this.nodes[number].data;
    if (this.hooks.open) {
      if (run_id !== null) this.hooks.open(run_id);
    } else this.openPair(number, null);
  }

  pick(number) {
    if (!this.nodes[number].data.picture) return;
    const before = this.picked;
    if (before !== null && before !== number) {
      this.letGo();
      this.openPair(before, number);
      return;
    }
    this.picked = before === number ? null : number;
    this.caption(this.nodes[number]);
    this.paint(this.nodes[number]);
    this.say(this.picked === null ? "No cell is chosen" : `A: ${this.nodes[number].data.label}. Choose a second cell to see both beside each other.`);
  }

  letGo() {
    const { picked } = this;
    this.picked = null;
    if (picked !== null) { this.caption(this.nodes[picked]); this.paint(this.nodes[picked]); }
  }

  say(text) {
    this.said.textContent = text;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { this.said.textContent = ""; }, 6000);
  }

  // ---- keys ----

  key(event) {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      if (this.help.open || this.dialog.open) return; // the browser closes them
      if (!this.panel.hidden) this.closePanel();
      else if (this.picked !== null) this.letGo();
      else return;
      event.stopPropagation();
      return;
    }
    if (this.help.open || target.matches("select, input:not([type=range]):not([type=checkbox])")) return;
    const range = target.matches("input[type=range]") || target.matches("[role=slider]");
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const inGrid = this.box.contains(target) && target.closest(".item");
    let done = true;
    if (arrow && event.shiftKey && !range) this.pan(-arrow[0] / 10, -arrow[1] / 10);
    else if (arrow && range) done = false;
    else if (arrow && this.pair) this.move(arrow, this.pair.b ?? this.pair.a);
    else if (arrow && inGrid) this.move(arrow, this.focus);
    else if (["Home", "End"].includes(event.key) && inGrid && !range) this.ends(event.key === "Home");
    else if (event.key === "Enter" && inGrid && target.closest(".cell")) this.open(this.focus);
    else if (event.key === " " && inGrid) this.pick(this.focus);
    else done = this.letter(event.key, inGrid);
    if (done) {
      event.preventDefault();
      event.stopPropagation();
    }
  }

  letter(key, inGrid) {
    const mode = Object.keys(MODES).find((name) => MODES[name][1] === key);
    switch (key) {
      case "+": case "=": this.zoomBy(2); break;
      case "-": case "−": this.zoomBy(0.5); break;
      case "0": this.setZoom(1, 0, 0); break;
      case "[": this.setPosition((this.position ?? this.length) - 1); break;
      case "]": this.setPosition((this.position ?? this.length) + 1); break;
      case "p": if (this.length > 1) this.play(); break;
      case "?": this.help.showModal(); break;
      default:
        if (this.pair) return this.pairLetter(key, mode);
        if (key === "t") this.swap();
        else if (key === "u") this.showAll();
        else if (!inGrid) return false;
        else if (key === "d") this.differ();
        else if (key === "h") this.hide(this.arrangement.columns, this.valueOf("columns"));
        else if (key === "H") this.hide(this.arrangement.rows, this.valueOf("rows"));
        else return false;
    }
    return true;
  }

  valueOf(role) {
    return this.nodes[this.focus].data.at[this.arrangement[role]];
  }

  differ() {
    const { picked, focus } = this;
    if (picked === null || picked === focus) {
      if (picked === null) this.pick(focus);
      return;
    }
    this.letGo();
    this.openPair(picked, focus, "difference");
  }

  move([dx, dy], from) {
    let [row, column] = [-1, -1];
    this.grid.forEach((line, r) => line.forEach((node, c) => { if (node?.number === from) [row, column] = [r, c]; }));
    let node = null;
    do { // over places that the grid leaves out
      row += dy;
      column += dx;
      node = this.grid[row]?.[column];
    } while (node === null);
    if (!node) return;
    if (!this.pair) { node.button.focus(); return; }
    if (!node.data.picture) return;
    this.focus = node.number;
    if (this.pair.b === null) this.pair.a = node.number;
    else this.pair.b = node.number;
    this.drawPair();
  }

  ends(first) {
    const line = this.grid.find((nodes) => nodes.includes(this.nodes[this.focus])).filter(Boolean);
    line[first ? 0 : line.length - 1].button.focus();
  }

  // ---- two cells beside each other; or one, with everything about it ----

  pairDialog() {
    this.pairTitle = h("div.titles");
    this.modes = h("div.modes", { role: "radiogroup", "aria-label": "How to compare" },
      ...Object.entries(MODES).map(([name, [label, key]]) => h("button", {
        role: "radio", "data-mode": name, title: `${label} (${key})`, onclick: () => this.setMode(name),
      }, label)));
    this.pairZoom = h("button.percent", { onclick: () => this.setZoom(1, 0, 0), title: "Whole pictures (0)" });
    this.stage = h("div.stage");
    this.stageScale = 1;
    this.extra = h("div.extra");
    this.facts = h("div.facts");
    this.pairStep = h("input.step", { type: "range", min: 1, step: 1, "aria-label": "Denoising step of both", oninput: () => this.setPosition(Number(this.pairStep.value)) });
    this.pairStepText = h("output.steptext");
    this.pairPlay = h("button.play", { "aria-label": "Play the denoising", onclick: () => this.play() }, "▶");
    this.pairSteps = h("div.steps", {}, this.pairPlay, this.pairStep, this.pairStepText);
    this.openRun = h("div.openrun");
    this.stage.addEventListener("pointerdown", (event) => this.dragCut(event));
    this.stage.addEventListener("pointermove", (event) => { if (event.buttons & 1) this.dragCut(event); });
    this.gestures(this.stage, (target) => target.closest(".view"), true);
    return h("dialog.pair", { "aria-label": "Cells beside each other", onclose: () => this.closedPair() },
      h("header", {}, this.modes,
        h("span.group", { role: "group", "aria-label": "Zoom into both pictures" },
          h("button", { "aria-label": "Zoom out", onclick: () => this.zoomBy(0.5) }, "−"), this.pairZoom,
          h("button", { "aria-label": "Zoom in", onclick: () => this.zoomBy(2) }, "+")),
        h("button.textual.close", { "aria-label": "Close", title: "Close (Escape)", onclick: () => this.dialog.close() }, "✕")),
      h("div.twocolumns", {},
        h("div.left", {}, this.stage, this.extra, this.pairSteps),
        h("div.right", { tabindex: 0, role: "region", "aria-label": "Parameters and measurements" }, this.pairTitle, this.openRun, this.facts)));
  }

  openPair(a, b, mode) {
    const kept = this.pair?.mode || this.lastMode || "side";
    this.pair = { a, b, mode: b === null ? "one" : mode || kept };
    this.cut ??= 0.5;
    this.factor ??= 4;
    this.rate ??= FLICKERS[1];
    this.drawPair();
    if (!this.dialog.open) this.dialog.showModal();
    if (b !== null) this.modes.querySelector("[aria-checked=true]").focus();
    this.fitStage();
    this.showPosition();
  }

  closedPair() {
    const number = this.pair?.b ?? this.pair?.a ?? this.focus;
    clearInterval(this.flickering);
    this.pair = null;
    this.faces = [];
    this.stage.replaceChildren();
    if (this.nodes[number]?.item.isConnected) this.nodes[number].button.focus();
  }

  setMode(mode) {
    this.pair.mode = mode;
    this.lastMode = mode;
    this.drawPair();
    this.modes.querySelector("[aria-checked=true]").focus();
  }

  pairLetter(key, mode) {
    if (this.pair.b === null) return false;
    if (mode) this.setMode(mode);
    else if (key === "x") this.swapPair();
    else if ((key === "<" || key === ",") && this.pair.mode === "difference") this.setFactor(this.factor / 2);
    else if ((key === ">" || key === ".") && this.pair.mode === "difference") this.setFactor(this.factor * 2);
    else return false;
    return true;
  }

  swapPair() {
    [this.pair.a, this.pair.b] = [this.pair.b, this.pair.a];
    this.drawPair();
  }

  drawPair() {
    const { a, b, mode } = this.pair;
    const cells = [a, b].filter((number) => number !== null).map((number) => this.nodes[number].data);
    this.modes.hidden = b === null;
    for (const button of this.modes.children) {
      const on = button.dataset.mode === mode;
      button.setAttribute("aria-checked", String(on));
      button.tabIndex = on ? 0 : -1;
    }
    this.dialog.setAttribute("aria-label", cells.map((cell) => cell.label).join(" beside "));
    const faces = cells.map((cell) => this.face(cell));
    for (const face of faces) { face.picture.loading = "eager"; face.picture.alt = face.cell.label; }
    const view = (...children) => h("div.view", {}, ...children);
    const badge = (letter) => h("span.badge", { "aria-hidden": "true" }, letter);
    clearInterval(this.flickering);
    this.canvas = null;
    this.extra.replaceChildren();
    this.faces = mode === "difference" ? [] : faces;
    if (!cells[0].picture) this.stage.replaceChildren(h("p.words", {}, cells[0].text || cells[0].status));
    else if (mode === "one") this.stage.replaceChildren(view(faces[0].pane));
    else if (mode === "side") {
      this.stage.replaceChildren(...faces.map((face, i) => view(face.pane, badge("AB"[i]))));
    } else if (mode === "slider") {
      this.handle = h("div.handle", {
        role: "slider", tabindex: 0, "aria-label": "Share of A in view", "aria-valuemin": 0, "aria-valuemax": 100,
        onkeydown: (event) => {
          const by = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
          if (by && !event.shiftKey) { this.setCut(this.cut + by); event.preventDefault(); event.stopPropagation(); }
        },
      });
      this.over = h("div.over", {}, faces[1].pane);
      this.stage.replaceChildren(view(faces[0].pane, this.over, badge("A"), h("span.badge.other", { "aria-hidden": "true" }, "B"), this.handle));
      this.setCut(this.cut);
    } else if (mode === "flicker") {
      const over = h("div.over", {}, faces[1].pane);
      const letter = badge("A");
      this.stage.replaceChildren(view(faces[0].pane, over, letter));
      const turn = () => { over.hidden = !over.hidden; letter.textContent = over.hidden ? "A" : "B"; };
      const start = () => { clearInterval(this.flickering); this.flickering = setInterval(turn, 1000 / this.rate); };
      over.hidden = true;
      start();
      this.extra.replaceChildren(h("label", {}, "Changes a second ", h("select", {
        onchange: (event) => { this.rate = Number(event.target.value); start(); },
      }, ...FLICKERS.map((rate) => h("option", { value: rate, selected: rate === this.rate }, String(rate))))));
    } else {
      this.canvas = h("canvas.picture", { role: "img", "aria-label": "Amplified difference" });
      const pane = h("div.pane", {}, this.canvas);
      this.stage.replaceChildren(view(pane, badge("|A − B|")));
      this.faces = [{ cell: { steps: [] }, pane, step: h("div") }];
      this.differenceText = h("output.differencetext");
      this.factorInput = h("input", { type: "range", min: 0, max: 6, step: 1, "aria-label": "Amplified", oninput: () => this.setFactor(2 ** Number(this.factorInput.value)) });
      this.factorText = h("output");
      this.extra.replaceChildren(h("label", {}, "Amplified ", this.factorInput), this.factorText, this.differenceText);
      this.setFactor(this.factor);
    }
    this.pairSteps.hidden = this.length < 2;
    this.drawFacts(cells);
    this.fitStage();
    this.draw();
  }

  fitStage() {
    if (!this.pair || !this.stage.clientWidth) return;
    const cells = [this.pair.a, this.pair.b].filter((n) => n !== null).map((n) => this.nodes[n].data);
    const { width, height } = this.data;
    const beside = this.pair.mode === "side" ? 2 : 1;
    const room = (this.stage.clientWidth - 12 * (beside - 1)) / beside;
    this.stageScale = fitted(width, height, room, this.stage.clientHeight || 400);
    this.stage.style.setProperty("--w", `${width * this.stageScale}px`);
    this.stage.style.setProperty("--h", `${height * this.stageScale}px`);
    if (cells.length) this.sharpen();
  }

  setCut(cut) {
    this.cut = clamp(cut, 0, 1);
    this.over.style.clipPath = `inset(0 0 0 ${this.cut * 100}%)`;
    this.handle.style.left = `${this.cut * 100}%`;
    this.handle.setAttribute("aria-valuenow", Math.round(this.cut * 100));
  }

  dragCut(event) {
    if (this.pair?.mode !== "slider") return;
    const down = event.type === "pointerdown";
    if (down) {
      // Zoomed in, only the handle moves the cut: a drag elsewhere moves the part in view.
      this.cutting = event.target.closest(".handle") || (event.target.closest(".view") && this.zoom.scale === 1);
      if (this.cutting) this.stage.setPointerCapture(event.pointerId);
    }
    if (!this.cutting) return;
    const rect = this.stage.querySelector(".view").getBoundingClientRect();
    this.setCut((event.clientX - rect.x) / rect.width);
    if (down) event.stopImmediatePropagation();
  }

  setFactor(factor) {
    this.factor = clamp(factor, 1, 64);
    this.factorInput.value = Math.log2(this.factor);
    this.factorInput.setAttribute("aria-valuetext", `${this.factor} times`);
    this.factorText.textContent = `× ${this.factor}`;
    this.difference();
  }

  // The pixels of a cell at the slider's position, at a size.
  async pixels(cell, width, height) {
    const frame = this.frameAt(cell);
    const image = new Image();
    image.src = frame === null || !cell.strip ? cell.picture : cell.strip;
    await image.decode();
    const canvas = h("canvas", { width, height });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.imageSmoothingEnabled = false;
    const wide = image.naturalWidth / (frame === null || !cell.strip ? 1 : cell.steps.length);
    pen.drawImage(image, frame === null || !cell.strip ? 0 : frame * wide, 0, wide, image.naturalHeight, 0, 0, width, height);
    return pen.getImageData(0, 0, width, height);
  }

  async difference() {
    const { pair, canvas } = this;
    const [a, b] = [pair.a, pair.b].map((number) => this.nodes[number].data);
    const key = [pair.a, pair.b, this.factor, this.frameAt(a), this.frameAt(b), a.strip?.length, b.strip?.length].join();
    if (!canvas || canvas.dataset.key === key) return;
    canvas.dataset.key = key;
    let one;
    let other;
    try {
      [one, other] = await Promise.all([a, b].map((cell) => this.pixels(cell, a.width, a.height)));
    } catch {
      this.differenceText.textContent = "a picture cannot be read";
      return;
    }
    if (this.canvas !== canvas || canvas.dataset.key !== key) return;
    let sum = 0;
    let largest = 0;
    let changed = 0;
    for (let i = 0; i < one.data.length; i += 4) {
      let most = 0;
      for (let c = 0; c < 3; c += 1) {
        const apart = Math.abs(one.data[i + c] - other.data[i + c]);
        one.data[i + c] = apart * this.factor; // clamped to 255 by the array
        sum += apart;
        most = Math.max(most, apart);
      }
      largest = Math.max(largest, most);
      changed += most > 0;
    }
    const count = one.data.length / 4;
    canvas.width = a.width;
    canvas.height = a.height;
    canvas.getContext("2d").putImageData(one, 0, 0);
    this.differenceText.textContent = largest
      ? `mean ${(sum / count / 3).toFixed(2)}, largest ${largest} of 255; ${((changed / count) * 100).toFixed(1)} % of the pixels differ`
      : "equal in every pixel";
  }

  drawFacts(cells) {
    const [a, b] = cells;
    const text = (value) => (value === undefined || value === null || value === "" ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
    const params = (cell) => ({ ...this.data.base, ...cell.params });
    const [of, and] = [params(a), b ? params(b) : {}];
    const names = [...new Set([...Object.keys(of), ...Object.keys(and)])];
    const differing = names.filter((name) => !b || text(of[name]) !== text(and[name]));
    const line = (name, ...values) => h("tr", {}, h("th", { scope: "row" }, breakable(name)), ...values.map((value) => h("td", {}, value)));
    const head = (title) => h("tr.head", {}, h("th", { scope: "col" }, title), ...(b ? ["A", "B"] : ["Value"]).map((name) => h("th", { scope: "col" }, name)), b && title === "Measured" ? h("th", { scope: "col" }, "B to A") : null);
    const apart = (key) => {
      const [one, other] = [a.values[key], b.values[key]];
      if (typeof one !== "number" || typeof other !== "number") return "";
      if (one > 0 && other > 0) return `${(other / one).toFixed(2)} ×`;
      return `${other - one > 0 ? "+" : ""}${Number((other - one).toPrecision(3))}`;
    };
    const measured = this.data.measures.filter(({ key }) => a.values[key] || b?.values[key])
      .map(({ key, label }) => (b ? line(label, a.texts[key] || "–", b.texts[key] || "–", apart(key)) : line(label, a.texts[key])));
    this.pairTitle.replaceChildren(...cells.map((cell, i) => h("p", {}, b ? h("span.badge", {}, "AB"[i]) : null, ` ${cell.label}`)),
      ...(b ? [h("button.textual", { title: "Swap A and B (x)", onclick: () => this.swapPair() }, "Swap A and B")] : []));
    this.openRun.replaceChildren(...(this.hooks.open ? cells.map((cell, i) => h("button.textual", {
      onclick: () => { this.dialog.close(); this.hooks.open(cell.run_id); },
    }, `Everything about ${"AB"[i]}`)) : []));
    const notes = cells.flatMap((cell, i) => [...cell.marks, ...cell.notes].map((note) => h("li", {}, b ? `${"AB"[i]}: ${note}` : note)));
    this.facts.replaceChildren(
      h("table", {}, h("tbody", {}, head(b ? "Differs" : "Parameter"),
        ...(differing.length ? differing.map((name) => (b ? line(name, text(of[name]), text(and[name])) : line(name, text(of[name])))) : [line("nothing", "", "")]),
        ...(measured.length ? [head("Measured"), ...measured] : []))),
      notes.length ? h("ul", {}, ...notes) : "");
  }

  helpDialog() {
    const dialog = h("dialog.help", { "aria-label": "Keys" },
      h("header", {}, h("strong", {}, "Keys"), h("button.textual.close", { "aria-label": "Close", onclick: () => dialog.close() }, "✕")),
      h("table", {}, h("tbody", {}, ...KEYS.map(([keys, what]) => h("tr", {}, h("th", { scope: "row" }, keys), h("td", {}, what))))),
      h("p", {}, "Ctrl or ⌘ with the wheel, or two fingers, zoom; a drag moves the part in view. Shift-click, or the circle below a picture, chooses it."));
    return dialog;
  }
}

const viewers = new WeakMap();

export default function ({ data, parentElement, setTriggerValue, setStateValue }) {
  let viewer = viewers.get(parentElement);
  if (!viewer) {
    viewer = new Viewer(parentElement.querySelector(".viewer"));
    viewers.set(parentElement, viewer);
  }
  viewer.hooks = {
    open: (run) => setTriggerValue("open", run),
    askForSteps: () => setStateValue("steps", true),
  };
  viewer.update(data);
  return () => { viewer.destroy(); viewers.delete(parentElement); };
}
