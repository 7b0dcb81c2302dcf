"""A picture with the part of it that is repainted, and how much that is."""

from __future__ import annotations

import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from dashboard import state
from dashboard.components.text import notice, words
from pipelines.inpainting import masks
from pipelines.inpainting.canvas import MaskSummary, feathered
from pipelines.inpainting.masks import Mask
from pipelines.pixels import flat


@st.cache_data(show_spinner=False, max_entries=40)
def enlarged(image: Image.Image, mask: Mask | None = None) -> tuple[Image.Image, Mask | None]:
    """A thumbnail, and that of its mask."""
    small = None if mask is None else masks.as_mask(masks.thumbnail(masks.as_image(mask)))
    return masks.thumbnail(image), small


@st.cache_data(show_spinner=False, max_entries=200)
def stored_thumbnail(sha256: str) -> Image.Image:
    """A thumbnail of a picture of the store."""
    return masks.thumbnail(flat(state.engine().pictures.get(sha256)))


@st.cache_data(show_spinner=False, max_entries=200)
def stored_summary(sha256: str, feather: int, differential: bool) -> MaskSummary:
    """What is told of a mask of the store."""
    mask = masks.as_mask(state.engine().pictures.get(sha256))
    return MaskSummary.of(feathered(mask, feather, differential), mask, differential)


def picture_notes(sha256: str) -> None:
    """What was changed of a picture of the store on its way in."""
    for note in state.engine().pictures.notes(sha256):
        notice("note", f"This picture: {note}.")


def masked_picture(sha256: str, mask: MaskSummary) -> DeltaGenerator:
    """What is repainted of a picture of the store, with its rim, as a small picture and in figures;
    the place below them."""
    width, height = state.engine().pictures.size(sha256)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.image(masks.overlay(stored_thumbnail(sha256), mask.thumbnail), width=120)
        figures = st.container(gap="xsmall")
        with figures:
            words(f"{mask.share:.1%} of the picture is repainted", "large")
            words(f"{mask.repainted:,} of {mask.width * mask.height:,} pixels, {mask.rim:,} of "
                  f"them in the feathered rim. The picture has {width} × {height} px.", "quiet")
    return figures
