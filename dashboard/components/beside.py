"""The comparison on show beside another one, cell by cell."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.components.text import words
from dashboard.last_net import last_net
from pipelines.sheet.beside import Beside, beside
from pipelines.sheet.beside_page import CSS, differences_table, page_of, rows_table, summary
from pipelines.sheet.cells import to_csv

PAGE = state.COMPARE
ROWS = 40  # of a page
RECENT = 50


@last_net()
def beside_panel(comparison_id: str) -> None:
    """A choice of another comparison, and the two beside each other where one is chosen."""
    rows = {row.id: row for row in state.engine().run_log.comparisons(RECENT)
            if row.id != comparison_id}
    st.subheader("Beside another comparison")
    if not rows:
        words("There is no other comparison yet. Change something, a version, a model, a setting, "
              "make it again, and see here what became of each cell.", "quiet")
        return
    key = f"beside.{comparison_id}"
    other = st.selectbox(
        "Beside another comparison", list(rows), index=None, key=PAGE.key(key),
        label_visibility="collapsed", placeholder="Choose the other one",
        format_func=lambda name: f"{rows[name].datetime_utc[5:16].replace('T', ' ')} · "
                                 f"{rows[name].summary} · {name}")
    if other is None:
        return
    with st.spinner("Putting the cells beside each other …"):
        found = beside(state.engine(), comparison_id, other)
    st.html(f"<style>{CSS}</style>")
    words("What all cells share, and the two do not")
    st.html(differences_table(found))
    words(summary(found))
    _rows(found, key)
    with st.container(horizontal=True, gap="small"):
        name = f"contact-sheet-{comparison_id}-beside-{other}"
        st.download_button("Page (HTML)", lambda: page_of(found, state.engine().thumbnails),
                           f"{name}.html", "text/html", on_click="ignore",
                           icon=":material/html:", key=f"{key}.html")
        st.download_button("Cells (CSV)", lambda: to_csv(found.records), f"{name}.csv", "text/csv",
                           on_click="ignore", icon=":material/table:", key=f"{key}.csv")


def _rows(found: Beside, key: str) -> None:
    pages = -(-len(found.rows) // ROWS)
    at = 0
    if pages > 1:
        at = st.number_input(f"Page, 1 to {pages}", 1, pages, key=f"{key}.page", width=160) - 1
    st.html(rows_table(found, found.rows[at * ROWS : (at + 1) * ROWS],
                       lambda run: state.thumbnail_url(run.image_sha256, f"beside-{run.id}")))
