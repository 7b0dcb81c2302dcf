"""What all charts share: colours, size, a legend, the data behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import streamlit as st

from pipelines.sheet.cells import to_csv

HEIGHT = 430
# Told apart on light and on dark ground.
COLOURS = ["#d1495b", "#3d8bc4", "#e0a030", "#4f9d69", "#9b6bc7", "#2fa4a4", "#c76b98", "#8d7b68"]
SVG = {"embedOptions": {"renderer": "svg"}}  # marks that a screen reader finds


def colour(field: str) -> alt.Color:
    """A colour for each value of a field, with a legend below."""
    return alt.Color(f"{field}:N", title=None, scale=alt.Scale(range=COLOURS),
                     legend=alt.Legend(orient="bottom", columns=3, labelLimit=220))


def data_button(name: str, records: Sequence[dict[str, Any]]) -> None:
    """The download of what a chart shows."""
    st.download_button("Data (CSV)", to_csv(records), f"{name}.csv", "text/csv",
                       on_click="ignore", icon=":material/table:", key=f"data.{name}")
