"""What a vote found, as its page and its voters see it once it is revealed."""

from __future__ import annotations

import json

import streamlit as st

from dashboard.components.drawing import drawings
from dashboard.components.text import notice, words
from pipelines.votes.charts import (
    MEASURES_CAPTION,
    STRENGTHS_CAPTION,
    measures_chart,
    strengths_chart,
)
from pipelines.votes.results import Results, explanation, percent

MOST_SENTENCES = 6


def show_results(found: Results) -> None:
    """Sentences, charts, agreement, and the tables behind them."""
    told = [f"{pair.sentence}." for pair in found.pairs if pair.distinguishable]
    if found.pairs and not told:
        told = [f"{pair.sentence}." for pair in found.pairs] if len(found.pairs) == 1 else [
            f"None of the {len(found.strengths)} methods can be told apart by these votes."]
    for number, text in enumerate(told[:MOST_SENTENCES]):
        words(text, "" if number else "large")
    if len(told) > MOST_SENTENCES:
        words(f"and {len(told) - MOST_SENTENCES} more pairs, in the table below", "quiet")
    for note in found.notes:
        notice("note", note)
    if not found.strengths:
        return
    charts = [(strengths_chart(found), STRENGTHS_CAPTION)]
    if found.measures:
        charts.append((measures_chart(found), MEASURES_CAPTION))
    drawings(charts, key=f"votes-{found.vote.id}")
    _voters(found)
    with st.expander("All pairs"):
        st.dataframe([{
            "a": pair.a, "b": pair.b, "a is chosen": pair.share, "low": pair.low,
            "high": pair.high, "wins": pair.wins, "ties": pair.ties, "losses": pair.losses,
            "p adjusted": pair.p_adjusted, "told apart": pair.distinguishable,
        } for pair in found.pairs], hide_index=True, width="stretch", column_config={
            **{name: st.column_config.NumberColumn(format="percent")
               for name in ("a is chosen", "low", "high")},
            "p adjusted": st.column_config.NumberColumn(format="%.4g")})
    with st.expander("How it was worked out"):
        for text in explanation():
            words(text)
    st.download_button("Results (JSON)", json.dumps(found.as_json(), indent=2).encode(),
                       f"vote-{found.vote.id}.json", "application/json", on_click="ignore",
                       icon=":material/download:")


def _voters(found: Results) -> None:
    """How far the voters can be trusted."""
    alpha = found.alpha
    lines = [f"{label} in {percent(share)} of {share.total} answers." for label, share in (
        ("Equal pictures were called equal", found.equal_tied),
        ("Different ones were called equal", found.tied),
        ("Repeats were answered as before", found.repeated)) if share]
    if alpha:
        bounds = "" if alpha.low is None else f" ({alpha.low:.2f} to {alpha.high:.2f})"
        lines.append(f"Krippendorff's alpha is {alpha.alpha:.2f}{bounds}, over {alpha.units} "
                     f"ballot{'s' * (alpha.units != 1)} that two voters or more answered.")
    words("\n".join([*lines, found.side_sentence]), "quiet")
