"""What outlives a script run: the cached engine and queue, and what the session holds for a page.

`PageState` spells every session key of a page. The keys without a page are below: they belong to
the session as a whole, or are in the address too.
"""

from __future__ import annotations

import io
import json
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.runtime import get_instance
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.browser import browser, is_mine, remember_browser
from dashboard.inpaint.draft import Draft
from pipelines.axes import format_values, make_axis, parse_values
from pipelines.cluster import cluster_of
from pipelines.comparison import Comparison, Forecast
from pipelines.engine import Engine
from pipelines.errors import RequestError, StorageError
from pipelines.fields import MASK_OPTIONS, WIDGET_FIELDS
from pipelines.hub.client import Hub
from pipelines.hub.download import Downloads
from pipelines.hub.folders import offered_models
from pipelines.inpainting.clicks import Segmenter, find_segmenter
from pipelines.jobs import open_queue
from pipelines.models.opening import warm_libraries
from pipelines.notation import read_json, shown
from pipelines.postcards.vocabulary import EXAMPLE_PROMPTS
from pipelines.queue import Job, JobQueue
from pipelines.request import Lora, RunRequest, join_model_id
from pipelines.sheet.live import LiveComparison
from pipelines.study.design import Study, logged_study
from pipelines.study.findings import WatchedStudy
from pipelines.study.outlook import cost, outlook

if TYPE_CHECKING:
    from PIL.Image import Image

ACTIVE_SECONDS, IDLE_SECONDS = 0.5, 3.0  # between two polls of a page
FEW_SESSIONS, LATELY_SECONDS = 4, 60.0  # more than these poll less often, so that work gets on
KEEP = {"persist_state": "session"}  # a widget's value survives the visit of another page
KEPT = "kept"  # the keys of the widgets made with PageState.kept
OPENED_RUN = "opened_run"
SEEN_JOBS = "seen_jobs"
PAGE, PAGE_DRAWN = "page", "page_drawn"  # the page on show; whether it was drawn to its end once
NEW_VISIT = "new_visit"
RESUME_JOBS = "--resume-jobs"  # what the dashboard is started with
DRAFT = "draft"  # also the query parameter
DRAFTS_KEPT = 24
COMPARISON = "comparison"  # also the query parameter
TRUTHFUL = "truthful"  # whether files carry how their picture was made
STUDY_ID = "study"  # also the query parameter
VOTE = "vote"  # the query parameter that a voter's link has
RESULTS = "results"  # the vote that its owner looks at; also the query parameter

MASK_FIELDS = {"mask_image", *MASK_OPTIONS}


