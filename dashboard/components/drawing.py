"""Figures of a study on a page: the same HTML and SVG as in its report."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import streamlit as st

from pipelines.sheet.viewer.scripts import joined
from pipelines.study.charts import STYLE

FIGURES = """
figure { margin: 0 0 1.2rem; }
figcaption { opacity: .72; font-size: .92rem; padding-top: .4rem; }
"""
_drawings = st.components.v2.component(
    "contact_sheet.drawings",
    html='<div class="drawings"></div>',
    css=STYLE.read_text(encoding="utf-8") + FIGURES,
    js=joined(Path(__file__).parent / "drawing.js"),
)


def drawings(pairs: Sequence[tuple[str, str]], *, key: str) -> None:
    """Show drawings of charts.py, each with its caption."""
    _drawings(key=key, data={"drawings": [{"drawing": drawing, "caption": escape(caption)}
                                          for drawing, caption in pairs]})
