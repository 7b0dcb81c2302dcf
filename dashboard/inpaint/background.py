"""What lies under the strokes and clicks of the canvas, and the line above it."""

from __future__ import annotations

import io

import streamlit as st
from PIL import Image

from dashboard import state
from dashboard.inpaint.draft import Draft
from pipelines.inpainting import masks
from pipelines.inpainting.masks import Mask
from pipelines.pixels import flat

SELECTED = (250, 190, 30)  # what the clicks mean, before it is mask


def hint(text: str) -> None:
    """One line above the canvas; the toolbar of the canvas opens at its right."""
    st.html(f"<div class='cs-hint'>{text}</div>")


def draft_background(
    draft: Draft, size: tuple[int, int], selected: Mask | None = None
) -> bytes:
    """The picture at the canvas's size with the mask over it, as a PNG; `selected`: what the clicks
    mean."""
    return draft.once("background", _drawn_background, draft.image, size, draft.mask, selected)


def _drawn_background(
    image: str, size: tuple[int, int], mask: Mask, selected: Mask | None
) -> bytes:
    shown = _picture_at(image, size)
    how = _resampling(image, size)
    for layer, colour in ((mask, masks.TINT), (selected, SELECTED)):
        if layer is not None and layer.any():
            small = masks.as_image(layer).resize(size, how)
            shown = masks.overlay(shown, masks.as_mask(small), colour)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@st.cache_data(max_entries=40, show_spinner=False)
def _picture_at(image: str, size: tuple[int, int]) -> Image.Image:
    """A picture of the store at another size."""
    return flat(state.engine().pictures.get(image)).resize(size, _resampling(image, size))


def _resampling(image: str, size: tuple[int, int]) -> Image.Resampling:
    grows = size[0] >= state.engine().pictures.size(image)[0]
    return Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
