"""In-paint: a picture, a mask, and what a model paints into it; the rest stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from PIL import Image

from dashboard import state
from dashboard.components.before_after import Try, before_after
from dashboard.components.masked import enlarged, masked_picture
from dashboard.components.picture import Picture, picture_viewer
from dashboard.components.queue import cancel_button, progress_text
from dashboard.components.run_details import (
    alt_text,
    kept_notice,
    run_measurements,
    run_record,
)
from dashboard.components.text import duration, notice, words
from dashboard.form.fields import (
    advanced_controls,
    example_prompts,
    number_controls,
    prompt_control,
    scheduler_control,
    size_controls,
    unknown_words_note,
)
from dashboard.form.model import model_control
from dashboard.inpaint import canvas
from dashboard.inpaint.draft import Draft
from dashboard.inpaint.examples import EXAMPLES, Example, local_inpainter
from pipelines.axes import label
from pipelines.comparison import forecast
from pipelines.errors import PipelineError, RequestError
from pipelines.inpainting import masks
from pipelines.inpainting.canvas import painted_box, soft_mask, working_size
from pipelines.inpainting.masks import Mask
from pipelines.inpainting.pictures_in import alpha_mask, flat, open_picture
from pipelines.inpainting.samples import SAMPLES, paint_sample
from pipelines.jobs import Job, submit_generation
from pipelines.request import RunRequest
from pipelines.run_log import Run

PAGE = state.INPAINT
COUNT, STRENGTH, AREA, PADDING, FEATHER, CONTENT, DIFFERENTIAL = (
    f"{PAGE}.{name}" for name in ("count", "strength", "area", "padding", "feather", "content",
                                  "differential"))
PROBLEM, SIDE = f"{PAGE}.problem", f"{PAGE}.side"
SIDE_NEXT = f"{PAGE}.side.next"  # what SIDE becomes, once its widget may be set again
UPLOAD, CAMERA = f"{PAGE}.upload", f"{PAGE}.camera"
WIDGETS = (COUNT, AREA, PADDING, FEATHER, CONTENT, DIFFERENTIAL,
           *(state.key(PAGE, name) for name in state.FIELDS))  # fmt: skip
TYPES = ["png", "jpg", "jpeg", "webp"]


# Choosing a picture


def begin(image: Image.Image, name: str, mask: Mask | None = None) -> Draft:
    """Start on a picture: stored, its transparency kept as a mask to be had, sizes set to fit."""
    transparent = alpha_mask(image)
    image = flat(image)
    sha = state.engine().pictures.put(image)
    draft = Draft(sha, *image.size, [(sha, name, None)], mask=mask,
                  transparency=None if transparent is None else masks.as_mask(transparent))
    state.put_draft(draft)
    short = min(image.size)
    st.session_state[FEATHER] = max(1, short // 48)
    st.session_state[PADDING] = max(8, short // 8)
    st.session_state[canvas.PIXELS] = max(1, short // 32)
    st.session_state[SIDE] = "mask"
    return draft


def take_file(key: str, name: str) -> None:
    file = st.session_state.get(key)
    if file is None:
        return
    try:
        begin(open_picture(file.getvalue(), f"picture {file.name}"), name)
    except PipelineError as error:
        st.session_state[PROBLEM] = str(error)


def take_sample(name: str) -> None:
    begin(paint_sample(name)[0], name)


def take_run(run_id: int) -> None:
    run = state.engine().run_log.run(run_id)
    if run and run.image_sha256:
        image = state.engine().pictures.get(run.image_sha256)
        begin(image, f"run {run_id}").trail[0] = (run.image_sha256, f"run {run_id}", run_id)


def take_example(example: Example) -> None:
    """Picture, mask, prompt and settings of an example, and its run at once."""
    try:
        image, subject = paint_sample(example.sample)
        draft = begin(image, example.sample)
        draft.mask = example.mask(subject)
        if example.sides:
            canvas.extend_draft(draft, "surroundings", **example.sides)
        state.put_inpainting(example.request(local_inpainter() if example.large else None))
        start(draft, requests_for(draft, draft.whole_mask()))
    except PipelineError as error:
        st.session_state[PROBLEM] = str(error)


def choose_picture() -> None:
    """The first thing on the page: examples, samples, the log, a file, the camera."""
    words("Choose a picture; then mask what shall be painted anew. Every pixel outside the mask "
          "stays as it is, and each run counts them.", "quiet")  # fmt: skip
    st.markdown("#### In one click")
    inpainter = local_inpainter()
    examples = [one for one in EXAMPLES if inpainter or not one.large]
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        for number, example in enumerate(examples):
            with st.container(width=214, gap="xsmall", key=f"{PAGE}-example-{number}"):
                st.image(masks.overlay(*enlarged(*example.start())), width=192)
                st.button(example.title, key=f"{PAGE}.example.{number}", on_click=take_example,
                          args=(example,), width=192)
                words(example.text, "quiet")
    st.markdown("#### Your picture")
    left, right = st.columns(2, gap="large")
    with left:
        st.file_uploader("Upload PNG, JPEG or WebP", TYPES, key=UPLOAD, on_change=take_file,
                         args=(UPLOAD, "upload"))
        with st.popover("Camera", icon=":material/photo_camera:"):
            st.camera_input("Take a picture", key=CAMERA, on_change=take_file,
                            args=(CAMERA, "camera"))
    with right:
        runs = {run.id: run for run in state.engine().run_log.runs(status="ok", limit=200)}
        st.selectbox("A picture of the log", list(runs), index=None, key=f"{PAGE}.run",
                     disabled=not runs,
                     placeholder="Choose a run" if runs else "No run yet",
                     format_func=lambda n: f"{n} · {runs[n].prompt[:60] or '(no prompt)'}",
                     on_change=lambda: st.session_state[f"{PAGE}.run"]
                     and take_run(st.session_state[f"{PAGE}.run"]))  # fmt: skip
    st.markdown("#### Samples, painted by this program")
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        for sample in SAMPLES:
            with st.container(width=168, gap="xsmall"):
                st.image(enlarged(paint_sample(sample.name)[0])[0], width=128)
                st.button(sample.title, key=f"{PAGE}.sample.{sample.name}", on_click=take_sample,
                          args=(sample.name,), type="tertiary")


# The request


def settings(draft: Draft) -> None:
    """The right column: prompt, start, what the model sees, and how it paints."""
    prompt_control(PAGE)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        go = st.button("Repaint", type="primary", icon=":material/brush:", key=f"{PAGE}.go",
                       shortcut="Ctrl+Enter")
        example_prompts(PAGE)
        compare = st.button("Compare on this mask", key=f"{PAGE}.compare",
                            icon=":material/grid_on:")
    below = st.container(gap="small")
    st.slider("strength", 0.05, 1.0, key=STRENGTH, step=0.05, **state.KEEP,
              help="The share of the steps that run: 1 begins from noise, less keeps more of what "
                   "was there.")  # fmt: skip
    area(draft)
    scheduler_control(PAGE)
    number_controls(PAGE)
    st.number_input("Number of pictures", 1, 16, step=1, key=COUNT, **state.KEEP,
                    help="Further pictures take the next seeds.")
    with st.expander("Model, working size and more"):
        model_control(PAGE)
        st.toggle("Soft mask (differential)", key=DIFFERENTIAL, **state.KEEP,
                  help="Greys of the mask are repainted by degrees: the darker, the fewer steps "
                       "(differential diffusion). Otherwise grey counts as white from half.")
        size_controls(PAGE)
        advanced_controls(PAGE)
    with below:
        try:
            mask = draft.whole_mask()
            if not (mask.any() or go or compare):
                words("Mask something, then it can be repainted.", "quiet")
                return
            requests = requests_for(draft, mask)
            tell(draft, requests, mask)
            if go:
                start(draft, requests)
                st.rerun()
            if compare:
                state.put_request(state.COMPARE, stored(draft, requests[0], mask))
                state.start_comparison_setup()
                st.switch_page("views/compare.py")
        except PipelineError as error:
            notice("error", str(error))


def area(draft: Draft) -> None:
    """What the model sees, and how its work is blended in."""
    left, right = st.columns(2)
    with left:
        chosen = st.segmented_control(
            "What the model sees", ["whole", "masked"], key=AREA, required=True, **state.KEEP,
            format_func={"whole": "Whole picture", "masked": "Masked part"}.get,
            help="The masked part is enlarged to the model's size: more detail, less context.")
        st.number_input("Feather, px", 0, 512, key=FEATHER, **state.KEEP,
                        help="A soft rim around the mask. What is masked is repainted in full.")
    with right:
        st.number_input("Padding, px", 0, 4096, key=PADDING, disabled=chosen == "whole",
                        **state.KEEP, help="Surroundings that the model sees with the masked "
                        "part.")  # fmt: skip
        st.selectbox("Under the mask, start from", ["original", "fill"], key=CONTENT,
                     format_func={"original": "the picture", "fill": "its surroundings"}.get,
                     **state.KEEP, help="The surroundings, grown over the mask, help to remove "
                     "things; with strength 1 both begin from noise.")  # fmt: skip


def requests_for(draft: Draft, mask: Mask) -> list[RunRequest]:
    """The requests that the widgets describe, one per seed; raises RequestError.

    The mask is stored when one of them runs, so that trying things leaves no files.
    """
    masked = st.session_state[AREA] == "masked"
    request = state.request_of(
        PAGE, image=draft.image, mask_image="mask", strength=round(st.session_state[STRENGTH], 2),
        padding_mask_crop=st.session_state[PADDING] if masked else None,
        mask_feather=st.session_state[FEATHER], masked_content=st.session_state[CONTENT],
        differential=st.session_state[DIFFERENTIAL],
    )  # fmt: skip
    count = st.session_state[COUNT]
    soft_mask(request, mask)
    return [request.changed(seed=request.seed + number) for number in range(count)]


def stored(draft: Draft, request: RunRequest, mask: Mask) -> RunRequest:
    return request.changed(mask_image=state.engine().pictures.put(masks.as_image(mask)))


def start(draft: Draft, requests: Sequence[RunRequest]) -> None:
    """Queue them on the mask as it is now."""
    mask = draft.whole_mask()
    job = submit_generation(
        state.job_queue(), state.engine(), [stored(draft, one, mask) for one in requests],
        kind="inpaint", parent_id=draft.parent_id,
    )  # fmt: skip
    st.session_state[state.INPAINT_JOB] = job.id
    st.session_state[SIDE_NEXT] = "result"


def tell(draft: Draft, requests: Sequence[RunRequest], mask: Mask) -> None:
    """What will happen: steps, working size, cost; and what is odd about the mask."""
    request = requests[0]
    engine = state.engine()
    info = engine.registry.describe(request.model_id, request.revision, request.variant)
    if "inpainting" not in info.tasks:
        raise RequestError(f"{info.model_id} ({info.pipeline_class}) does no in-painting; it does "
                           f"{', '.join(info.tasks)}")  # fmt: skip
    alpha = soft_mask(request, mask)
    left, top, right, bottom = painted_box(request, alpha)
    size = working_size(request, info, right - left, bottom - top)
    expected = forecast(requests, engine.run_log, engine.registry)
    time = (f"about {duration(expected.seconds)}" if expected.seconds is not None
            else "time not known yet on this machine")
    scale = (f", enlarged {size.scale:.3g} times" if size.scale > 1.02 else
             f", reduced to {size.scale:.0%}" if size.scale < 0.98 else "")
    steps = f"{info.steps_to_run(request)} of {request.num_inference_steps} steps run"
    st.caption(f"**{steps}** · the model sees {right - left} × {bottom - top} px{scale} · "
               f"{len(requests)} picture{'s' * (len(requests) > 1)} · {time}")
    if (alpha > 0).all():
        notice("note", "The mask covers the whole picture: nothing of it would be kept.")
    unknown_words_note(request.model_id, request.prompt, request.negative_prompt)


# The stage


def overview(draft: Draft) -> None:
    """What will be repainted, or how to begin."""
    mask = draft.whole_mask()
    if not mask.any():
        notice("note", "Nothing is masked yet: draw over what shall be repainted, or click on it.")
        return
    picture = state.engine().pictures.get(draft.image).convert("RGB")
    masked_picture(picture, mask, st.session_state[FEATHER], st.session_state[DIFFERENTIAL])


def progress(job: Job, draft: Draft) -> None:
    """The picture as it comes."""
    state.rerun_on_change()
    preview = job.preview
    width, height = preview.size if preview else (draft.width, draft.height)
    url = state.preview_url(preview) if preview else state.picture_url(
        state.engine().pictures.path(draft.image), "waiting")
    picture_viewer([Picture(url, width, height, "The picture as it comes", waiting=True)],
                   key=f"in-paint-preview-{job.id}", share_of_height=0.6)
    if job.status == "queued":
        ahead = state.waiting_before(job)
        st.progress(0.0, text=f"Waiting for {ahead} other job{'s' * (ahead != 1)}")
    else:
        st.progress(job.fraction, text=progress_text(job).removeprefix("In-paint · ")
                    + f" · evaluation {job.done} of {job.total}")  # fmt: skip
    cancel_button(job, "page")


def results(draft: Draft) -> None:
    """The newest try under the slider, the earlier ones below it."""
    engine = state.engine()
    runs = [run for run in engine.run_log.tries(draft.image)
            if engine.picture_path(run) and engine.picture_path(run).exists()]
    if not runs:
        words("No try on this picture yet. Mask something and press Repaint (Ctrl+Enter).", "quiet")
        return
    tries = [Try(state.picture_url(engine.picture_path(run), f"try-{run.id}"), alt_text(run),
                 f"run {run.id}") for run in runs]
    before = state.picture_url(engine.pictures.path(draft.image), "before")
    index = before_after(before, tries, draft.width, draft.height,
                         key=f"tries-{draft.image[:12]}-{runs[0].id}")
    show_try(draft, runs[index])


def show_try(draft: Draft, run: Run) -> None:
    """What one try kept, what it cost, and where it can go."""
    engine = state.engine()
    kept_notice(run)
    request = RunRequest(**run.request)
    words(run.prompt or "(no prompt)")
    steps = engine.registry.steps_to_run(request)
    words(f"{steps} of {run.num_inference_steps} steps ran, {run.nfe} function evaluations · "
          f"strength {request.strength:g} · {label('scheduler', run.scheduler)} · guidance "
          f"{run.guidance_scale:g} · seed {run.seed} · {run.model_id}", "quiet")  # fmt: skip

    def go_on() -> None:
        draft.take(run.image_sha256, run.width, run.height, f"run {run.id}", run.id)
        st.session_state[SIDE] = "mask"

    def again() -> None:
        draft.set_mask(masks.as_mask(state.engine().pictures.get(request.mask_image)))
        state.put_inpainting(request)
        st.session_state[SIDE] = "mask"

    with st.container(horizontal=True, gap="small"):
        st.button("Go on with this picture", key=f"{PAGE}.on.{run.id}", on_click=go_on,
                  icon=":material/arrow_forward:")
        st.button("Its mask and settings", key=f"{PAGE}.again.{run.id}", on_click=again,
                  icon=":material/history:")
        st.download_button("Download", state.engine().picture_path(run).read_bytes(),
                           f"contact-sheet-{run.id}.png", "image/png", on_click="ignore",
                           icon=":material/download:", key=f"{PAGE}.download.{run.id}")
    with st.expander("Everything about this run", on_change="rerun", key=f"{PAGE}.all") as more:
        if more.open:
            run_measurements(run)
            run_record(run)


def trail(draft: Draft) -> None:
    """The pictures that led here; each can be worked on again."""
    names = {sha: name for sha, name, _ in draft.trail}
    if len(names) < 2:
        return

    def back() -> None:
        sha = st.session_state[f"{PAGE}.trail"]
        image = state.engine().pictures.get(sha)
        draft.take(sha, *image.size, names[sha], None)

    st.session_state[f"{PAGE}.trail"] = draft.image
    st.segmented_control("Pictures on the way", list(names), key=f"{PAGE}.trail", required=True,
                         format_func=lambda sha: names[sha], on_change=back)


def stage(draft: Draft) -> None:
    """The left column: the mask, or what came of it."""
    job = state.inpaint_job()
    if side := st.session_state.pop(SIDE_NEXT, None):
        st.session_state[SIDE] = side
    st.session_state.setdefault(SIDE, "mask")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        side = st.segmented_control(
            "Show", ["mask", "result"], key=SIDE, required=True, label_visibility="collapsed",
            format_func={"mask": ":material/brush: Mask", "result": ":material/compare: Result"
                         }.get)
        st.button("Another picture", key=f"{PAGE}.other", icon=":material/image:", type="tertiary",
                  on_click=state.put_draft, args=(None,))
    trail(draft)
    if side == "mask":
        canvas.mask_panel(draft)
        overview(draft)
        return
    draft.show("")
    if job and job.active:
        st.fragment(progress, run_every=state.poll_seconds())(job, draft)
        return
    if job and job.status == "cancelled":
        notice("note", "Cancelled; what was finished is kept.")
    failed = [run for run in (job.result or [] if job else []) if run.status == "failed"]
    if failed or (job and job.status == "failed"):
        notice("error", failed[0].error if failed else job.error or "The job failed.")
    results(draft)


def page() -> None:
    draft = state.draft()
    with st.empty():  # its place stays, or the uploader below is made anew and loses a file
        if problem := st.session_state.pop(PROBLEM, None):
            notice("error", problem)
    if draft is None:
        choose_picture()
        return
    if not st.session_state[state.PAGE_DRAWN]:
        draft.restart()
        st.session_state.update(draft.settings)
    left, right = st.columns([7, 5], gap="large")
    with left:
        stage(draft)
    with right:
        settings(draft)
    draft.settings = {name: st.session_state[name] for name in WIDGETS if name in st.session_state}


def inpaint_page() -> None:
    state.prepare(PAGE)
    st.session_state[state.key(PAGE, "task")] = "inpainting"
    for name, value in ((COUNT, 1), (AREA, "whole"), (PADDING, 16), (FEATHER, 1),
                        (CONTENT, "original"), (DIFFERENTIAL, False)):  # fmt: skip
        st.session_state.setdefault(name, value)
    st.title("In-paint")
    try:
        page()
    except PipelineError as error:
        notice("error", str(error))
