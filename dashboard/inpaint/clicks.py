"""The tool Click: points and a box on the canvas select a part, a button makes it mask."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import state
from dashboard.components.drawing_canvas import drawing_canvas, last_drawing
from dashboard.components.fetch_model import fetch_model, model_details
from dashboard.components.text import facts, notice, words
from dashboard.inpaint.background import draft_background, hint
from dashboard.inpaint.draft import Draft
from dashboard.state import INPAINT
from pipelines.errors import HubError, PipelineError
from pipelines.hub.download import free_bytes
from pipelines.hub.plan import size_text
from pipelines.inpainting import masks
from pipelines.inpainting.clicks import CHECKPOINTS, SMALLEST, Clicks, local_segmenters
from pipelines.inpainting.masks import Mask

THIS, NOT_THIS, BOX = "rgba(46, 160, 67, 1)", "rgba(20, 20, 24, 1)", "rgba(250, 190, 30, 1)"
CLICKS = {"this": ("This", THIS), "not": ("Not this", NOT_THIS), "box": ("Box", BOX)}
BOX_FILL, POINT = "rgba(250, 190, 30, 0.08)", 5  # CSS pixels of a point's radius


def click_canvas(draft: Draft, size: tuple[int, int]) -> None:
    """The canvas for points and a box, what they select, and the buttons that make it mask."""
    kind, name = INPAINT.get("click"), f"clicks-{st.session_state[state.DRAFT]}"
    hint({"this": "Click on what you mean; each further click adds to it.",
          "not": "Click on what was found too much.",
          "box": "Drag a box around what you mean."}[kind])
    drawn = last_drawing(f"{name}-{draft.version}")
    if "version" in drawn:  # else the browser has only started
        draft.clicks = clicks_of(drawn, draft, size)
        if sum(item["type"] == "Rect" for item in drawn["objects"]) > 1:
            draft.restart()  # with the last box alone
    selected, problem, chosen = None, "", _chosen_segmenter()
    if draft.clicks.this or draft.clicks.box:
        try:
            selected = selection(draft.image, draft.clicks, chosen)
        except PipelineError as error:
            problem = str(error)
    drawing_canvas(
        draft_background(draft, size, selected), size, "rect" if kind == "box" else "point",
        key=f"{name}-{draft.version}", colour=CLICKS[kind][1],
        fill=BOX_FILL if kind == "box" else None, stroke_width=2, point=POINT,
        start=drawing_of(draft, size),
    )
    if problem:
        notice("error", problem)
    _segmenters()

    def use(how: masks.How, inverted: bool = False) -> None:
        other = masks.invert(selected) if inverted else selected
        draft.set_mask(masks.combine(draft.whole_mask(), other, how))
        forget()

    def forget() -> None:
        draft.click(Clicks())

    with st.container(horizontal=True, gap="small"):
        for name, label, arguments in (
            ("replace", "Mask it", ("replace",)), ("rest", "Mask all but it", ("replace", True)),
            ("add", "Add", ("add",)), ("subtract", "Take away", ("subtract",)),
        ):
            st.button(label, key=INPAINT.key(f"use.{name}"), on_click=use, args=arguments,
                      type="primary" if name == "replace" else "secondary",
                      disabled=selected is None)
        st.button("Start over", key=INPAINT.key("use.forget"), on_click=forget, type="tertiary")


def clicks_of(drawing: dict[str, Any], draft: Draft, size: tuple[int, int]) -> Clicks:
    """Points and box of a drawing, in pixels of the picture."""
    points: dict[str, list[tuple[int, int]]] = {THIS: [], NOT_THIS: []}
    box = None
    across, down = draft.width / size[0], draft.height / size[1]
    for item in drawing.get("objects", []):
        wide, high = (item[side] * item[f"scale{axis}"] + item["strokeWidth"]
                      for side, axis in (("width", "X"), ("height", "Y")))
        left = item["left"] - {"center": wide / 2, "right": wide}.get(item["originX"], 0)
        top = item["top"] - {"center": high / 2, "bottom": high}.get(item["originY"], 0)
        if item["type"] == "Rect":
            corners = (left * across, top * down, (left + wide) * across, (top + high) * down)
            limits = (draft.width, draft.height) * 2
            box = tuple(min(limit, max(0, round(corner)))
                        for corner, limit in zip(corners, limits, strict=True))
        elif item["stroke"] in points:
            x, y = int((left + wide / 2) * across), int((top + high / 2) * down)
            points[item["stroke"]].append((min(draft.width - 1, max(0, x)),
                                           min(draft.height - 1, max(0, y))))
    if box and (box[0] >= box[2] or box[1] >= box[3]):
        box = None
    return Clicks(tuple(points[THIS]), tuple(points[NOT_THIS]), box)


def drawing_of(draft: Draft, size: tuple[int, int]) -> dict[str, Any] | None:
    """The clicks that a canvas starts with, as its objects: the reverse of `clicks_of`."""
    across, down = size[0] / draft.width, size[1] / draft.height
    common = {"originX": "left", "originY": "top", "strokeWidth": 2, "scaleX": 1, "scaleY": 1}
    clicks, half = draft.clicks_start, POINT + 1
    objects = [
        {"type": "Circle", "radius": POINT, "width": 2 * POINT, "height": 2 * POINT, **common,
         "left": (x + 0.5) * across - half, "top": (y + 0.5) * down - half, "fill": colour,
         "stroke": colour}
        for points, colour in ((clicks.this, THIS), (clicks.not_this, NOT_THIS)) for x, y in points
    ]
    if clicks.box:
        left, top, right, bottom = clicks.box
        objects.append({"type": "Rect", "left": left * across, "top": top * down, **common,
                        "width": (right - left) * across - 2, "height": (bottom - top) * down - 2,
                        "fill": BOX_FILL, "stroke": BOX})
    return {"objects": objects} if objects else None


@st.cache_resource(max_entries=20, show_spinner="Looking at the picture …", show_time=True)
def selection(image: str, clicks: Clicks, model_id: str) -> Mask:
    """What the clicks mean on a stored picture."""
    return state.segmenter(model_id).segment(state.engine().pictures.get(image), clicks)


def _chosen_segmenter() -> str:
    """The id of the model that reads the clicks; one that was just fetched is chosen at once."""
    here = local_segmenters()
    new = [name for name in here if name not in INPAINT.get("segmenters", ())]
    if new or INPAINT.get("segmenter") not in here:
        INPAINT.set("segmenter", (new or here)[0])
    INPAINT.set("segmenters", here)
    return INPAINT.get("segmenter")


def _segmenters() -> None:
    """Which model reads the clicks, and how to get a better one."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.selectbox("Clicks are read by", INPAINT.get("segmenters"), width=390,
                     **INPAINT.kept("segmenter"),
                     format_func=lambda name: state.segmenter(name).name,
                     help="SAM and SAM 2 were trained to find things; a picture is looked at once, "
                          "then each click is quick. GrabCut parts colours and edges: good for "
                          "plain things on plain ground, and it needs no model.")
        with st.popover("Get SAM", icon=":material/download:", on_change="rerun",
                        key=INPAINT.key("segmenter.fetch")) as box:
            if box.open:
                _fetch_segmenter()


def _fetch_segmenter() -> None:
    """Fetch a checkpoint of SAM from the Hub, or say why that cannot be done now."""
    words("Segment Anything finds things from clicks; of its checkpoints the larger are more exact "
          "and slower.", "quiet")
    model_id = st.selectbox("Checkpoint", CHECKPOINTS, index=CHECKPOINTS.index(SMALLEST),
                            key=INPAINT.key("segmenter.checkpoint"), **state.KEEP)
    if model_id in INPAINT.get("segmenters"):
        notice("good", "It is on this machine.")
        return
    if problem := state.hub().problem():
        notice("note", f"It cannot be fetched now: {problem}. GrabCut goes on without it.")
        st.button("Try again", icon=":material/refresh:", key=INPAINT.key("segmenter.again"),
                  on_click=state.hub().problem, args=(True,))
        return
    try:
        details = model_details(model_id)
    except HubError as error:
        notice("error", str(error))
        return
    if details.plan is None:
        notice("error", f"{model_id}: {details.model.obstacle}")
        return
    facts([("Licence", details.model.licence or "not stated"),
           ("Free disk", size_text(free_bytes(state.hub().cache_dir)))])
    fetch_model(details)
