"""Downloads as they run: in the sidebar in short, on a model's page file by file."""

from __future__ import annotations

from html import escape

import streamlit as st

from dashboard import state
from dashboard.components.task import task_card, time_left
from dashboard.components.text import notice
from dashboard.last_net import last_net
from pipelines.errors import PipelineError
from pipelines.hub.download import Download, FileProgress
from pipelines.hub.plan import size_text

MOST_FILES = 12
ORDER = ("running", "checking", "waiting", "done")


def downloads_panel() -> None:
    """What is on its way, with its buttons; nothing where nothing is."""
    shown = [download for download in state.downloads().all()
             if download.active or download.status == "failed"]
    if not shown:
        return
    st.markdown("##### Downloads")
    for download in shown:
        task_card(download, progress_line(download, short=True),
                  lambda download=download: download_buttons(download, "sidebar"),
                  key=f"download-{download.id}")


def progress_line(download: Download, short: bool = False) -> str:
    """'34 % · 1.2 of 3.4 GB · 12 MB/s · 3 min left'."""
    parts = [f"{download.fraction:.0%}"]
    if not short:
        parts.append(f"{size_text(download.done)} of {size_text(download.total)}")
    if download.status == "paused":
        parts.append("paused")
    elif download.message:
        parts.append(download.message)
    elif speed := download.pace():
        parts += [f"{size_text(speed)}/s", time_left(download)]
    return " · ".join(parts)


def download_buttons(download: Download, place: str) -> None:
    @last_net()
    def resume() -> None:
        try:
            download.start()
        except PipelineError as error:
            download.error = str(error)

    key, kind = f"{place}.{download.id}", "tertiary" if place == "sidebar" else "secondary"
    with st.container(horizontal=True, gap="small"):
        if download.status == "running":
            st.button("Pause", icon=":material/pause:", key=f"pause.{key}", type=kind,
                      on_click=download.pause)
        else:
            st.button("Resume", icon=":material/play_arrow:", key=f"resume.{key}", type=kind,
                      on_click=resume)
        name = "Dismiss" if download.status == "failed" else "Cancel"
        st.button(name, icon=":material/stop_circle:", key=f"cancel.{key}", type=kind,
                  on_click=download.cancel)


def download_details(download: Download) -> None:
    """The whole download, and its files one by one; call it in a polling fragment."""
    state.rerun_on_change()
    if download.error:
        notice("error", download.error)
    st.progress(download.fraction, text=progress_line(download))
    download_buttons(download, "page")
    files = sorted(download.files, key=lambda f: (ORDER.index(f.status), -f.file.size))
    done = sum(file.status == "done" for file in files)
    rows = "".join(
        f"<div class='cs-file cs-{progress.status}'><span title='{escape(progress.file.path)}'>"
        f"{escape(progress.file.path)}</span><i><b style='width:"
        f"{100 * progress.done / max(1, progress.file.size):.1f}%'></b></i>"
        f"<em>{_file_state(progress)}</em></div>"
        for progress in files[:MOST_FILES]
    )
    more = f" · {len(files) - MOST_FILES} more" if len(files) > MOST_FILES else ""
    st.html(f"<div class='cs-files' role='list' aria-label='Files'>{rows}</div>"
            f"<div class='cs-quiet'>{done} of {len(files)} files are here{more}</div>")


def _file_state(progress: FileProgress) -> str:
    size = size_text(progress.file.size)
    if progress.status == "running":
        return f"{size_text(progress.done)} of {size}"
    return "checksum" if progress.status == "checking" else size
