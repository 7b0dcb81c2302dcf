"""What lies under the strokes and clicks of the canvas, and the line above it."""

from __future__ import annotations

import io

import streamlit as st
from PIL import Image

from dashboard import state
from dashboard.inpaint.draft import Draft
from pipelines.inpainting import masks
from pipelines.inpainting.masks import Mask

SELECTED = (250, 190, 30)  # what the clicks mean, before it is mask


def hint(text: str) -> None:
    """One line above the canvas; the toolbar of the canvas opens at its right."""
    st.html(f"<div class='cs-hint'>{text}</div>")


def draft_background(
    draft: Draft, size: tuple[int, int], selected: Mask | None = None
) -> bytes:
    """The picture at the canvas's size with the mask over it, as a PNG; `selected`: what the clicks
    mean."""
    return _background(draft.image, masks.as_image(draft.mask).tobytes(), draft.mask.shape, size,
                       None if selected is None else selected.tobytes())


@st.cache_data(max_entries=40, show_spinner=False)
def _background(
    image: str, mask: bytes, shape: tuple[int, int], size: tuple[int, int], selected: bytes | None
) -> bytes:
    shown = state.engine().pictures.get(image).convert("RGB")
    how = Image.Resampling.NEAREST if size[0] >= shown.width else Image.Resampling.LANCZOS
    shown = shown.resize(size, how)
    for values, colour in ((mask, masks.TINT), (selected, SELECTED)):
        if values and any(values):
            layer = Image.frombytes("L", shape[::-1], values).resize(size, how)
            shown = masks.overlay(shown, masks.as_mask(layer), colour)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
