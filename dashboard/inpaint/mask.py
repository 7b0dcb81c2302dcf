"""What changes the mask as a whole: undo, invert, grow, load, extend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from dashboard import state
from dashboard.inpaint.draft import Draft
from dashboard.last_net import last_net
from dashboard.state import INPAINT
from pipelines.errors import PipelineError, RequestError
from pipelines.inpainting import masks
from pipelines.inpainting.masks import Mask
from pipelines.inpainting.pictures_in import open_mask
from pipelines.pixels import input_notes

HOW = {"add": "Add to the mask", "subtract": "Take away from it", "replace": "Replace it"}
FILL_NAMES = {"edge": "The edge drawn out", "surroundings": "Colours melting outwards",
              "reflect": "The picture mirrored", "grey": "Grey", "noise": "Noise"}


def mask_operations(draft: Draft) -> None:
    """Buttons that change the mask as a whole; Undo takes each back."""
    INPAINT.start(pixels=max(1, min(draft.width, draft.height) // 32))

    def change(operation: Callable[..., Mask], *arguments: Any) -> None:
        draft.set_mask(operation(draft.whole_mask(), *arguments))

    def grow(sign: int) -> None:
        change(masks.grow, sign * INPAINT.get("pixels"))

    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.button("Undo", key=INPAINT.key("undo"), icon=":material/undo:", on_click=draft.undo,
                  disabled=not draft.done, help="The last change of the mask as a whole; strokes "
                  "have their own undo at the canvas")
        st.button("Redo", key=INPAINT.key("redo"), icon=":material/redo:", on_click=draft.redo,
                  disabled=not draft.undone)
        st.button("Invert", key=INPAINT.key("invert"), icon=":material/invert_colors:",
                  on_click=change, args=(masks.invert,),
                  help="Subject and background change places")
        st.button("Clear", key=INPAINT.key("clear"), icon=":material/delete:",
                  on_click=draft.set_mask, args=(masks.empty(draft.width, draft.height),))
        with st.popover("Grow, load, extend", icon=":material/more_horiz:"):
            st.number_input("Pixels", 1, 512, **INPAINT.kept("pixels"))
            with st.container(horizontal=True, gap="small"):
                st.button("Grow", key=INPAINT.key("grow"), icon=":material/zoom_out_map:",
                          on_click=grow, args=(1,))
                st.button("Shrink", key=INPAINT.key("shrink"), icon=":material/zoom_in_map:",
                          on_click=grow, args=(-1,))
                st.button("Mask everything", key=INPAINT.key("full"), on_click=draft.set_mask,
                          args=(masks.invert(masks.empty(draft.width, draft.height)),))
            _load_mask(draft)
            _extend(draft)


def _load_mask(draft: Draft) -> None:
    """A mask from a file, or from the picture's own transparency."""
    how = st.selectbox("A mask from elsewhere shall", list(HOW), format_func=HOW.get,
                       key=INPAINT.key("how"))

    def take(mask: Mask) -> None:
        draft.set_mask(masks.combine(draft.whole_mask(), mask, how))

    @last_net()
    def upload() -> None:
        file = INPAINT.get("mask.upload")
        if file is None:
            return
        try:
            picture = open_mask(file.getvalue(), f"mask {file.name}")
            mask = masks.as_mask(picture)
            wide, high = mask.shape[1] / draft.width, mask.shape[0] / draft.height
            if abs(wide - high) > 0.02 * max(wide, high):
                raise RequestError(f"mask {file.name}: received {masks.size_text(mask)}, accepted "
                                   f"the picture's aspect: {draft.width} x {draft.height} px")
            if mask.shape != (draft.height, draft.width):
                mask = masks.resized(mask, draft.width, draft.height)
            take(mask)
            INPAINT.set("told", "; ".join(input_notes({f"mask {file.name}": picture})))
        except PipelineError as error:
            INPAINT.set("problem", str(error))

    st.file_uploader("Mask file; white is repainted, black and transparent are kept",
                     ["png", "jpg", "jpeg", "webp"],
                     key=INPAINT.key("mask.upload"), on_change=upload)
    if draft.transparency is not None:
        st.button("From the picture's transparency", key=INPAINT.key("alpha"), on_click=take,
                  args=(draft.transparency,), icon=":material/opacity:")


def _extend(draft: Draft) -> None:
    """Outpainting: more room on any side, masked."""
    st.markdown("**Extend the picture**")
    unit = st.segmented_control("Unit", ["px", "%"], key=INPAINT.key("extend.unit"), default="px",
                                required=True, label_visibility="collapsed")
    sides = {}
    for place, name in zip(st.columns(4), ("left", "top", "right", "bottom"), strict=True):
        sides[name] = place.number_input(name.capitalize(), 0, 4096, 0,
                                         key=INPAINT.key(f"extend.{name}"))
    fill = st.selectbox("Filled at first with", list(FILL_NAMES), format_func=FILL_NAMES.get,
                        key=INPAINT.key("extend.fill"))

    @last_net()
    def extend() -> None:
        lengths = {"left": draft.width, "right": draft.width}
        pixels = {name: value if unit == "px"
                  else round(value / 100 * lengths.get(name, draft.height))
                  for name, value in sides.items()}
        try:
            extend_draft(draft, fill, **pixels)
        except PipelineError as error:
            INPAINT.set("problem", str(error))

    st.button("Extend", key=INPAINT.key("extend.go"), on_click=extend,
              icon=":material/open_in_full:", disabled=not any(sides.values()))


def extend_draft(draft: Draft, fill: masks.Fill, **sides: int) -> None:
    """Give the picture room at its sides (pixels); the room is masked, the old mask stays."""
    pictures = state.engine().pictures
    before = draft.whole_mask()
    image, mask = masks.extend(pictures.get(draft.image), fill=fill, **sides)
    top, left = sides.get("top", 0), sides.get("left", 0)
    mask[top : top + before.shape[0], left : left + before.shape[1]] = before
    draft.take(pictures.put(image), image.width, image.height, "extended", draft.parent_id)
    draft.set_mask(mask)
