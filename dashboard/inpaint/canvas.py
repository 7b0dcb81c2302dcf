"""The left column while the mask is made: tools, canvas and the buttons below it."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.components.drawing_canvas import canvas_width, drawing_canvas
from dashboard.inpaint.background import draft_background, hint
from dashboard.inpaint.clicks import CLICKS, click_canvas
from dashboard.inpaint.draft import Draft
from dashboard.inpaint.mask import mask_operations
from dashboard.state import INPAINT

TALLEST = 560  # CSS pixels of the canvas
TOOLS = {"freedraw": ("Brush", "brush"), "rect": ("Rectangle", "rectangle"),
         "circle": ("Circle", "circle"), "polygon": ("Polygon", "pentagon"),
         "click": ("Click", "ads_click")}
PAINT, ERASE = "rgba(255, 0, 150, 0.55)", "rgba(0, 60, 235, 0.55)"  # masks.from_strokes tells


def mask_panel(draft: Draft) -> None:
    """Tools, canvas, and what can be done with the mask as a whole."""
    if width := canvas_width(key=INPAINT.key("canvas")):
        INPAINT.set("canvas.width", width)
    tool = _tools()
    if width := INPAINT.get("canvas.width"):  # of the last visit, until the browser tells it again
        size = display_size(draft, width)
        draft.fit(*size)
        draft.show("clicks" if tool == "click" else "strokes")
        if tool == "click":
            click_canvas(draft, size)
        else:
            _stroke_canvas(draft, size, tool)
    mask_operations(draft)


def display_size(draft: Draft, width: int) -> tuple[int, int]:
    """CSS pixels of the canvas: small pictures grow by whole numbers, large ones shrink."""
    scale = min(width / draft.width, TALLEST / draft.height)
    if scale >= 1:
        scale = int(scale)
    return max(1, round(draft.width * scale)), max(1, round(draft.height * scale))


def _tools() -> str:
    """The row of tools; the one that is chosen."""
    INPAINT.start(tool="freedraw", action="paint", brush=40, click="this")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        tool = st.segmented_control(
            "Tool", list(TOOLS), required=True, **INPAINT.kept("tool"),
            format_func=lambda name: f":material/{TOOLS[name][1]}: {TOOLS[name][0]}")
        if tool == "click":
            st.segmented_control("A click means", list(CLICKS), key=INPAINT.key("click"),
                                 required=True, format_func=lambda name: CLICKS[name][0])
        else:
            st.segmented_control(
                "Strokes", ["paint", "erase"], required=True, **INPAINT.kept("action"),
                format_func={"paint": ":material/edit: Add", "erase": ":material/ink_eraser: Erase"
                             }.get)
        if tool == "freedraw":
            st.slider("Brush width, px of the screen", 2, 160, width=190, **INPAINT.kept("brush"))
    return tool


def _stroke_canvas(draft: Draft, size: tuple[int, int], tool: str) -> None:
    """Strokes over the mask: red masks, blue erases, the last one wins."""
    erase = INPAINT.get("action") == "erase"
    how = {"freedraw": "Draw over", "circle": "Drag across, from left to right,",
           "polygon": "Click the corners, the first one again at the end, of"}
    # With this tool the canvas sends a polygon once it is closed, and all else when it is asked to.
    after = " After an undo press the toolbar's arrow." if tool == "polygon" else ""
    hint(f"{how.get(tool, 'Drag across')} what shall "
         + ("stay as it is; blue takes away." if erase else "be repainted.") + after)
    result = drawing_canvas(
        draft_background(draft, size), size, tool, colour=ERASE if erase else PAINT,
        stroke_width=INPAINT.get("brush") if tool == "freedraw" else 0, start=draft.start,
        picture=True, key=f"canvas-{st.session_state[state.DRAFT]}-{draft.version}",
    )
    draft.draw(result.json_data, result.image_bytes)
