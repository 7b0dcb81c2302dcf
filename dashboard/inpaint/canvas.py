"""The canvas of the in-painting page and everything that changes its mask."""

from __future__ import annotations

import io
from typing import Any

import streamlit as st
from PIL import Image

from dashboard import state
from dashboard.components.drawing_canvas import room
from dashboard.components.text import facts, notice, words
from dashboard.hub.model import get_it, hub_details
from dashboard.inpaint.draft import Draft
from pipelines.errors import HubError, PipelineError, RequestError
from pipelines.hub.download import free_bytes
from pipelines.hub.plan import size_text
from pipelines.inpainting import masks
from pipelines.inpainting.clicks import CHECKPOINTS, SMALLEST, Clicks, local_segmenters
from pipelines.inpainting.masks import Mask
from pipelines.inpainting.pictures_in import open_mask

PAGE = state.INPAINT
TOOL, ACTION, BRUSH, PIXELS = (f"{PAGE}.{name}" for name in ("tool", "action", "brush", "pixels"))
CLICK, SEGMENTER = f"{PAGE}.click", f"{PAGE}.segmenter"
KNOWN, FETCH, FETCHED = f"{SEGMENTER}.known", f"{SEGMENTER}.fetch", f"{SEGMENTER}.checkpoint"
UPLOADED_MASK = f"{PAGE}.mask.upload"
TALLEST, FIRST_WIDTH = 560, 544  # CSS pixels of the canvas
TOOLS = {"freedraw": ("Brush", "brush"), "rect": ("Rectangle", "rectangle"),
         "circle": ("Circle", "circle"), "polygon": ("Polygon", "pentagon"),
         "click": ("Click", "ads_click")}  # fmt: skip
PAINT, ERASE = "rgba(255, 0, 150, 0.55)", "rgba(0, 60, 235, 0.55)"  # masks.from_strokes tells
THIS, NOT_THIS, BOX = "rgba(46, 160, 67, 1)", "rgba(20, 20, 24, 1)", "rgba(250, 190, 30, 1)"
CLICKS = {"this": ("This", THIS), "not": ("Not this", NOT_THIS), "box": ("Box", BOX)}
BOX_FILL, POINT = "rgba(250, 190, 30, 0.08)", 5  # CSS pixels of a point's radius
FOUND = (250, 190, 30)  # what the clicks found, before it is mask
HOW = {"add": "Add to the mask", "subtract": "Take away from it", "replace": "Replace it"}
FILL_NAMES = {"edge": "The edge drawn out", "surroundings": "Colours melting outwards",
              "reflect": "The picture mirrored", "grey": "Grey", "noise": "Noise"}  # fmt: skip


def mask_panel(draft: Draft) -> None:
    """Tools, canvas, and what can be done with the mask as a whole."""
    width = room(key=f"{PAGE}.room", otherwise=FIRST_WIDTH)
    size = display_size(draft, width)
    draft.fit(*size)
    tool = _tools()
    draft.show("clicks" if tool == "click" else "strokes")
    if tool == "click":
        _click_canvas(draft, size)
    else:
        _drawing_canvas(draft, size, tool)
    _operations(draft)


def display_size(draft: Draft, width: int) -> tuple[int, int]:
    """CSS pixels of the canvas: small pictures grow by whole numbers, large ones shrink."""
    scale = min(width / draft.width, TALLEST / draft.height)
    if scale >= 1:
        scale = int(scale)
    return max(1, round(draft.width * scale)), max(1, round(draft.height * scale))


def _tools() -> str:
    """The row of tools; the one that is chosen."""
    for key, value in ((TOOL, "freedraw"), (ACTION, "paint"), (BRUSH, 40), (CLICK, "this")):
        st.session_state.setdefault(key, value)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        tool = st.segmented_control(
            "Tool", list(TOOLS), key=TOOL, required=True, **state.KEEP,
            format_func=lambda name: f":material/{TOOLS[name][1]}: {TOOLS[name][0]}")
        if tool == "click":
            st.segmented_control("A click means", list(CLICKS), key=CLICK, required=True,
                                 format_func=lambda name: CLICKS[name][0])
        else:
            st.segmented_control(
                "Strokes", ["paint", "erase"], key=ACTION, required=True, **state.KEEP,
                format_func={"paint": ":material/edit: Add", "erase": ":material/ink_eraser: Erase"
                             }.get)
        if tool == "freedraw":
            st.slider("Brush width, px of the screen", 2, 160, key=BRUSH, width=190,
                      **state.KEEP)
    return tool


