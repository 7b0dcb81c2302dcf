"""The log in files and out of them, on the page Runs."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import state
from dashboard.browser import asked, browser
from dashboard.components.text import notice, words
from dashboard.last_net import last_net
from pipelines.errors import PipelineError
from pipelines.exchange.formats import LOG_FORMATS
from pipelines.exchange.work import exports_folder, submit_export, submit_import
from pipelines.hub.plan import size_text
from pipelines.run_filter import RunFilter

PAGE = state.RUNS
ICONS = {"zip": "folder_zip", "parquet": "view_column", "csv": "table", "spreadsheet": "table_view",
         "mlflow": "experiment"}
LISTED = 5  # files
LARGEST_DOWNLOAD = 500 * 10**6  # bytes: a browser's download goes through this program's memory


def export_control(chosen: dict[str, Any]) -> None:
    """A popover with every format; each is a job, whose file is listed below when it is done."""
    with st.popover("Export", icon=":material/download:"):
        words("The runs of this list, on all its pages, into a file.", "quiet")
        for name, form in LOG_FORMATS.items():
            missing = name == "mlflow" and importlib.util.find_spec("mlflow") is None
            st.button(form.label, key=PAGE.key(f"export.{name}"), width="stretch",
                      icon=f":material/{ICONS.get(name, 'data_object')}:", disabled=missing,
                      help="The package is not installed: pip install mlflow-skinny." if missing
                      else form.help, on_click=_export, args=(name, chosen))


@last_net()
def _export(name: str, chosen: dict[str, Any]) -> None:
    submit_export(state.job_queue(), name, RunFilter(**chosen), **asked())


def import_control() -> None:
    """A popover that takes the ZIP of another machine."""
    with st.popover("Import", icon=":material/upload:"):
        words("The ZIP of another machine's log. Runs that are here already are not doubled.",
              "quiet")
        limit = st.get_option("server.maxUploadSize")
        words(f"Larger than {limit} MB: python -m pipelines import FILE", "quiet")
        file = st.file_uploader("Exported log", ["zip"], key=PAGE.key(
            f"import.{PAGE.get('imports', 0)}"), label_visibility="collapsed")
        if file and st.button("Bring it in", key=PAGE.key("import"), type="primary"):
            try:
                submit_import(state.job_queue(), file.name, file, **asked())
            except PipelineError as error:
                notice("error", str(error))
                return
            PAGE.set("imports", PAGE.get("imports", 0) + 1)  # an empty field for the next
            st.rerun()


def exchanged() -> None:
    """What the last import came to, and the files that exports made."""
    job = state.job_queue().latest("import", browser())
    if job and job.status == "done" and PAGE.get("import.seen") != job.id:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            notice("good", f"{job.title}: {job.message}")
            st.button("", icon=":material/close:", type="tertiary", help="Dismiss",
                      key=PAGE.key("import.dismiss"),
                      on_click=lambda: PAGE.set("import.seen", job.id))
    folder = exports_folder(state.engine().home)
    files = sorted((path for path in folder.glob("[!.]*")), reverse=True,
                   key=lambda path: path.stat().st_mtime) if folder.is_dir() else []
    if not files:
        return
    with st.expander(f"Exported files ({len(files)})", icon=":material/folder_open:",
                     expanded=len(files) <= LISTED, key=PAGE.key("exported")):
        for path in files:
            _file(path)


def _file(path: Path) -> None:
    size = path.stat().st_size
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        words(path.name if path.is_dir() else f"{path.name} · {size_text(size)}")
        if path.is_dir() or size > LARGEST_DOWNLOAD:
            words(f"It lies at {path}", "quiet")
        else:
            st.download_button("Download", path.read_bytes, path.name, on_click="ignore",
                               icon=":material/download:", type="tertiary",
                               key=PAGE.key(f"download.{path.name}"))
        st.button("Remove", icon=":material/delete:", type="tertiary",
                  key=PAGE.key(f"remove.{path.name}"), on_click=_remove, args=(path,))


@last_net()
def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
