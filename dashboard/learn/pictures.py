"""Small pictures of the lessons in a row, each with a caption and a text for screen readers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import state

if TYPE_CHECKING:
    from PIL.Image import Image


def gallery(
    place: str, pictures: Sequence[tuple[Image, str, str]], columns: int | None = None
) -> None:
    """Each picture with its caption and its text for screen readers; `place` is its own on the
    page. In one row, or in rows of so many columns."""
    items = []
    for number, (picture, caption, alt) in enumerate(pictures):
        file = io.BytesIO()
        picture.save(file, "PNG")
        url = state.picture_url(file.getvalue(), f"learn-{place}-{number}")
        items.append(f"<figure><img src='{escape(url)}' alt='{escape(alt)}'>"
                     f"<figcaption>{escape(caption)}</figcaption></figure>")
    style = (f" style='display: grid; grid-template-columns: repeat({columns}, 1fr)'"
             if columns else "")
    st.html(f"<div class='cs-gallery'{style}>{''.join(items)}</div>")
