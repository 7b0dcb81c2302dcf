"""The table of runs: a row per run with its thumbnail; headings sort, rows open, boxes select."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from pipelines.sheet.viewer.scripts import joined

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """`id` is the run log's column to sort by."""

    id: str
    label: str
    numeric: bool = False
    wide: bool = False


_table = st.components.v2.component(
    "contact_sheet.run_table",
    html='<div class="table"><table><thead></thead><tbody></tbody></table></div>',
    css=(HERE / "run_table.css").read_text(encoding="utf-8"),
    js=joined(HERE / "run_table.js"),
)


def run_table(
    columns: Sequence[Column],
    rows: Sequence[dict[str, Any]],
    *,
    sort: str,
    ascending: bool,
    selected: Collection[int],
    key: str,
) -> tuple[int | None, str | None, list[int] | None]:
    """The run that was just opened, the heading that was just clicked, and which rows are selected
    after that was just changed; None mostly.

    A row has `id`, `url`, `alt`, `status`, `starred`, `tags` and one text per column id.
    """
    result = _table(
        key=key,
        data={"columns": [asdict(column) for column in columns], "rows": list(rows),
              "sort": sort, "ascending": ascending, "selected": list(selected)},
        on_select_change=lambda: None,
        on_open_change=lambda: None,
        on_sort_change=lambda: None,
    )
    return result.open, result.sort, result.select
