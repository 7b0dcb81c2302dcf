"""The contact sheet on screen: a grid of pictures whose headings stay in view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Frame:
    """One cell: a picture, an error, or nothing yet. `run_id` makes it clickable."""

    status: str
    label: str
    run_id: int | None = None
    url: str | None = None
    time: str = ""
    nfe: str = ""
    error: str = ""


@dataclass(frozen=True)
class SheetData:
    """Rows of frames with their headings; `width` and `height` are the pixels of a picture."""

    row_axis: str
    column_axis: str
    row_labels: Sequence[str]
    column_labels: Sequence[str]
    frames: Sequence[Frame]
    width: int
    height: int


_sheet = st.components.v2.component(
    "contact_sheet.sheet",
    html=(HERE / "sheet.html").read_text(encoding="utf-8"),
    css=(HERE / "sheet.css").read_text(encoding="utf-8"),
    js=(HERE / "sheet.js").read_text(encoding="utf-8"),
)


def contact_sheet(sheet: SheetData, *, key: str) -> int | None:
    """Show a sheet; the id of the run whose cell was just opened, None mostly."""
    result = _sheet(key=key, data=asdict(sheet), on_open_change=lambda: None)
    return result.open
