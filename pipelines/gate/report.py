"""A gate's verdict as one HTML page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from pipelines.gate.margins import MARGINS
from pipelines.gate.verdict import WORSE, Criterion, SpeedUp, Verdict
from pipelines.sheet.cells import as_json
from pipelines.study.charts import distributions, named_row, scaffold, svg
from pipelines.study.findings import Findings
from pipelines.study.measures import MEASURES
from pipelines.study.report import (
    bullets,
    design_section,
    figure,
    outlying_pictures,
    page,
    recipe_section,
)
from pipelines.study.statistics import FEWEST_PROMPTS

if TYPE_CHECKING:
    from pipelines.engine import Engine

SHOWN_MARGINS = 4.0  # how far from zero the chart goes, in margins
CHART = ("How much worse the candidate is, in margins of each measure, with 90 % intervals; what "
         "lies within the green is equal, what lies to its right is worse. Dots and lines end at "
         f"{SHOWN_MARGINS:g} margins.")
DISTRIBUTIONS = "Baseline minus candidate of each pair of pictures, with quartiles."
SPEED = ("How much faster the candidate is, as a share, with a 95 % interval; at 0 both are "
         "equally fast.")
HEAD = ("Measure", "Verdict", "Margin", "Candidate − baseline", "90 % interval", "Pairs",
        "Prompts", "Prompts needed")


def report(
    engine: Engine,
    verdict: Verdict,
    findings: Findings | None,
    design: Sequence[str] = (),
    recipe: Mapping[str, object] | None = None,
) -> bytes:
    """The page. `findings`: of the gate's study; where there is none, against recorded pictures,
    `design` and `recipe` say what was asked."""
    figures = figure(criteria_chart(verdict.criteria), CHART)
    if verdict.speed_up and verdict.speed_up.n:
        figures += f"<h3>Speed</h3>{figure(speed_chart(verdict.speed_up), SPEED)}"
    for criterion in verdict.criteria if findings else ():
        if findings and (drawing := distributions(findings, criterion.measure)):
            figures += (f"<h3>{escape(MEASURES[criterion.measure].label)}</h3>"
                        f"{figure(drawing, DISTRIBUTIONS)}")
    margins = [f"Margin of {criterion.measure}: {criterion.margin:g}"
               f"{MEASURES[criterion.measure].unit}{_reason(criterion)}"
               for criterion in verdict.criteria]
    made = [f"study {verdict.study_id}" if verdict.study_id else "recorded pictures",
            "made by Contact Sheet"]
    return page(
        f"{verdict.candidate} in place of {verdict.baseline}?", made,
        [verdict.sentence, *(criterion.sentence for criterion in verdict.criteria)], verdict.notes,
        explanation(bool(verdict.speed_up)), verdict.as_json(),
        design=bullets([*design, *margins]) + (design_section(findings) if findings else ""),
        figures=figures, tables=criteria_table(verdict.criteria),
        outliers=outlying_pictures(engine, findings) if findings else "",
        recipe=recipe_section(findings) if findings else
        f"<pre>{escape(as_json(dict(recipe or {})))}</pre>")


def explanation(timed: bool) -> list[str]:
    """The statistics in words, with their sources."""
    texts = [
        "Both methods paint the same prompts from the same noise. A candidate is equal within the "
        "margin where the 90 % interval of its mean difference lies within the margin: that is two "
        "one-sided tests at 5 % (Schuirmann 1987). It is worse where the whole interval lies "
        "beyond the margin, better where it lies beyond it on the good side, which passes too; "
        f"else it is not decided. Below {FEWEST_PROMPTS} prompts nothing is.",
        "All criteria must be met, so no adjustment for their number is needed: a candidate that "
        "is beyond one of the margins passes in at most 5 of 100 gates (an intersection-union "
        "test, Berger 1982).",
        "Intervals are equal-tailed bootstrap-t intervals (Efron 1981) over prompts, each with all "
        "of its seeds. For a share of pictures they are never narrower than what may have gone "
        "unseen in so many prompts.",
        "A margin is what one is ready to lose: a choice, and no result of measurement.",
    ]
    if timed:
        texts.append(
            "Times are of the first seed of each prompt, after warm-up: each picture is made "
            "apart, baseline and candidate one after the other, the candidate first for every "
            "second prompt, so that a slow minute falls on both. The speed-up is the geometric "
            "mean of the ratios over prompts; one far from the others counts no more than 3.5 "
            "median absolute deviations.")
    return texts


def criteria_chart(criteria: Sequence[Criterion]) -> str:
    """Each criterion's interval in units of its margin, worse to the right."""
    x, height, parts = scaffold(-SHOWN_MARGINS, SHOWN_MARGINS, 0.05, len(criteria))
    parts.insert(0, f"<rect class='margin' x='{x(-1):.1f}' width='{x(1) - x(-1):.1f}' y='4' "
                    f"height='{height - 30}'/>")
    for number, criterion in enumerate(criteria):
        y = named_row(number, MEASURES[criterion.measure].label, parts)
        if criterion.difference is None:
            continue
        scale = -MEASURES[criterion.measure].sign / criterion.margin
        low, high = sorted(scale * (end if end is not None else side * math.inf) for end, side in
                           ((criterion.low, -1), (criterion.high, 1)))
        kind = "told" if criterion.verdict == WORSE else "alike"
        parts.append(f"<line class='{kind}' x1='{x(_shown(low)):.1f}' x2='{x(_shown(high)):.1f}' "
                     f"y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(f"<circle class='{kind}' cx='{x(_shown(scale * criterion.difference)):.1f}' "
                     f"cy='{y:.1f}' r='4.5'><title>{escape(criterion.sentence)}</title></circle>")
    return svg(height, "Differences in margins", parts)


