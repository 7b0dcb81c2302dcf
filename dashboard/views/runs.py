"""Runs: the log as a table, one run's details, and its export."""

from __future__ import annotations

import datetime
from typing import Any

import streamlit as st

from dashboard import state
from dashboard.components.run_details import alt_text, scheduler_label
from dashboard.components.run_table import Column, run_table
from dashboard.components.text import duration, notice, words
from dashboard.run_exchange import exchanged, export_control, import_control
from dashboard.run_selection import bin_bar, marks, redraw_after_change, selected, selection_bar
from dashboard.runs import open_run, opened_run
from pipelines.doctor import CLOCK_SECONDS
from pipelines.errors import PipelineError
from pipelines.log_tables import Run
from pipelines.notation import number_text
from pipelines.run_filter import FEW, RunFilter
from pipelines.run_pages import FIRST, LAST, Page
from pipelines.run_query import DATES, EXAMPLE, FIELDS, FLAGS, NUMBERS, WORDS, QueryError, quoted

PAGE_SIZE = 25
PAGE = state.RUNS
NEWEST = ("datetime_utc", False)
HELP = ("Terms that must all hold. A word is looked for in both prompts, also inside words and in "
        "capitals; steps:10..20, psnr>30, date:2026-11, model:a,b; a minus in front turns a term "
        "round.")

COLUMNS = (
    Column("prompt", "Prompt", wide=True),
    Column("scheduler", "Scheduler"),
    Column("num_inference_steps", "Steps", numeric=True),
    Column("guidance_scale", "Guidance", numeric=True),
    Column("seed", "Seed", numeric=True),
    Column("total_ms", "Time", numeric=True),
    Column("nfe", "NFE", numeric=True),
    Column("status", "Status"),
    Column("model_id", "Model"),
    Column("datetime_utc", "When, UTC"),
)


ADDRESS = ("where", "text", "model", "scheduler", "status")  # what the address keeps, with the rest


def from_address() -> None:
    """Take filters and order from the page's address when the page is entered."""
    if not state.new_visit() or not st.query_params:
        return
    for name in ADDRESS:
        PAGE.set(name, st.query_params.get(name) or ("" if name in ("where", "text") else None))
    days = [_day(st.query_params.get(name)) for name in ("since", "until")]
    PAGE.set("days", tuple(days) if all(days) else ())
    column, _, direction = st.query_params.get("sort", "").partition("-")
    if column in [column.id for column in COLUMNS]:
        PAGE.set("sort", (column, direction == "up"))


def to_address(chosen: dict[str, Any]) -> None:
    """Keep filters and order in the page's address, so that it can be sent or bookmarked."""
    sort, ascending = PAGE.get("sort")
    values = {name: PAGE.get(name) for name in ADDRESS}
    values |= {"since": chosen["since"], "until": chosen["until"]}
    if (sort, ascending) != NEWEST:
        values["sort"] = f"{sort}-{'up' if ascending else 'down'}"
    kept = {name: value for name, value in values.items() if value}
    if st.query_params.to_dict() != kept:
        st.query_params.from_dict(kept)


def _day(text: str | None) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text or "")
    except ValueError:
        return None


def first_page() -> None:
    PAGE.set("place", FIRST)


def filters() -> dict[str, Any]:
    """What to look for, as the run log's own filters; any change goes back to page 1."""
    log = state.engine().run_log
    common = {"on_change": first_page}
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        where = st.text_input("Query", placeholder=EXAMPLE, width=420, **PAGE.kept("where"),
                              **common, help=HELP)
        with st.popover("Add a filter", icon=":material/filter_alt:"):
            add_filter()
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        text = st.text_input("Prompt contains", type="search", width=260,
                             placeholder="red car", **PAGE.kept("text"), **common)
        model_id = st.selectbox("Model", log.distinct("model_id"), index=None, width=150,
                                placeholder="All", **PAGE.kept("model"), **common)
        scheduler = st.selectbox("Scheduler", log.distinct("scheduler"), index=None, width=170,
                                 placeholder="All", format_func=scheduler_label,
                                 **PAGE.kept("scheduler"), **common)
        status = st.selectbox("Status", ["ok", "failed", "cancelled"], index=None, width=130,
                              placeholder="All", **PAGE.kept("status"), **common)
        days = st.date_input("Date, UTC", value=(), width=230, key=PAGE.key("days"),
                             **state.KEEP, **common)
    days = days if isinstance(days, tuple) else (days,)
    return {
        "where": where or "",
        "text": text or "",
        "model_id": model_id,
        "scheduler": scheduler,
        "status": status,
        "since": _iso(days[0]) if days else None,
        "until": _iso(days[-1]) if days else None,
    }


