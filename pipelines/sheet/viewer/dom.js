// Elements and what the browser keeps; nothing here knows of sheets or cells.

// An element: h("button.textual", { onclick, title: "Keys" }, "?"). An attribute that is false,
// null or undefined is left out, and so is a child that is null or undefined.
export function h(name, attributes, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  if (tag === "button") node.type = "button";
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

// An axis name that may break after an underscore or a plus sign.
export function breakable(name) {
  const span = h("span.axis");
  for (const part of name.split(/(?<=[_+])/)) span.append(part, h("wbr"));
  return span;
}

// Whether the page is dark: the browser's own sliders and lists follow the page's theme, not the
// system's.
export function isDark(node) {
  const probe = h("i", { hidden: true, style: "color: var(--st-background-color)" });
  node.append(probe);
  const [red, green, blue] = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return red + green + blue < 384;
}

// What the browser keeps until the tab is closed; null where it keeps nothing, as it may for a page
// from disk.
export function recall(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key) || "null");
  } catch {
    return null;
  }
}

export function remember(key, value) {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch { /* the browser forbids it: nothing is kept */ }
}
