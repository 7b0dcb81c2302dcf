"""Several runs at once: what tells them apart, tags, stars, a remark; the bin."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from dashboard import state
from dashboard.components.run_details import alt_text
from dashboard.components.text import notice, words
from dashboard.form.axes import put_comparison
from dashboard.last_net import last_net
from dashboard.run_charts import charts_dialog
from pipelines.errors import PipelineError
from pipelines.from_runs import comparison_of
from pipelines.hub.plan import size_text
from pipelines.log_tables import Run
from pipelines.run_marks import RunMarks, bin_files, differences, empty_bin

PAGE = state.RUNS
SIDE_BY_SIDE = 8


def marks() -> RunMarks:
    return RunMarks(state.engine().run_log)


def selected() -> list[int]:
    """The runs that are selected, on this page of the list and on others."""
    return PAGE.get("selected", [])


def selection_bar() -> None:
    """What can be done with the selected runs; nothing where there are none."""
    ids = selected()
    if not ids:
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.caption(f"**{len(ids)}** selected")
        if st.button("Differences", icon=":material/compare:", key=PAGE.key("differ"),
                     disabled=len(ids) < 2):
            differences_dialog(ids)
        if st.button("Compare", icon=":material/grid_on:", key=PAGE.key("compare"),
                     disabled=len(ids) < 2, help="What differs between them becomes the axes of a "
                     "comparison; its cells come from the log"):
            _compare(ids)
        if st.button("Charts", icon=":material/show_chart:", key=PAGE.key("charts"),
                     help="Time per step, time against evaluations, memory"):
            charts_dialog(ids)
        with st.popover("Mark", icon=":material/sell:"):
            _marking(ids)
        if st.button("Delete", icon=":material/delete:", key=PAGE.key("delete"),
                     help="Into the bin, out of which they can be taken again"):
            _do(lambda: marks().delete(ids))
            PAGE.set("undo", ids)
            _unselect()
            st.rerun()
        st.button("Unselect", type="tertiary", key=PAGE.key("unselect"), on_click=_unselect)


def _compare(ids: list[int]) -> None:
    """Take the runs to Compare, or say why they make no comparison."""
    try:
        put_comparison(state.COMPARE, comparison_of(state.engine().run_log.runs_by_id(ids)))
    except PipelineError as error:
        notice("error", str(error))
        return
    state.open_comparison_setup()
    st.switch_page("views/compare.py")


def _marking(ids: list[int]) -> None:
    tag = st.text_input("Tag", key=PAGE.key("tag"), placeholder="best")
    with st.container(horizontal=True, gap="small"):
        if st.button("Add tag", key=PAGE.key("add_tag"), disabled=not tag):
            _do(lambda: marks().tag(ids, tag))
        if st.button("Remove tag", key=PAGE.key("remove_tag"), disabled=not tag):
            _do(lambda: marks().untag(ids, tag))
    with st.container(horizontal=True, gap="small"):
        if st.button("Star", icon=":material/star:", key=PAGE.key("star")):
            _do(lambda: marks().star(ids))
        if st.button("Unstar", key=PAGE.key("unstar")):
            _do(lambda: marks().star(ids, False))
    if len(ids) == 1:
        run = state.engine().run_log.run(ids[0])
        note = st.text_area("Note", run.remark if run else "", key=PAGE.key(f"note.{ids[0]}"))
        if st.button("Keep note", key=PAGE.key("keep_note")):
            _do(lambda: marks().remark(ids[0], note))


def _do(change: Any) -> None:
    """Make a change and draw the page with it; say why where it fails."""
    try:
        change()
    except PipelineError as error:
        notice("error", str(error))
        return
    PAGE.set("changed", True)


def redraw_after_change() -> None:
    """The list above was drawn before a button below it changed a mark."""
    if PAGE.pop("changed"):
        st.rerun()


def _unselect() -> None:
    PAGE.set("selected", [])


@st.dialog("Differences", width="large")
@last_net()
def differences_dialog(ids: list[int]) -> None:
    """The selected pictures beside each other, and only the settings that are not the same."""
    runs = state.engine().run_log.runs_by_id(ids[:SIDE_BY_SIDE])
    if len(ids) > SIDE_BY_SIDE:
        words(f"The first {SIDE_BY_SIDE} of {len(ids)} selected runs.", "quiet")
    apart = differences(runs)
    for run, place in zip(runs, st.columns(len(runs)), strict=True):
        with place:
            _picture(run)
    if not apart:
        words("All settings are the same.")
        return
    st.table({"": list(apart), **{f"Run {run.id}": [_shown(column[number]) for column
                                                    in apart.values()]
                                  for number, run in enumerate(runs)}})


def _picture(run: Run) -> None:
    if path := state.engine().thumbnails.get(run.image_sha256):
        st.image(str(path), alt=alt_text(run))
    words(f"Run {run.id}" + ("" if run.image_sha256 else f", {run.status}"), "quiet")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def bin_bar(looking: bool) -> None:
    """Undo of the last deletion, and what lies in the bin; `looking` into it now."""
    undo = PAGE.get("undo")
    count = len(marks().deleted())
    if not count:
        PAGE.pop("undo")
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if undo:
            words(f"{len(undo)} run{'s' * (len(undo) != 1)} put into the bin.", "quiet")
            if st.button("Undo", icon=":material/undo:", key=PAGE.key("undo_button")):
                marks().bring_back(undo)
                PAGE.pop("undo")
                st.rerun()
        if looking:
            if st.button("Bring all back", key=PAGE.key("bring_back")):
                marks().bring_back()
                st.rerun()
            if st.button(f"Empty the bin ({count})", icon=":material/delete_forever:",
                         key=PAGE.key("empty")):
                empty_dialog(count)
        else:
            st.button(f"Bin ({count})", icon=":material/delete:", type="tertiary",
                      key=PAGE.key("open_bin"), on_click=lambda: PAGE.set("where", "is:deleted"))


@st.dialog("Empty the bin")
@last_net()
def empty_dialog(count: int) -> None:
    files = bin_files(state.engine())
    space = sum(size for *_, size in files)
    words(f"{count} run{'s' * (count != 1)} and {len(files)} files, {size_text(space)}, are "
          "removed for good. Files that other runs use stay.")
    if st.button("Remove for good", type="primary", key=PAGE.key("empty_now"), on_click=_empty):
        st.rerun()


def _empty() -> None:
    """Before the page is drawn, since it leaves the bin."""
    try:
        empty_bin(state.engine())
    except PipelineError as error:
        notice("error", str(error))
        return
    PAGE.set("where", "")
    PAGE.pop("undo")