def add_filter() -> None:
    """Any field and measure with a range or a value, put behind the query."""
    field = st.selectbox("Field", FIELDS, key=PAGE.key("filter.field"))
    if field in NUMBERS:
        low = st.text_input("From", key=PAGE.key("filter.low"), placeholder="any")
        high = st.text_input("To", key=PAGE.key("filter.high"), placeholder="any")
        value = f"{low.strip()}..{high.strip()}" if low.strip() or high.strip() else ""
    elif field == "is":
        value = st.selectbox("Which", list(FLAGS), key=PAGE.key("filter.flag"))
    else:
        text = st.text_input("Value", key=PAGE.key("filter.value"), placeholder=(
            "2026-01..2026-03" if field in DATES else "any part" if field in WORDS else "ddim"))
        value = text if field in DATES else quoted(text) if text else ""

    def add() -> None:
        before = (PAGE.get("where") or "").strip()
        PAGE.set("where", f"{before} {field}:{value}".strip())
        first_page()

    st.button("Add", key=PAGE.key("filter.add"), disabled=not value, on_click=add)


def _iso(day: datetime.date) -> str:
    return day.isoformat()


def table(page: Page) -> None:
    sort, ascending = PAGE.get("sort")
    ids = [run.id for run in page.runs]
    tags = marks().tags(ids)
    opened, heading, chosen = run_table(
        COLUMNS, [line(run, tags.get(run.id, [])) for run in page.runs], sort=sort,
        ascending=ascending, selected=selected(), key="run-table")
    if page.before or page.after:
        with st.container(horizontal=True, gap="small", horizontal_alignment="center"):
            for name, icon, place, there in (
                ("First", "first_page", FIRST, page.before),
                ("Previous", "chevron_left", page.before, page.before),
                ("Next", "chevron_right", page.after, page.after),
                ("Last", "last_page", LAST, page.after),
            ):
                st.button(name, icon=f":material/{icon}:", key=PAGE.key(name.lower()),
                          disabled=there is None, type="tertiary",
                          on_click=lambda place=place: PAGE.set("place", place))
    if heading:
        PAGE.set("sort", (heading, not ascending if heading == sort else True))
        first_page()
        st.rerun()
    if chosen is not None:
        PAGE.set("selected", chosen)
        st.rerun()
    if opened:
        open_run(opened)


def line(run: Run, tags: list[str]) -> dict[str, Any]:
    """One run as the texts of the table."""

    def text(name: str) -> str:
        value = run.asked(name)
        return "" if value is None else number_text(value)

    return {
        "id": run.id,
        "url": state.thumbnail_url(run.image_sha256, f"thumbnail-{run.id}"),
        "large": max(run.width or 0, run.height or 0) > 64,
        "alt": alt_text(run),
        "prompt": run.prompt or "(no prompt)",
        "scheduler": scheduler_label(run.scheduler),
        "num_inference_steps": text("num_inference_steps"),
        "guidance_scale": text("guidance_scale"),
        "seed": str(run.seed),
        "total_ms": duration(run.total_ms / 1000) if run.total_ms is not None else "",
        "nfe": str(run.nfe or ""),
        "status": run.status,
        "model_id": run.model_id,
        "datetime_utc": run.datetime_utc[:19].replace("T", " "),
        "starred": run.starred,
        "tags": tags,
    }


def _count(count: int, chosen: dict[str, Any]) -> str:
    """'**12** runs'; of many that are filtered, only that they are many."""
    more = count > FEW and bool(RunFilter(**chosen).conditions)
    count = FEW if more else count
    return f"{'more than ' * more}**{count:,}** run{'s' * (count != 1)}"


def show() -> None:
    log = state.engine().run_log
    if not log.count() and not marks().deleted():
        words("The log is empty. Every picture you make on Generate or Compare is written here, "
              "failures too.", "quiet")
        st.page_link("views/generate.py", label="Make a first picture",
                     icon=":material/photo_camera:")
        import_control()
        exchanged()
        return
    if (behind := log.clock_behind_seconds()) > CLOCK_SECONDS:
        notice("note", f"This computer's clock is {duration(behind)} behind the newest run of the "
                       "log. Nothing is lost by that, but new runs are listed among older ones "
                       "until it is right.")
    PAGE.start(sort=NEWEST)
    from_address()
    chosen = filters()
    to_address(chosen)
    sort, ascending = PAGE.get("sort")
    try:
        page = log.page(**chosen, sort=sort, ascending=ascending, size=PAGE_SIZE,
                        place=PAGE.get("place", FIRST), counted=False)
    except QueryError as error:
        words(error.reason)
        st.code(error.marked, language=None)
        return
    if not page.runs and PAGE.get("place", FIRST) != FIRST:  # what was on this page has gone
        first_page()
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        count = st.empty()
        known = log.known_count(**chosen) if page.runs else 0
        count.caption("Counting …" if known is None else _count(known, chosen))
        if page.runs:
            export_control(chosen)
        import_control()
    exchanged()
    bin_bar("is:deleted" in chosen["where"])
    selection_bar()
    if page.runs:
        table(page)
    else:
        words("No run fits these filters.", "quiet")
    redraw_after_change()
    if known is None:  # below the list, which need not wait for it
        count.caption(_count(log.count(**chosen), chosen))
    opened_run()


st.title("Runs")
try:
    show()
except PipelineError as error:
    notice("error", str(error))