def _drawing_canvas(draft: Draft, size: tuple[int, int], tool: str) -> None:
    """Strokes over the mask: red masks, blue erases, the last one wins."""
    from streamlit_drawable_canvas import st_canvas

    erase = st.session_state[ACTION] == "erase"
    how = {"freedraw": "Draw over", "circle": "Drag across, from left to right,",
           "polygon": "Click the corners, the first one again at the end, of"}
    # The canvas tells of a polygon only when it is closed, so of an undo when it is asked to.
    after = " After an undo press the toolbar's arrow." if tool == "polygon" else ""
    _hint(f"{how.get(tool, 'Drag across')} what shall "
          + ("stay as it is; blue takes away." if erase else "be repainted.") + after)
    colour = ERASE if erase else PAINT
    result = st_canvas(
        fill_color=colour, stroke_color=colour,
        stroke_width=st.session_state[BRUSH] if tool == "freedraw" else 0,
        background_image=_background(draft, size), width=size[0], height=size[1],
        drawing_mode=tool, initial_drawing=draft.start, return_image_data=True,
        key=f"canvas-{st.session_state[state.DRAFT]}-{draft.version}",
    )  # fmt: skip
    draft.draw(result.json_data, result.image_bytes)


def _click_canvas(draft: Draft, size: tuple[int, int]) -> None:
    """Points and a box become a selection; a button makes it part of the mask."""
    from streamlit_drawable_canvas import st_canvas

    _hint({"this": "Click on what you mean; each further click adds to it.",
           "not": "Click on what was found too much.",
           "box": "Drag a box around what you mean."}[st.session_state[CLICK]])
    kind, name = st.session_state[CLICK], f"clicks-{st.session_state[state.DRAFT]}"
    drawn = _drawn(f"{name}-{draft.version}")
    if "version" in drawn:  # else the browser has only started
        draft.clicks = clicks_of(drawn, draft, size)
        if sum(item["type"] == "Rect" for item in drawn["objects"]) > 1:
            draft.restart()  # with the last box alone
    found, problem, chosen = None, "", _chosen_segmenter()
    if draft.clicks.this or draft.clicks.box:
        try:
            found = selection(draft.image, draft.clicks, chosen)
        except PipelineError as error:
            problem = str(error)
    colour = CLICKS[kind][1]
    st_canvas(
        fill_color=BOX_FILL if kind == "box" else colour, stroke_color=colour,
        stroke_width=2, point_display_radius=POINT, initial_drawing=drawing_of(draft, size),
        background_image=_background(draft, size, found), width=size[0], height=size[1],
        drawing_mode="rect" if kind == "box" else "point", key=f"{name}-{draft.version}",
    )  # fmt: skip
    if problem:
        notice("error", problem)
    _segmenters()

    def use(how: masks.How, inverted: bool = False) -> None:
        other = masks.invert(found) if inverted else found
        draft.set_mask(masks.combine(draft.whole_mask(), other, how))
        forget()

    def forget() -> None:
        draft.click(Clicks())

    with st.container(horizontal=True, gap="small"):
        for name, label, arguments in (
            ("replace", "Mask it", ("replace",)), ("rest", "Mask all but it", ("replace", True)),
            ("add", "Add", ("add",)), ("subtract", "Take away", ("subtract",)),
        ):  # fmt: skip
            st.button(label, key=f"{PAGE}.use.{name}", on_click=use, args=arguments,
                      disabled=found is None, type="primary" if name == "replace" else "secondary")
        st.button("Start over", key=f"{PAGE}.use.forget", on_click=forget, type="tertiary")


def _drawn(key: str) -> dict[str, Any]:
    """What the browser last sent of a canvas, before this run draws it."""
    value = st.session_state.get(key) or {}
    return (value.get("drawing") or {}).get("raw") or {}


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
    """The clicks that a canvas starts with as its objects, the reverse of `clicks_of`."""
    across, down = size[0] / draft.width, size[1] / draft.height
    common = {"originX": "left", "originY": "top", "strokeWidth": 2, "scaleX": 1, "scaleY": 1}
    clicks, half = draft.clicks_start, POINT + 1
    objects = [
        {"type": "Circle", "radius": POINT, "width": 2 * POINT, "height": 2 * POINT, **common,
         "left": (x + 0.5) * across - half, "top": (y + 0.5) * down - half, "fill": colour,
         "stroke": colour}
        for points, colour in ((clicks.this, THIS), (clicks.not_this, NOT_THIS)) for x, y in points
    ]  # fmt: skip
    if clicks.box:
        left, top, right, bottom = clicks.box
        objects.append({"type": "Rect", "left": left * across, "top": top * down, **common,
                        "width": (right - left) * across - 2, "height": (bottom - top) * down - 2,
                        "fill": BOX_FILL, "stroke": BOX})  # fmt: skip
    return {"objects": objects} if objects else None