class PageState:
    """What the session holds for one page: keys that begin with the page's title, lower-cased.

    `title` is the one that app.py gives the page. A page with a request has a value for each of
    WIDGET_FIELDS; `carried` holds what a request brought along that has no widget.
    """

    def __init__(self, title: str) -> None:
        self.name = title.lower()

    def key(self, field: str) -> str:
        return f"{self.name}.{field}"

    def kept(self, field: str) -> dict[str, str]:
        """The arguments of a widget whose value survives the visit of another page. The widget has
        no default of its own: `start` gives it its first value."""
        st.session_state.setdefault(KEPT, set()).add(self.key(field))
        return {"key": self.key(field), **KEEP}

    def get(self, field: str, default: Any = None) -> Any:
        return st.session_state.get(self.key(field), default)

    def set(self, field: str, value: Any) -> None:
        st.session_state[self.key(field)] = value

    def pop(self, field: str) -> Any:
        return st.session_state.pop(self.key(field), None)

    def start(self, **values: Any) -> None:
        """First values, where there are none yet."""
        for field, value in values.items():
            st.session_state.setdefault(self.key(field), value)

    def start_request(self) -> None:
        """First values of a page with a request; the prompt is one that the model knows."""
        values = RunRequest(prompt=EXAMPLE_PROMPTS[0]).model_dump()
        self.start(**{name: widget_value(name, values[name]) for name in WIDGET_FIELDS})

    def put(self, request: RunRequest) -> None:
        """Fill the widgets with a request; fields that have none travel beside them."""
        values = request.model_dump()
        self.set("carried", {name: values[name] for name in request.not_default
                             if name not in WIDGET_FIELDS})
        for name in WIDGET_FIELDS:
            self.set(name, widget_value(name, values[name]))

    def request(self, **given: Any) -> RunRequest:
        """The request that the widgets describe, with what is given; raises RequestError."""
        values = {name: self.get(name) for name in WIDGET_FIELDS}
        carried = self.get("carried") or {}
        try:
            values["scheduler_options"] = read_json(values["scheduler_options"] or "{}")
        except ValueError as error:
            received = values["scheduler_options"]
            raise RequestError(
                f'scheduler_options: received {shown(received)}, accepted JSON such as '
                f'{{"use_karras_sigmas": true}} ({error})'
            ) from error
        values["model_id"] = values["model_id"] or ""
        values["loras"] = [line for line in (values["loras"] or "").splitlines() if line.strip()]
        if values["task"] in ("text-to-image", "unconditional"):
            values |= {"image": None, "strength": 1.0}
        if values["task"] == "unconditional":
            values |= {"prompt": "", "negative_prompt": ""}
        if values["task"] != "inpainting":
            carried = {name: value for name, value in carried.items() if name not in MASK_FIELDS}
        return RunRequest(**{**carried, **values, **given})

    def bring_back(self) -> None:
        """Tell the browser the kept values of the page's widgets.

        Streamlit does so itself, except when somebody changes pages faster than they are drawn.
        """
        for name in st.session_state.get(KEPT, ()):
            if name.startswith(f"{self.name}.") and name in st.session_state:
                st.session_state[name] = st.session_state[name]


def widget_value(name: str, value: Any) -> Any:
    """The seed is text, because a browser's numbers end at 2^53; options are JSON text."""
    if name == "seed":
        return str(value)
    if name == "scheduler_options":
        return json.dumps(value) if value else ""
    if name == "loras":
        return "\n".join(str(Lora(**lora)) for lora in value)
    return value


GENERATE, INPAINT, COMPARE, STUDY, VOTES, RUNS, HUB, LEARN = map(
    PageState, ("Generate", "In-paint", "Compare", "Study", "Votes", "Runs", "Hub", "Learn"))


@st.cache_resource(show_spinner=False)
def engine() -> Engine:
    return Engine(cluster=cluster_of())


@st.cache_resource(show_spinner=False, on_release=JobQueue.close)
def job_queue() -> JobQueue:
    """`streamlit run dashboard/app.py -- --resume-jobs` goes on with what was interrupted."""
    return open_queue(engine(), resume=RESUME_JOBS in sys.argv)


@st.cache_resource(show_spinner=False)
def hub() -> Hub:
    return Hub()


@st.cache_resource(show_spinner=False)
def downloads() -> Downloads:
    return Downloads()


@st.cache_resource(show_spinner=False)
def _warming() -> threading.Thread:
    """Imports torch and diffusers while the first page is being read."""
    thread = threading.Thread(target=warm_libraries, name="contact-sheet-warm", daemon=True)
    thread.start()
    return thread


def begin(title: str) -> None:
    """Once per script run: shared style, warm libraries, and the state of the jobs drawn now."""
    st.html(Path(__file__).parent / "style.css")
    remember_browser()
    _warming()
    st.session_state[SEEN_JOBS] = job_states()
    if st.session_state.get(PAGE) != title:
        st.session_state[PAGE], st.session_state[PAGE_DRAWN] = title, False
        st.session_state[NEW_VISIT] = True
    if not st.session_state[PAGE_DRAWN]:
        PageState(title).bring_back()


def new_visit() -> bool:
    """Whether the page is entered now: true once, also where that script run is cut short."""
    return st.session_state.pop(NEW_VISIT, False)


def end() -> None:
    """The page was drawn to its end."""
    st.session_state[PAGE_DRAWN] = True


