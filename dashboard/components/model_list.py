"""Models as a list: one line each, the whole line opens it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st

from pipelines.sheet.viewer.scripts import joined

HERE = Path(__file__).parent


@dataclass(frozen=True)
class ModelLine:
    """`name` is set large, `author` small before it; `facts` follow in a quiet line; `figures` are
    label and value at the right; `marks` are kind (good, warn, bad, plain) and text; `problem` says
    why it cannot be opened."""

    id: str
    name: str
    author: str = ""
    facts: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
    marks: tuple[tuple[str, str], ...] = ()
    problem: str = ""


_list = st.components.v2.component(
    "contact_sheet.model_list",
    html='<ul class="list"></ul>',
    css=(HERE / "model_list.css").read_text(encoding="utf-8"),
    js=joined(HERE / "model_list.js"),
)


def model_list(lines: Sequence[ModelLine], *, key: str) -> str | None:
    """Show the lines; the id of the one that was just opened, None mostly."""
    result = _list(key=key, data={"lines": [asdict(line) for line in lines]},
                   on_open_change=lambda: None)
    return result.open
