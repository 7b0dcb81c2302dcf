"""A picture with the part of it that is repainted, and how much that is."""

from __future__ import annotations

import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from dashboard.components.text import words
from pipelines.inpainting import masks
from pipelines.inpainting.canvas import feathered
from pipelines.inpainting.masks import Mask

SIDE = 192  # pixels of a thumbnail's longer side


@st.cache_data(show_spinner=False, max_entries=40)
def enlarged(image: Image.Image, mask: Mask | None = None) -> tuple[Image.Image, Mask | None]:
    """A thumbnail, small pictures without blur, and its mask."""
    scale = SIDE / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    if mask is not None:
        mask = masks.as_mask(masks.as_image(mask).resize(size, how))
    return image.resize(size, how), mask


def masked_picture(
    picture: Image.Image, mask: Mask, feather: int, differential: bool
) -> DeltaGenerator:
    """What is repainted, with its rim, as a small picture and in figures; the place below them."""
    soft = feathered(mask, feather, differential)
    rim = soft != feathered(mask, 0, differential)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.image(masks.overlay(*enlarged(picture, soft)), width=120)
        figures = st.container(gap="xsmall")
        with figures:
            words(f"{masks.share(soft):.1%} of the picture is repainted", "large")
            words(f"{int((soft > 0).sum()):,} of {soft.size:,} pixels, {int(rim.sum()):,} of them "
                  f"in the feathered rim. The picture has {picture.width} × {picture.height} px.",
                  "quiet")
    return figures
