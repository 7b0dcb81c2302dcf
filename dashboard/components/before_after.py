"""A picture and what was made of it under a slider, with a strip of all tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st

from pipelines.sheet.viewer.scripts import joined

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Try:
    """One picture made: its address, the picture in words, and what stands below it."""

    url: str
    alt: str
    caption: str


_before_after = st.components.v2.component(
    "contact_sheet.before_after",
    html=(HERE / "before_after.html").read_text(encoding="utf-8"),
    css="".join((HERE / name).read_text(encoding="utf-8")
                for name in ("strip.css", "before_after.css")),
    js=joined(HERE / "before_after.js"),
)


def before_after(
    before: str, tries: Sequence[Try], width: int, height: int, *, key: str,
    share_of_height: float = 0.6,
) -> int:
    """Show them, the first try large; the index of the one that is large now. `width`, `height`:
    the pixels of each."""
    result = _before_after(
        key=key,
        data={"before": before, "tries": [asdict(attempt) for attempt in tries], "width": width,
              "height": height, "share": share_of_height},
        default={"index": 0},
        on_index_change=lambda: None,
    )
    return min(int(result.index or 0), len(tries) - 1)