def job_states() -> list[tuple[str, int, str]]:
    """What a page is drawn again for: this browser's jobs and those of the comparison on show, the
    downloads, and whether anything is busy. The queue's own panel draws the jobs of others."""
    jobs, shown = listed_jobs(), st.session_state.get(COMPARISON)
    mine = [job for job in jobs if is_mine(job) or (shown and job.comparison_id == shown)]
    return [("busy", int(any(job.busy for job in jobs)), ""),
            *((kind, task.id, task.status)
              for kind, tasks in (("job", mine), ("download", downloads().all()))
              for task in tasks)]


@st.cache_resource(show_spinner=False)
def _sessions() -> dict[str, float]:
    """The sessions, and when each was drawn last (time.monotonic())."""
    return {}


def _sessions_now() -> int:
    """How many sessions were drawn lately, this one among them."""
    context, sessions, now = get_script_run_ctx(), _sessions(), time.monotonic()
    if context:
        sessions[context.session_id] = now
    return sum(now - seen < LATELY_SECONDS for seen in list(sessions.values()))


def listed_jobs() -> list[Job]:
    """All jobs, the oldest first; none where the log cannot be read, which its pages say."""
    try:
        return job_queue().jobs()
    except StorageError:
        return []


def poll_seconds() -> float:
    running = any(download.status == "running" for download in downloads().all())
    busy = running or any(job.busy for job in listed_jobs())
    return (ACTIVE_SECONDS if busy else IDLE_SECONDS) * max(1.0, _sessions_now() / FEW_SESSIONS)


def rerun_on_change() -> None:
    """In a polling fragment: draw the whole page again, once, when a job's state has changed."""
    _sessions_now()
    if st.session_state.get(SEEN_JOBS) != job_states():
        st.rerun()


def generate_job() -> Job | None:
    """This session's pictures, or after a reload the newest ones of this browser."""
    jobs = job_queue()
    return jobs.get(GENERATE.get("job", -1)) or jobs.latest("generate", browser())


def inpaint_job() -> Job | None:
    return job_queue().get(INPAINT.get("job", -1))


@st.cache_resource(show_spinner=False)
def _drafts() -> dict[str, Draft]:
    """Drafts outlive a reload of the page, by the id in its address."""
    return {}


def draft() -> Draft | None:
    """The draft of the address, else the one that this session worked on last."""
    name = st.query_params.get(DRAFT) or st.session_state.get(DRAFT)
    draft = _drafts().get(name or "")
    if draft:
        st.session_state[DRAFT] = st.query_params[DRAFT] = name
    return draft


def put_draft(draft: Draft | None) -> None:
    """Work on another picture, or choose one."""
    drafts = _drafts()
    INPAINT.pop("job")
    st.session_state.pop(DRAFT, None)
    st.query_params.pop(DRAFT, None)
    if draft:
        name = secrets.token_hex(9)
        drafts[name] = draft
        st.session_state[DRAFT] = name
        for old in list(drafts)[:-DRAFTS_KEPT]:
            del drafts[old]


@st.cache_resource(show_spinner=False, max_entries=2)
def segmenter(model_id: str) -> Segmenter:
    return find_segmenter(model_id)


@st.cache_resource(show_spinner=False, max_entries=8)
def live_comparison(comparison_id: str) -> LiveComparison:
    """A comparison of the log, as all pages and polls look at it."""
    return LiveComparison(engine(), comparison_id)


def comparison_job(comparison_id: str) -> Job | None:
    """The job that works on a comparison now, else the one that made it."""
    jobs = [job for job in job_queue().jobs() if job.comparison_id == comparison_id]
    made = [job for job in jobs if job.kind == "compare"]
    return next((job for job in jobs if job.active), made[-1] if made else None)


@st.cache_resource(show_spinner=False, max_entries=2)
def watched_study(study_id: str) -> WatchedStudy:
    """A study of the log, as all pages and polls look at it. Raises RequestError."""
    return WatchedStudy(engine(), logged_study(engine().run_log, study_id))