@st.cache_data(max_entries=60, show_spinner="Looking at the picture …", show_time=True)
def selection(image: str, clicks: Clicks, model_id: str) -> Mask:
    """What the clicks mean on a stored picture."""
    return state.segmenter(model_id).segment(state.engine().pictures.get(image), clicks)


def _chosen_segmenter() -> str:
    """The one that reads the clicks; one that has come to this machine is taken at once."""
    here = local_segmenters()
    new = [name for name in here if name not in st.session_state.get(KNOWN, ())]
    if new or st.session_state.get(SEGMENTER) not in here:
        st.session_state[SEGMENTER] = (new or here)[0]
    st.session_state[KNOWN] = here
    return st.session_state[SEGMENTER]


def _segmenters() -> None:
    """Who reads the clicks, and how to get one that does it better."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.selectbox("Clicks are read by", st.session_state[KNOWN], key=SEGMENTER, width=390,
                     format_func=lambda name: state.segmenter(name).name, **state.KEEP,
                     help="SAM and SAM 2 were trained to find things; a picture is looked at once, "
                          "then each click is quick. GrabCut parts colours and edges: good for "
                          "plain things on plain ground, and it needs no model.")  # fmt: skip
        with st.popover("Get SAM", icon=":material/download:", key=FETCH, on_change="rerun") as box:
            if box.open:
                _fetch_segmenter()


def _fetch_segmenter() -> None:
    """One of the checkpoints from the Hub, or why that cannot be now."""
    words("Segment Anything finds things from clicks; of its checkpoints the larger are more exact "
          "and slower.", "quiet")  # fmt: skip
    model_id = st.selectbox("Checkpoint", CHECKPOINTS, index=CHECKPOINTS.index(SMALLEST),
                            key=FETCHED, **state.KEEP)
    if model_id in st.session_state[KNOWN]:
        notice("good", "It is on this machine.")
        return
    if problem := state.hub().problem():
        notice("note", f"It cannot be fetched now: {problem}. GrabCut goes on without it.")
        st.button("Try again", icon=":material/refresh:", key=f"{FETCH}.again",
                  on_click=state.hub().problem, args=(True,))
        return
    try:
        found = hub_details(model_id)
    except HubError as error:
        notice("error", str(error))
        return
    if found.plan is None:
        notice("error", f"{model_id}: {found.model.obstacle}")
        return
    facts([("Licence", found.model.licence or "not stated"),
           ("Free disk", size_text(free_bytes(state.hub().cache_dir)))])  # fmt: skip
    get_it(found)


def _hint(text: str) -> None:
    """One line above the canvas; the toolbar of the canvas opens at its right."""
    st.html(f"<div class='cs-hint'>{text}</div>")


def _background(draft: Draft, size: tuple[int, int], found: Mask | None = None) -> bytes:
    return background(draft.image, masks.as_image(draft.mask).tobytes(), draft.mask.shape, size,
                      None if found is None else found.tobytes())


@st.cache_data(max_entries=40, show_spinner=False)
def background(
    image: str, mask: bytes, shape: tuple[int, int], size: tuple[int, int], found: bytes | None
) -> bytes:
    """The picture at the canvas's size with the mask over it, as a PNG."""
    shown = state.engine().pictures.get(image).convert("RGB")
    how = Image.Resampling.NEAREST if size[0] >= shown.width else Image.Resampling.LANCZOS
    shown = shown.resize(size, how)
    for values, colour in ((mask, masks.TINT), (found, FOUND)):
        if values and any(values):
            layer = Image.frombytes("L", shape[::-1], values).resize(size, how)
            shown = masks.overlay(shown, masks.as_mask(layer), colour)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _operations(draft: Draft) -> None:
    """Buttons that change the mask as a whole, each with a way back."""
    st.session_state.setdefault(PIXELS, max(1, min(draft.width, draft.height) // 32))

    def change(operation, *arguments) -> None:  # noqa: ANN001
        draft.set_mask(operation(draft.whole_mask(), *arguments))

    def grow(sign: int) -> None:
        change(masks.grow, sign * st.session_state[PIXELS])

    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.button("Undo", key=f"{PAGE}.undo", icon=":material/undo:", on_click=draft.undo,
                  disabled=not draft.done, help="The last change of the mask as a whole; strokes "
                  "have their own undo at the canvas")  # fmt: skip
        st.button("Redo", key=f"{PAGE}.redo", icon=":material/redo:", on_click=draft.redo,
                  disabled=not draft.undone)
        st.button("Invert", key=f"{PAGE}.invert", icon=":material/invert_colors:",
                  on_click=change, args=(masks.invert,),
                  help="Subject and background change places")
        st.button("Clear", key=f"{PAGE}.clear", icon=":material/delete:",
                  on_click=draft.set_mask, args=(masks.empty(draft.width, draft.height),))
        with st.popover("Grow, load, extend", icon=":material/more_horiz:"):
            st.number_input("Pixels", 1, 512, key=PIXELS, **state.KEEP)
            with st.container(horizontal=True, gap="small"):
                st.button("Grow", key=f"{PAGE}.grow", icon=":material/zoom_out_map:", on_click=grow,
                          args=(1,))
                st.button("Shrink", key=f"{PAGE}.shrink", icon=":material/zoom_in_map:",
                          on_click=grow, args=(-1,))
                st.button("Mask everything", key=f"{PAGE}.full", on_click=draft.set_mask,
                          args=(masks.invert(masks.empty(draft.width, draft.height)),))
            _load_mask(draft)
            _extend(draft)


def _load_mask(draft: Draft) -> None:
    """A mask from a file, or from the picture's own transparency."""
    how = st.selectbox("A mask from elsewhere shall", list(HOW), format_func=HOW.get,
                       key=f"{PAGE}.how")

    def take(mask: Mask) -> None:
        draft.set_mask(masks.combine(draft.whole_mask(), mask, how))

    def upload() -> None:
        file = st.session_state[UPLOADED_MASK]
        if file is None:
            return
        try:
            mask = masks.as_mask(open_mask(file.getvalue(), f"mask {file.name}"))
            wide, high = mask.shape[1] / draft.width, mask.shape[0] / draft.height
            if abs(wide - high) > 0.02 * max(wide, high):
                raise RequestError(f"mask {file.name}: received {masks.size_text(mask)}, accepted "
                                   f"the picture's aspect: {draft.width} x {draft.height} px")
            if mask.shape != (draft.height, draft.width):
                mask = masks.resized(mask, draft.width, draft.height)
            take(mask)
        except PipelineError as error:
            st.session_state[f"{PAGE}.problem"] = str(error)

    st.file_uploader("Mask file; white is repainted", ["png", "jpg", "jpeg", "webp"],
                     key=UPLOADED_MASK, on_change=upload)
    if draft.transparency is not None:
        st.button("From the picture's transparency", key=f"{PAGE}.alpha", on_click=take,
                  args=(draft.transparency,), icon=":material/opacity:")


def _extend(draft: Draft) -> None:
    """Outpainting: more room on any side, masked."""
    st.markdown("**Extend the picture**")
    unit = st.segmented_control("Unit", ["px", "%"], key=f"{PAGE}.extend.unit", default="px",
                                required=True, label_visibility="collapsed")
    sides = {}
    for place, name in zip(st.columns(4), ("left", "top", "right", "bottom"), strict=True):
        sides[name] = place.number_input(name.capitalize(), 0, 4096, 0, key=f"{PAGE}.extend.{name}")
    fill = st.selectbox("Filled at first with", list(FILL_NAMES), format_func=FILL_NAMES.get,
                        key=f"{PAGE}.extend.fill")

    def extend() -> None:
        lengths = {"left": draft.width, "right": draft.width}
        pixels = {name: value if unit == "px"
                  else round(value / 100 * lengths.get(name, draft.height))
                  for name, value in sides.items()}
        try:
            extend_draft(draft, fill, **pixels)
        except PipelineError as error:
            st.session_state[f"{PAGE}.problem"] = str(error)

    st.button("Extend", key=f"{PAGE}.extend.go", on_click=extend, icon=":material/open_in_full:",
              disabled=not any(sides.values()))


def extend_draft(draft: Draft, fill: masks.Fill, **sides: int) -> None:
    """Give the picture room; the room is the mask, and what was masked stays so."""
    pictures = state.engine().pictures
    before = draft.whole_mask()
    image, mask = masks.extend(pictures.get(draft.image), fill=fill, **sides)
    top, left = sides.get("top", 0), sides.get("left", 0)
    mask[top : top + before.shape[0], left : left + before.shape[1]] = before
    draft.take(pictures.put(image), image.width, image.height, "extended", draft.parent_id)
    draft.set_mask(mask)
