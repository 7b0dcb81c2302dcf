"""The figures of a vote: SVG that needs no script, in the style of a study's."""

from __future__ import annotations

from pipelines.study.charts import IntervalRow, interval_rows
from pipelines.study.measures import MEASURES
from pipelines.votes.results import Results, percent

STRENGTHS_CAPTION = ("Strength of each method, as a logarithm, with 95 % intervals; the line is "
                     "the mean of all methods. Red: the interval leaves the mean out.")
MEASURES_CAPTION = ("How often the picture that a measure finds better is the one that was chosen, "
                    "in percent; the line is what chance gives. Red: the interval leaves chance "
                    "out.")


def strengths_chart(results: Results) -> str:
    """The strengths with their intervals, the strongest first."""
    return interval_rows("Strengths of the methods with 95 % intervals", [
        IntervalRow(s.method, s.strength, s.low, s.high, s.low > 0 or s.high < 0,
                    f"{s.method}: {s.strength:.2f} ({s.low:.2f} to {s.high:.2f})")
        for s in results.strengths])


def measures_chart(results: Results) -> str:
    """The measures against the votes; with how often two voters agree, which no measure can be
    expected to exceed by much."""
    rows = [IntervalRow(
        MEASURES[m.measure].label, 100 * m.agree.share, 100 * m.agree.low, 100 * m.agree.high,
        m.agree.low > 0.5 or m.agree.high < 0.5,
        f"{MEASURES[m.measure].label}: {percent(m.agree)} of {m.agree.total} choices")
        for m in results.measures]
    if results.each_other:
        agree, total = results.each_other
        rows.append(IntervalRow("Two voters with each other", 100 * agree / total, None, None,
                                False, f"{agree} of {total} pairs of choices agree"))
    return interval_rows("Agreement of measures with the votes, in percent", rows, 50.0)
