// What stands above the sheet: the axes' lists, the panels of values and labels, size and zoom.

import { h, remember } from "./dom.js";
import { clamp } from "./sizes.js";

// ---- which axis is where ----

export class AxisControls {
  constructor(viewer) {
    this.viewer = viewer;
    this.node = h("div.axes");
  }

  draw() {
    const { axes } = this.viewer.data;
    const controls = () => [...this.node.querySelectorAll("select, button")];
    const focused = controls().indexOf(this.viewer.activeElement);
    const parts = axes.length ? [
      this.role("Rows", "rows"),
      h("button.textual", {
        "aria-label": "Swap rows and columns", title: "Swap rows and columns (t)",
        onclick: () => this.viewer.swap(),
      }, "⇄"),
      this.role("Columns", "columns"),
      ...(axes.length > 2 ? [this.role("In a cell", "inner")] : []),
      ...this.viewer.arrangement.others.map((axis) => this.otherAxis(axis)),
    ] : [];
    this.node.replaceChildren(...parts);
    if (focused >= 0) controls()[focused]?.focus();
  }

  // The list of the axes for one role.
  role(name, role) {
    const { viewer } = this;
    const current = viewer.arrangement[role];
    const assign = ({ target }) => {
      viewer.arrangement.assign(role, target.value === "" ? null : Number(target.value));
      viewer.rearrange();
    };
    return h("label", {}, h("span.name", {}, name),
      h("select", { "aria-label": name, onchange: assign },
        h("option", { value: "", selected: current === null }, "–"),
        ...viewer.data.axes.map((axis, i) => h("option", {
          value: i, selected: i === current,
        }, axis.name))));
  }

  // An axis without a role: the list of its values, with a button to either side.
  otherAxis(axis) {
    const { viewer } = this;
    const { arrangement } = viewer;
    const { name, labels } = viewer.data.axes[axis];
    const choose = (value) => {
      arrangement.chosen[axis] = value;
      viewer.rearrange(`${name} ${labels[value]}`);
    };
    const turn = (label, by, sign) => h("button", {
      "aria-label": `${name}: ${label}`, onclick: () => choose(arrangement.neighbour(axis, by)),
    }, sign);
    const select = h("select", {
      "aria-label": name, onchange: (event) => choose(Number(event.target.value)),
    }, ...arrangement.order[axis].map((value) => h("option", {
      value, selected: value === arrangement.chosen[axis],
    }, labels[value])));
    return h("span.group.rest", { role: "group", "aria-label": name },
      h("span.name", {}, name), turn("previous", -1, "‹"), select, turn("next", 1, "›"));
  }
}

// ---- panels: which values, which labels ----

export class Panels {
  constructor(viewer) {
    this.viewer = viewer;
    this.node = h("div.panel", { hidden: true, role: "group" });
    this.buttons = [
      this.button("Values", () => this.values()), this.button("Labels", () => this.labels())];
    viewer.root.addEventListener("pointerdown", ({ target }) => {
      if (!this.node.contains(target) && !target.closest("[aria-expanded]")) this.close();
    });
  }

  get isOpen() {
    return !this.node.hidden;
  }

  button(text, fill) {
    const button = h("button.textual", { "aria-expanded": "false", onclick: () => {
      const open = button.getAttribute("aria-expanded") === "true";
      this.close();
      if (!open) this.open(button, fill);
    } }, text);
    return button;
  }

  open(button, fill) {
    const { node } = this;
    button.setAttribute("aria-expanded", "true");
    this.opener = button;
    this.fill = () => node.replaceChildren(...fill());
    this.fill();
    node.setAttribute("aria-label", button.textContent);
    node.hidden = false;
    const most = Math.max(0, this.viewer.root.clientWidth - node.offsetWidth);
    node.style.left = `${clamp(button.offsetLeft - 40, 0, most)}px`;
    node.querySelector("input, button")?.focus();
  }

  close() {
    if (!this.isOpen) return;
    const inside = this.node.contains(this.viewer.activeElement);
    this.opener.setAttribute("aria-expanded", "false");
    this.node.hidden = true;
    if (inside) this.opener.focus();
  }

  values() {
    const { arrangement, data } = this.viewer;
    return data.axes.map(({ name }, axis) => h("fieldset", {}, h("legend", {}, name),
      ...arrangement.order[axis].map((_, place) => this.value(axis, place)),
      h("button.textual", { onclick: () => {
        arrangement.reverse(axis);
        this.refill();
        this.node.children[axis].lastElementChild.focus();
      } }, "Reverse")));
  }

  // A value: whether it is shown, and two buttons that move it.
  value(axis, place) {
    const { arrangement, data } = this.viewer;
    const order = arrangement.order[axis];
    const label = data.axes[axis].labels[order[place]];
    const line = (at) => this.node.children[axis].querySelectorAll(".value")[at];
    const move = (by, name, sign) => h("button", {
      "aria-label": `${label}: ${name}`, title: name,
      disabled: place + by < 0 || place + by >= order.length,
      onclick: () => {
        arrangement.move(axis, place, by);
        this.refill();
        const [up, down] = line(place + by).querySelectorAll("button");
        const [used, other] = by < 0 ? [up, down] : [down, up];
        (used.disabled ? other : used).focus();
      },
    }, sign);
    const toggle = () => {
      arrangement.toggle(axis, order[place]);
      this.refill();
      line(place).querySelector("input").focus();
    };
    return h("div.value", {},
      h("label", {}, h("input", {
        type: "checkbox", checked: arrangement.isShown(axis, order[place]), onchange: toggle,
      }), h("span.clip", { title: label }, label)),
      move(-1, "earlier", "↑"), move(1, "later", "↓"));
  }

  refill() {
    this.viewer.rearrange();
    this.fill();
  }

  labels() {
    const { viewer } = this;
    const toggle = (key, on) => {
      if (on) viewer.labels.add(key);
      else viewer.labels.delete(key);
      remember("contact-sheet.labels", [...viewer.labels]);
      viewer.labelTiles();
    };
    return [h("fieldset", {}, h("legend", {}, "Under each cell"),
      ...viewer.data.measures.map(({ key, label }) => h("label.value", {}, h("input", {
        type: "checkbox", checked: viewer.labels.has(key),
        onchange: (event) => toggle(key, event.target.checked),
      }), h("span", {}, label))))];
  }
}

// ---- buttons ----

export function sizeButtons(sheet) {
  return h("span.group", { role: "group", "aria-label": "Size of the cells" },
    h("span.name", {}, "Cells"),
    h("button.less", {
      "aria-label": "Smaller pictures", title: "Smaller cells", onclick: () => sheet.resizeBy(-1),
    }, "−"),
    h("button.fit", { title: "As large as fits", onclick: () => sheet.fit() }, "Fit"),
    h("button.more", {
      "aria-label": "Larger pictures", title: "Larger cells", onclick: () => sheet.resizeBy(1),
    }, "+"));
}

// Zoom out, how far, zoom in; `percent` is the button between the two.
export function zoomButtons(zoom, label, percent, name) {
  const button = (text, factor, sign) => h("button", {
    "aria-label": text, title: text, onclick: () => zoom.by(factor),
  }, sign);
  return h("span.group", { role: "group", "aria-label": label },
    name ? h("span.name", {}, name) : null,
    button("Zoom out", 0.5, "−"), percent, button("Zoom in", 2, "+"));
}
