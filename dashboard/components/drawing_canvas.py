"""How wide a column is in the browser: for components that have a size of their own."""

from __future__ import annotations

import streamlit as st

_room = st.components.v2.component(
    "contact_sheet.room",
    html="<div class='room'></div>",
    css=":host { display: block; } .room { height: 1px; margin-bottom: -1px; }",
    js="""
// The canvas takes presses of button 0; a touch names none, so points and shapes took no finger.
if (globalThis.TouchEvent && !("button" in TouchEvent.prototype)) {
  Object.defineProperty(TouchEvent.prototype, "button", { value: 0 });
}
const observers = new WeakMap();
export default function ({ parentElement, setStateValue }) {
  const node = parentElement.querySelector(".room");
  observers.get(node)?.disconnect();
  let last = 0, timer = 0;
  const observer = new ResizeObserver(() => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const width = Math.floor(node.clientWidth / 8) * 8;  // smaller changes are no news
      if (width > 0 && width !== last) { last = width; setStateValue("width", width); }
    }, 60);
  });
  observers.set(node, observer);
  observer.observe(node);
  return () => { clearTimeout(timer); observer.disconnect(); };
}
""",
)


def room(*, key: str, otherwise: int) -> int:
    """The width in CSS pixels, rounded down; `otherwise` until the browser has told it."""
    result = _room(key=key, default={"width": 0}, on_width_change=lambda: None)
    return int(result.width or 0) or otherwise
