"""User text and numbers as HTML that nothing in them can change."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from pipelines.comparison import Forecast

KINDS = {"error": "alert", "note": "status", "good": "status"}


def notice(kind: str, text: str, detail: str = "") -> None:
    """A box with plain text: `kind` is error, note or good; `detail` is set in small code type."""
    small = f"<code title='{escape(detail)}'>{escape(detail)}</code>" if detail else ""
    st.html(f"<div class='cs-notice cs-{kind}' role='{KINDS[kind]}'>"
            f"<span>{escape(text)}</span>{small}</div>")


def words(text: str, manner: str = "") -> None:
    """User text as it stands, its line breaks kept. `manner`: large, quiet, or clamp to cut it
    after two lines."""
    st.html(f"<div class='cs-words cs-{manner}' title='{escape(text)}'>{escape(text)}</div>")


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Labels and values as a quiet grid; a value too long for its place can still be selected."""
    items = "".join(
        f"<div><dt>{escape(label)}</dt><dd title='{escape(value)}'>{escape(value)}</dd></div>"
        for label, value in pairs
    )
    st.html(f"<dl class='cs-facts'>{items}</dl>")


def duration(seconds: float | None) -> str:
    """'0.42 s', '12 s', '3 min 5 s'; an en dash where it is not known."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def forecast_text(seconds: float | None) -> str:
    """How long work will take, by the runs of this machine."""
    return "time not known yet on this machine" if seconds is None else f"about {duration(seconds)}"


def work_text(expected: Forecast, details: str = "") -> str:
    """What is to be computed here and how long that takes, and what a provider is asked for;
    `details` follow the time where it is known."""
    parts = []
    if expected.hosted < expected.cells:
        told = details if expected.seconds is not None else ""
        parts = [f"{expected.nfe} function evaluations", forecast_text(expected.seconds) + told]
    if expected.hosted:
        parts.append(f"{expected.hosted} by a provider, time and cost not known")
    return " · ".join(parts)


def milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} ms" if value < 1000 else duration(value / 1000)