def _shown(value: float) -> float:
    return min(SHOWN_MARGINS, max(-SHOWN_MARGINS, value))


def speed_chart(speed: SpeedUp) -> str:
    """The speed-up less 1 with its interval."""
    low, high = min(0.0, speed.low - 1), max(0.0, speed.high - 1)
    x, height, parts = scaffold(low, high, 0.15, 1)
    y = named_row(0, "gain in speed", parts)
    kind = "told" if speed.shown else "alike"
    parts += [f"<line class='{kind}' x1='{x(speed.low - 1):.1f}' x2='{x(speed.high - 1):.1f}' "
              f"y1='{y:.1f}' y2='{y:.1f}'/>",
              f"<circle class='{kind}' cx='{x(speed.ratio - 1):.1f}' cy='{y:.1f}' r='4.5'>"
              f"<title>{escape(speed.sentence)}</title></circle>"]
    return svg(height, "Speed-up", parts)


def criteria_table(criteria: Sequence[Criterion]) -> str:
    """All criteria with their numbers."""
    head = "".join(f"<th scope='col'>{name}</th>" for name in HEAD)
    rows = []
    for criterion in criteria:
        unit = MEASURES[criterion.measure].unit
        bounds = ("–" if criterion.low is None or criterion.high is None
                  else f"{criterion.low:.3g} to {criterion.high:.3g}")
        cells = (f"{criterion.margin:g}{unit}",
                 "–" if criterion.difference is None else f"{criterion.difference:.3g}{unit}",
                 bounds, str(criterion.n), str(criterion.prompts),
                 "–" if criterion.needed is None else f"{criterion.needed:,}")
        numbers = "".join(f"<td class='number'>{escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr><td>{escape(MEASURES[criterion.measure].label)}</td>"
                    f"<td>{escape(criterion.verdict)}</td>{numbers}</tr>")
    return (f"<div class='cs-study-wide'><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>")


def _reason(criterion: Criterion) -> str:
    default = MARGINS.get(criterion.measure)
    if default is None:
        return ""
    return f" (the default: {default.reason})" if criterion.margin == default.value else ""
