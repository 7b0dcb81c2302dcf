"""What a study shows: sentences, figures, tables, prompts that stand apart, downloads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial

import streamlit as st

from dashboard import state
from dashboard.components.drawing import drawings
from dashboard.components.picture import picture_viewer
from dashboard.components.text import notice, words
from dashboard.runs import open_run, picture_of
from dashboard.votes.page import ask_people
from pipelines.study.charts import distributions, intervals, matrix
from pipelines.study.findings import Findings, Pair
from pipelines.study.measures import MEASURES
from pipelines.study.report import (
    DISTRIBUTIONS_CAPTION,
    INTERVALS_CAPTION,
    MATRIX_CAPTION,
    explanation,
    leading,
    pairs_csv,
    pairs_parquet,
    report,
)
from pipelines.votes.rows import STUDY

MOST_SENTENCES = 6


def summary(findings: Findings) -> None:
    """The honest sentences, and what was dropped or could not be known."""
    sentences(findings)
    values = findings.values
    if values.unequal_noise:
        notice("note", f"Equal noise: not proven for {len(values.unequal_noise)} prompts.")
    elif values.runs:
        notice("good", "Equal noise: proven. For each prompt and seed all methods began from one "
                       "noise, by its hash.")
    for note in findings.notes:
        notice("note", note)


def sentences(findings: Findings) -> None:
    """The first few as they stand, the others on demand."""
    texts = [f"{text}." for text in leading(findings)]
    words(texts[0], "large")
    for text in texts[1:MOST_SENTENCES]:
        words(text)
    if rest := texts[MOST_SENTENCES:]:
        with st.expander(f"{len(rest)} more sentences"):
            for text in rest:
                words(text)


def figures(findings: Findings) -> None:
    """A tab per measure: the matrix, intervals and distributions."""
    measures = [name for name in findings.study.measures
                if any(pair.measure == name for pair in findings.pairs)]
    if not measures:
        return
    for tab, measure in zip(st.tabs([MEASURES[name].label for name in measures]), measures,
                            strict=True):
        with tab:
            pairs = [pair for pair in findings.pairs if pair.measure == measure]
            drawings([(matrix(findings, measure), MATRIX_CAPTION),
                      (intervals(pairs), INTERVALS_CAPTION),
                      (distributions(findings, measure), DISTRIBUTIONS_CAPTION)],
                     key=f"figures-{findings.study.id}-{measure}")
            if kinds := [pair for pair in findings.by_category if pair.measure == measure]:
                with st.expander("By category of prompts"):
                    drawings([(intervals(kinds), INTERVALS_CAPTION)],
                             key=f"kinds-{findings.study.id}-{measure}")
                    _table(kinds)
    with st.expander("All pairs"):
        _table(findings.pairs)
    with st.expander("How it was worked out"):
        for text in explanation(findings):
            words(text)


def _table(pairs: Sequence[Pair]) -> None:
    st.dataframe([{
        **({"category": pair.category} if pair.category else {}),
        "a": pair.a, "b": pair.b, "measure": pair.measure, "a - b": pair.difference,
        "low": pair.low, "high": pair.high, "pairs": pair.n, "ties": pair.ties,
        "win rate of a": pair.win_rate, "p adjusted": pair.p_adjusted,
        "told apart": pair.distinguishable, "pairs needed": pair.needed,
    } for pair in pairs], hide_index=True, width="stretch", column_config={
        **{name: st.column_config.NumberColumn(format="%.4g")
           for name in ("a - b", "low", "high", "p adjusted")},
        "win rate of a": st.column_config.NumberColumn(format="percent")})


def outliers(findings: Findings) -> None:
    """Prompts whose difference stands apart, with both pictures; a button opens a run."""
    if not findings.outliers:
        return
    st.subheader("Prompts that stand apart")
    study = findings.study
    for outlier in findings.outliers:
        runs = [(study.methods[method], findings.values.runs.get((method, outlier.prompt, 0)))
                for method in (outlier.a, outlier.b)]
        words(study.prompts[outlier.prompt].text)
        words(f"{MEASURES[outlier.measure].label}: {study.methods[outlier.a]} minus "
              f"{study.methods[outlier.b]} is {outlier.difference:.3g}; seed {study.seeds[0]} is "
              "shown", "quiet")
        for place, (name, run) in zip(st.columns(4), runs, strict=False):
            if run:
                with place:
                    key = f"outlier-{outlier.prompt}-{run.id}"
                    picture_viewer([picture_of(run, key, name)], key=key, share_of_height=0.22)
                    if st.button(name, key=f"open-{key}", icon=":material/open_in_full:"):
                        open_run(run.id)


def downloads(findings: Findings) -> None:
    engine, study = state.engine(), findings.study
    files: dict[str, tuple[str, str, Callable[[], bytes]]] = {
        "Report (HTML)": (".html", "text/html", partial(report, engine, findings)),
        "All pairs (CSV)": ("-pairs.csv", "text/csv", partial(pairs_csv, findings)),
        "All pairs (Parquet)": ("-pairs.parquet", "application/vnd.apache.parquet",
                                partial(pairs_parquet, findings)),
        "Findings (JSON)": (".json", "application/json",
                            lambda: json.dumps(findings.as_json(), indent=2).encode()),
    }
    with st.container(horizontal=True, gap="small"):
        with st.popover("Download", icon=":material/download:"):
            for label, (suffix, mime, make) in files.items():
                st.download_button(label, make, f"study-{study.id}{suffix}", mime,
                                   on_click="ignore", width="stretch", key=f"download.{suffix}")
        if st.button("Look at the pictures", icon=":material/grid_on:", key="study.sheet",
                     help="The cells on Compare, a sheet per prompt"):
            st.session_state[state.COMPARISON] = study.comparison_ids[0]
            st.switch_page("views/compare.py")
        if st.button("Ask people", icon=":material/how_to_vote:", key="study.vote",
                     help="A blind vote over these pictures"):
            ask_people(STUDY, study.id)
