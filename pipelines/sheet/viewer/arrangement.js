// Which axis runs down the rows, across the columns and inside the cells, which value the other
// axes stand at, and which values of each axis are shown in which order. Axes and values are
// numbers here: places in the lists of the sheet's data.

const ROLES = ["rows", "columns", "inner"];

export class Arrangement {
  // `kept` is an earlier one's JSON; it counts if it is of the same axes.
  constructor(axes, kept) {
    const fits = kept && kept.order.length === axes.length
      && kept.order.every((order, i) => order.length === axes[i].labels.length);
    const { rows, columns, inner, chosen, order, hidden } = fits ? kept : {
      rows: axes.length > 1 ? 0 : null,
      columns: axes.length ? Math.min(1, axes.length - 1) : null,
      inner: null,
      chosen: axes.map(() => 0),
      order: axes.map((axis) => axis.labels.map((_, i) => i)),
      hidden: axes.map(() => []),
    };
    Object.assign(this, { rows, columns, inner, chosen, order, hidden });
  }

  // The axes that have no role: the sheet shows one value of each.
  get others() {
    return this.order.map((_, axis) => axis)
      .filter((axis) => ROLES.every((role) => this[role] !== axis));
  }

  get hiddenCount() {
    return this.hidden.reduce((sum, values) => sum + values.length, 0);
  }

  // The values of an axis that are shown, at least one; of no axis, one that is null.
  visible(axis) {
    if (axis === null) return [null];
    const shown = this.order[axis].filter((value) => this.isShown(axis, value));
    return shown.length ? shown : this.order[axis].slice(0, 1);
  }

  isShown(axis, value) {
    return !this.hidden[axis].includes(value);
  }

  // The values of all axes in a cell of the sheet.
  at(row, column, inner) {
    const place = [...this.chosen];
    if (this.rows !== null) place[this.rows] = row;
    if (this.columns !== null) place[this.columns] = column;
    if (this.inner !== null) place[this.inner] = inner;
    return place;
  }

  // Give a role to an axis, or to none; the role that had the axis takes what this one had.
  assign(role, axis) {
    const other = ROLES.find((name) => name !== role && axis !== null && this[name] === axis);
    if (other) this[other] = this[role];
    this[role] = axis;
  }

  swap() {
    [this.rows, this.columns] = [this.columns, this.rows];
  }

  // The value of an axis before or behind the one that it stands at, around the ends.
  neighbour(axis, by) {
    const order = this.order[axis];
    const place = order.indexOf(this.chosen[axis]) + by;
    return order[(place + order.length) % order.length];
  }

  // Show or hide a value.
  toggle(axis, value) {
    this.hidden[axis] = this.isShown(axis, value) ? [...this.hidden[axis], value]
      : this.hidden[axis].filter((other) => other !== value);
  }

  showAll() {
    this.hidden = this.hidden.map(() => []);
  }

  // Move the value at a place of an axis's order.
  move(axis, place, by) {
    const [value] = this.order[axis].splice(place, 1);
    this.order[axis].splice(place + by, 0, value);
  }

  reverse(axis) {
    this.order[axis].reverse();
  }
}
