"""One picture, as large and sharp as fits, with a strip of its siblings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st

from pipelines.sheet.viewer.scripts import joined

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Picture:
    """`url` None draws an empty frame, `waiting` makes it breathe; `width`, `height`: pixels."""

    url: str | None
    width: int
    height: int
    alt: str
    caption: str = ""
    waiting: bool = False


_picture = st.components.v2.component(
    "contact_sheet.picture",
    html='<div class="stage"></div><div class="strip" role="group" aria-label="Pictures"></div>',
    css="".join((HERE / name).read_text(encoding="utf-8")
                for name in ("strip.css", "picture.css")),
    js=joined(HERE / "picture.js"),
)


def picture_viewer(pictures: Sequence[Picture], *, key: str, share_of_height: float = 0.7) -> int:
    """Show the pictures; the index of the large one. Whole multiples of a pixel, never blurred."""
    result = _picture(
        key=key,
        data={"pictures": [asdict(picture) for picture in pictures], "share": share_of_height},
        default={"index": 0},
        on_index_change=lambda: None,
    )
    return min(int(result.index or 0), len(pictures) - 1)