def study_job(study_id: str) -> Job | None:
    """The job that works on a study now, else the newest that did."""
    jobs = [job for job in job_queue().jobs() if job.kind == "study"
            and job.row.settings.get("study_id") == study_id]
    return next((job for job in jobs if job.active), jobs[-1] if jobs else None)


def outlook_of(study: Study) -> tuple[Forecast, int, list[str]]:
    """What a study would cost, how many cells the log has (none before the libraries are loaded),
    and what it can show."""
    return *cost(engine(), study, not _warming().is_alive()), outlook(engine(), study)


def cells_in_log(comparison: Comparison) -> set[int]:
    """Numbers of the cells that the log has already; none before the libraries are loaded."""
    if _warming().is_alive():
        return set()
    return set(engine().in_log(comparison))


def offered() -> list[str]:
    """Ids of the models that can be used now: bundled, registered, in the Hub's cache."""
    return offered_models(engine().home, hub().cache_dir)


def compare_model(model_id: str, variant: str | None, revision: str | None) -> None:
    """Put a model on the model axis of Compare, beside those that are there. Raises RequestError
    where those cannot be read."""
    COMPARE.start_request()
    model_id = join_model_id(model_id, revision, variant)
    names = COMPARE.get("axes", ["scheduler", "guidance_scale"])
    if "model_id" in names:
        text = COMPARE.get("values.model_id", "")
        there = parse_values("model_id", text, RunRequest()).values if text.strip() else ()
    else:
        carried = COMPARE.get("carried", {})  # now the first value's
        there = [join_model_id(COMPARE.get("model_id") or "", carried.pop("revision", None),
                               carried.pop("variant", None))]
        COMPARE.set("axes", ["model_id", *[name for name in names if name != "scheduler"][:1]])
    models = make_axis("model_id", list(dict.fromkeys(filter(None, [*there, model_id]))))
    COMPARE.set("values.model_id", format_values(models, RunRequest()))
    open_comparison_setup()


def open_comparison_setup() -> None:
    """Let the comparison page open on its settings, not on a comparison made before."""
    st.session_state.pop(OPENED_RUN, None)
    st.session_state[COMPARISON] = None
    COMPARE.set("setup.next", True)


def put_inpainting(request: RunRequest) -> None:
    """Fill the in-painting page's widgets from one of its requests."""
    INPAINT.put(request)
    INPAINT.set("carried", {name: value for name, value in INPAINT.get("carried").items()
                            if name not in MASK_FIELDS})
    INPAINT.set("area", "whole" if request.padding_mask_crop is None else "masked")
    if request.padding_mask_crop is not None:
        INPAINT.set("padding", request.padding_mask_crop)
    INPAINT.set("feather", request.mask_feather)
    INPAINT.set("content", request.masked_content)
    INPAINT.set("differential", request.differential)


def picture_url(picture: Path | bytes, place: str) -> str:
    """An address for the browser; `place` names where on the page it is shown.

    It lives until the session's next full script run, or until another picture takes its place.
    """
    data: bytes | str = picture if isinstance(picture, bytes) else str(picture)
    kind = "png"
    if isinstance(data, bytes):
        kind = "jpeg" if data.startswith(b"\xff\xd8") else kind
    elif data.endswith(".webp"):
        kind = "webp"
    return get_instance().media_file_mgr.add(data, f"image/{kind}", place)


def stored_url(sha256: str | None, place: str) -> str | None:
    """The address of a picture of the store; None where it is missing or damaged."""
    pictures = engine().pictures
    return picture_url(pictures.path(sha256), place) if pictures.whole(sha256) else None


def thumbnail_url(sha256: str | None, place: str) -> str | None:
    """The address of a stored picture's small print; None where the picture is missing or
    damaged."""
    path = engine().thumbnails.get(sha256)
    return picture_url(path, place) if path else None


def preview_url(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return picture_url(buffer.getvalue(), "preview")
