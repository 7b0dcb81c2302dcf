"""The sheet viewer as a component; its script and style are the exported page's too."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pipelines.sheet.viewer import FOLDER, STYLE
from pipelines.sheet.viewer.scripts import joined

_sheet = st.components.v2.component(
    "contact_sheet.sheet",
    html='<div class="viewer"></div>',
    css=STYLE.read_text(encoding="utf-8"),
    js=joined(FOLDER / "component.js"),
)


def steps_wanted(key: str) -> bool:
    """Whether somebody has touched the step slider of the sheet with this key."""
    return bool(st.session_state.get(key, {}).get("steps"))


def contact_sheet(data: dict[str, Any], *, key: str) -> int | None:
    """Show what viewer_data() gave; the id of the run whose cell was just opened, None mostly."""
    result = _sheet(key=key, data=data, default={"steps": False}, on_open_change=lambda: None,
                    on_steps_change=lambda: None)
    return result.open
