"""Runs: the log as a table, one run's details, and its export."""

from __future__ import annotations

import datetime
from typing import Any

import streamlit as st

from dashboard import state
from dashboard.components.run_details import alt_text, scheduler_label
from dashboard.components.run_table import Column, run_table
from dashboard.components.text import duration, notice, words
from dashboard.runs import open_run, opened_run
from pipelines.errors import PipelineError
from pipelines.log_tables import Run
from pipelines.notation import number_text
from pipelines.sheet.cells import runs_csv, spreadsheet

PAGE_SIZE = 25
PAGE = state.RUNS

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


def filters() -> dict[str, Any]:
    """What to look for, as the run log's own filters; any change goes back to page 1."""
    log = state.engine().run_log

    def first_page() -> None:
        PAGE.set("page", 1)

    common = {"on_change": first_page}
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
        "text": text or "",
        "model_id": model_id,
        "scheduler": scheduler,
        "status": status,
        "since": _iso(days[0]) if days else None,
        "until": _iso(days[-1]) if days else None,
    }


def _iso(day: datetime.date) -> str:
    return day.isoformat()


def table(chosen: dict[str, Any], count: int) -> None:
    PAGE.start(sort=("datetime_utc", False))
    sort, ascending = PAGE.get("sort")
    pages = max(1, -(-count // PAGE_SIZE))
    page = min(PAGE.get("page", 1), pages)
    runs = state.engine().run_log.runs(
        **chosen, sort=sort, ascending=ascending, limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE
    )
    opened, heading = run_table(COLUMNS, [line(run) for run in runs], sort=sort,
                                ascending=ascending, key="run-table")
    if pages > 1:
        st.pagination(pages, key=PAGE.key("page"))
    if heading:
        PAGE.set("sort", (heading, not ascending if heading == sort else True))
        st.rerun()
    if opened:
        open_run(opened)


def line(run: Run) -> dict[str, Any]:
    """One run as the texts of the table."""
    return {
        "id": run.id,
        "url": state.stored_url(run.image_sha256, f"thumbnail-{run.id}"),
        "large": max(run.width or 0, run.height or 0) > 64,
        "alt": alt_text(run),
        "prompt": run.prompt or "(no prompt)",
        "scheduler": scheduler_label(run.scheduler),
        "num_inference_steps": str(run.num_inference_steps),
        "guidance_scale": number_text(run.guidance_scale),
        "seed": str(run.seed),
        "total_ms": duration(run.total_ms / 1000) if run.total_ms is not None else "",
        "nfe": str(run.nfe or ""),
        "status": run.status,
        "model_id": run.model_id,
        "datetime_utc": run.datetime_utc[:19].replace("T", " "),
    }


def show() -> None:
    log = state.engine().run_log
    if not log.count():
        words("The log is empty. Every picture you make on Generate or Compare is written here, "
              "failures too.", "quiet")
        st.page_link("views/generate.py", label="Make a first picture",
                     icon=":material/photo_camera:")
        return
    chosen = filters()
    count = log.count(**chosen)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.caption(f"**{count}** run{'s' * (count != 1)}")
        st.download_button("Export CSV", lambda: runs_csv(log.runs(**chosen)),
                           "contact-sheet-runs.csv", "text/csv", on_click="ignore",
                           icon=":material/download:", disabled=not count, key=PAGE.key("export"))
        st.download_button(
            "Export for a spreadsheet",
            lambda: spreadsheet([run.as_dict() for run in log.runs(**chosen)]),
            "contact-sheet-runs-spreadsheet.csv", "text/csv", on_click="ignore",
            icon=":material/table:", disabled=not count, key=PAGE.key("spreadsheet"),
            help="CSV with what people read; no text in it becomes a formula.")
    if count:
        table(chosen, count)
    else:
        words("No run fits these filters.", "quiet")
    opened_run()


st.title("Runs")
try:
    show()
except PipelineError as error:
    notice("error", str(error))
