"""The drawing canvas: the one module that knows streamlit-drawable-canvas.

What its callers must hold to:
- `key` names a drawing. Another key makes the browser forget what was drawn and begin from `start`;
  under the same key `start` stays the same, since feeding a drawing back loses strokes.
- The browser forgets a canvas that is not on the page, and one of another size needs another key:
  keep what it sent.
- There is no picture of the strokes until the first one is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from pipelines.sheet.viewer.scripts import joined

if TYPE_CHECKING:
    from streamlit_drawable_canvas import CanvasResult

_width = st.components.v2.component(
    "contact_sheet.canvas_width",
    html="<div class='width'></div>",
    css=":host { display: block; } .width { height: 1px; margin-bottom: -1px; }",
    js=joined(Path(__file__).with_name("drawing_canvas.js")),
)


def canvas_width(*, key: str) -> int | None:
    """How wide a canvas can be here, in CSS pixels; None until the browser has told it.

    Draw no canvas before: it would be made anew at its true size, and lose a stroke begun on it.
    """
    result = _width(key=key, default={"width": 0}, on_width_change=lambda: None)
    return int(result.width or 0) or None


def drawing_canvas(
    background: bytes, size: tuple[int, int], tool: str, *, key: str, colour: str,
    fill: str | None = None, stroke_width: int = 0, point: int = 3,
    start: dict[str, Any] | None = None, picture: bool = False,
) -> CanvasResult:
    """A canvas over a picture (PNG) of the same size; `picture`: it sends its strokes as a PNG too.

    `tool`: freedraw, rect, circle, polygon or point; `point`: the radius of a point.
    """
    from streamlit_drawable_canvas import st_canvas  # can be imported only where Streamlit runs

    return st_canvas(
        fill_color=fill or colour, stroke_color=colour, stroke_width=stroke_width,
        background_image=background, width=size[0], height=size[1], drawing_mode=tool,
        initial_drawing=start, point_display_radius=point, return_image_data=picture, key=key,
    )


def last_drawing(key: str) -> dict[str, Any]:
    """What the browser last sent of a canvas, before this script run draws it."""
    value = st.session_state.get(key) or {}
    return (value.get("drawing") or {}).get("raw") or {}
