"""Study: methods over many prompts, and what can be told apart."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.browser import asked
from dashboard.components.queue import job_buttons, job_progress
from dashboard.components.recent import Recent, moment
from dashboard.components.text import notice, words
from dashboard.last_net import last_net, polled
from dashboard.runs import opened_run
from dashboard.study.results import downloads, figures, outliers, sentences, summary
from dashboard.study.setup import setup, start_form
from pipelines.errors import PipelineError
from pipelines.jobs import Job, submit_study
from pipelines.study.findings import Findings
from pipelines.study.rows import StudyRow, study_rows

PAGE = state.STUDY
RECENT = Recent(PAGE, state.STUDY_ID, "study", "studies")


def recent() -> None:
    """A list of studies to open again."""

    def title(row: StudyRow) -> str:
        axes = " × ".join(str(axis.get("name")) for axis in row.axes)
        return f"{moment(row.datetime_utc)} · {axes} · {len(row.prompts)} prompts · {row.id}"

    RECENT.show({row.id: title(row) for row in study_rows(state.engine().run_log, 30)})


def show(study_id: str) -> None:
    """One study: its state, what it shows by now, downloads."""
    job = state.study_job(study_id)
    if job and job.active:
        polled(in_work)(study_id, job)
        return
    findings = state.watched_study(study_id).look()
    if job and job.status == "failed":
        notice("error", job.error or "The study failed.")
    status_line(findings, job)
    summary(findings)
    downloads(findings)
    figures(findings)
    outliers(findings)


def in_work(study_id: str, job: Job) -> None:
    """Progress, and what can be told by now: the intervals hold although one looks."""
    state.rerun_on_change()
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        job_progress(job)
        job_buttons(job, "page")
    findings = state.watched_study(study_id).look()
    if not findings.pairs:
        words("The first intervals come with the first prompts.", "quiet")
        return
    sentences(findings)
    figures(findings)


def status_line(findings: Findings, job: Job | None) -> None:
    """How the study ended. One that is cancelled while it waits for its turn never ran: only its
    job knows."""
    values, study = findings.values, findings.study
    made = f"{len(values.runs)} of {values.cells} cells"
    if values.status == "decided":
        notice("good", f"Stopped when it was decided, with {made}.")
    elif values.status == "cancelled" or (job and job.status == "cancelled"):
        notice("note", f"Cancelled; {made} are kept.")
    elif values.status == "running":
        notice("note", f"{made} so far: it runs in another program, or was interrupted.")
    if values.status in ("cancelled", "running") or values.failed:
        st.button("Go on with what is missing", icon=":material/play_arrow:", key="study.resume",
                  on_click=last_net()(submit_study),
                  args=(state.job_queue(), study), kwargs=asked())


def study_page() -> None:
    start_form()
    study_id = RECENT.chosen_id()
    if study_id:
        st.query_params[state.STUDY_ID] = study_id
    title, list_of_recent = st.columns([3, 2], vertical_alignment="bottom")
    title.title("Study")
    try:
        with list_of_recent:
            recent()
        PAGE.start(setup=study_id is None)
        if (opened := PAGE.pop("setup.next")) is not None:
            PAGE.set("setup", opened)
        with st.expander("New study", key=PAGE.key("setup"), on_change="rerun",
                         icon=":material/tune:"):
            started = setup()
        if started:
            RECENT.choose(started)
            st.rerun()
        if study_id:
            show(study_id)
        else:
            words("One picture of one prompt says little. Choose methods and prompts, see what "
                  "such a study could show, and start; or open a recent one.", "quiet")
        opened_run()
    except PipelineError as error:
        notice("error", str(error))
