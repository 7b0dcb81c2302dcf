"""A study as one HTML page that needs nothing else, and its pairs as CSV and Parquet."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from pipelines.postcards.vocabulary import CAPTIONED_MODELS
from pipelines.sheet.cells import as_json, to_csv
from pipelines.study.charts import STYLE, distributions, intervals, matrix
from pipelines.study.findings import Findings, Pair, design_sentence, paired
from pipelines.study.measures import MEASURES
from pipelines.study.statistics import ALPHA, FEWEST_PROMPTS, RESAMPLES
from pipelines.study.values import picture_data

if TYPE_CHECKING:
    from pipelines.engine import Engine

PAGE = Path(__file__).parent / "report.html"
MATRIX_CAPTION = "A row's method against a column's; ≈ cannot be told apart."
INTERVALS_CAPTION = ("Mean differences with the 95 % interval of each pair by itself; in colour "
                     "those that stay told apart after adjustment.")
DISTRIBUTIONS_CAPTION = "The difference of each pair of pictures, with quartiles."
TABLE = ("Pair", "Measure", "Difference", "95 % interval", "Pairs", "Ties", "Win rate",
         "p adjusted", "Told apart", "Pairs needed")


def report(engine: Engine, findings: Findings) -> bytes:
    """The page. It names no file of the machine that made it."""
    study = findings.study
    title = f"{', '.join(study.methods[:-1])} or {study.methods[-1]}?"
    made = [f"study {study.id}", study.datetime_utc[:10], "made by Contact Sheet"]
    return page(
        title, made, leading(findings), findings.notes, explanation(findings), findings.as_json(),
        design=design_section(findings), figures=_figures(findings),
        tables=_tables(findings) + _sets(engine, findings),
        outliers=outlying_pictures(engine, findings), recipe=recipe_section(findings))


def page(
    title: str, made: Sequence[str], sentences: Sequence[str], notes: Sequence[str],
    method: Sequence[str], data: dict[str, Any], **sections: str,
) -> bytes:
    """A report from texts, its data, and `sections` of HTML: design, figures, tables, outliers,
    recipe."""
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        css=STYLE.read_text(encoding="utf-8"), title=escape(title), made=escape(" · ".join(made)),
        sentences="".join(f"<p class='lead'>{escape(text)}.</p>" for text in sentences),
        notes=bullets(notes), method="".join(f"<p>{escape(text)}</p>" for text in method),
        data=json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"), **sections,
    ).encode()


def leading(findings: Findings) -> list[str]:
    """The sentences of the first measure; of the others those that tell methods apart."""
    first = findings.study.measures[0]
    return [pair.sentence for pair in findings.pairs
            if pair.measure == first or pair.distinguishable] or ["Nothing is measured yet"]


def explanation(findings: Findings) -> list[str]:
    """The statistics in words, with their sources."""
    interval = ("Intervals are anytime-valid confidence sequences for a mean of unknown variance "
                "(Wang and Ramdas 2023, arXiv:2310.03722), and p-values are one over the evidence: "
                "they hold although somebody looked on and could stop." if findings.sequential else
                f"Intervals are symmetric bootstrap-t intervals (Hall 1988) from {RESAMPLES:,} "
                "resamples of prompts with all of their seeds; p-values come from the same "
                "resamples.")
    texts = [
        "All methods paint the same prompts from the same noise. What is compared is the "
        "difference of each pair of pictures; the figure shown is its mean.", interval,
        f"p-values are adjusted over all {len(findings.pairs)} pairs and measures together (Holm "
        f"1979): where no methods differ, at most {ALPHA:.0%} of studies tell any two apart. Below "
        f"{FEWEST_PROMPTS} prompts nothing is told apart. Categories are adjusted by themselves.",
        "The win rate is the share of pairs in which the first method is better; a tie counts "
        "half. Pairs needed: with so many, a true difference of the size that was seen would be "
        "found in 80 of 100 studies.",
    ]
    if findings.floor:
        texts.append(f"The reference's own error in latents is up to {findings.floor:.2g} (its "
                     "distance to itself with half the steps); differences of RMS of latents that "
                     "are no larger are not told apart.")
    return texts


def pair_rows(findings: Findings) -> list[dict[str, Any]]:
    """Every pair of pictures by measure: who, what, and both values."""
    study, values = findings.study, findings.values
    rows = []
    for measure, (a, b) in itertools.product(study.measures, study.pairs):
        table, differences = values.tables[measure], paired(values, measure, a, b)
        for prompt, seed in itertools.product(range(len(study.prompts)), range(len(study.seeds))):
            if math.isnan(differences[prompt, seed]):
                continue
            rows.append({
                "study_id": study.id, "measure": measure, "a": study.methods[a],
                "b": study.methods[b], "prompt": study.prompts[prompt].text,
                "category": study.prompts[prompt].category, "seed": study.seeds[seed],
                "value_a": float(table[a, prompt, seed]), "value_b": float(table[b, prompt, seed]),
                "difference": float(differences[prompt, seed]),
                "run_a": values.runs[a, prompt, seed].id, "run_b": values.runs[b, prompt, seed].id})
    return rows


COLUMNS = ("study_id", "measure", "a", "b", "prompt", "category", "seed", "value_a", "value_b",
           "difference", "run_a", "run_b")


def pairs_csv(findings: Findings) -> bytes:
    return to_csv(pair_rows(findings), COLUMNS).encode()


def pairs_parquet(findings: Findings) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    types = {"seed": pa.int64(), "value_a": pa.float64(), "value_b": pa.float64(),
             "difference": pa.float64(), "run_a": pa.int64(), "run_b": pa.int64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(pair_rows(findings), schema), buffer)
    return buffer.getvalue()


def bullets(texts: Sequence[str]) -> str:
    """Texts as a list of HTML, '' without any."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul class='quiet'>{items}</ul>" if items else ""


def design_section(findings: Findings) -> str:
    """What was asked of which methods."""
    study = findings.study
    noise = ("proven by its hash" if not findings.values.unequal_noise and findings.values.runs
             else "not proven")
    texts = [
        design_sentence(len(study.methods), len(study.prompts), len(study.seeds)),
        f"Methods: {'; '.join(study.methods)}",
        f"Seeds: {', '.join(map(str, study.seeds))}",
        f"Equal noise for each prompt and seed: {noise}",
        f"Reference: {study.reference or 'none'}",
        "Measures: " + ", ".join(f"{name} ({MEASURES[name].label})" for name in study.measures),
    ]
    prompts = "\n".join(f"{p.category}: {p.text}" if p.category else p.text for p in study.prompts)
    return (f"{bullets(texts)}<details><summary>The {len(study.prompts)} prompts</summary>"
            f"<pre>{escape(prompts)}</pre></details>")


def _figures(findings: Findings) -> str:
    parts = []
    for measure in findings.study.measures:
        if pairs := [pair for pair in findings.pairs if pair.measure == measure]:
            parts += [f"<h3>{escape(MEASURES[measure].label)}</h3>",
                      figure(matrix(findings, measure), MATRIX_CAPTION),
                      figure(intervals(pairs), INTERVALS_CAPTION),
                      figure(distributions(findings, measure), DISTRIBUTIONS_CAPTION)]
    return "".join(parts)


def figure(drawing: str, caption: str) -> str:
    """A drawing or table of HTML with its caption."""
    return (f"<figure><div class='cs-study-wide'>{drawing}</div>"
            f"<figcaption>{caption}</figcaption></figure>")


def _tables(findings: Findings) -> str:
    text = _table(findings.pairs)
    if findings.by_category:
        text += f"<h3>By category of prompts</h3>{_table(findings.by_category)}"
    return text


def _sets(engine: Engine, findings: Findings) -> str:
    """The pictures of each method as a set, where a set of painted pictures is the truth."""
    from pipelines.sets.compare import study_sets
    from pipelines.sets.measures import FEWEST, LABELS

    if not all(request.model_id in CAPTIONED_MODELS for request in findings.study.requests):
        return ""
    count = min((sum(place[0] == number for place in findings.values.runs)
                 for number in range(len(findings.study.methods))), default=0)
    names = [name for name, fewest in FEWEST.items() if count >= fewest]
    head = "<h3>Sets of pictures, against painted ones</h3>"
    if not names:
        return (f"{head}<p class='quiet'>{count} pictures per method: the kernel distance needs "
                f"{FEWEST['kid']}, precision, recall, density, coverage and copies "
                f"{FEWEST['coverage']}.</p>")
    rows = "".join(
        f"<tr><td>{escape(method)}</td><td>{escape(LABELS[value.measure])}</td>"
        f"<td class='number'>{value.value:.3f}</td>"
        f"<td class='number'>{value.low:.3f} to {value.high:.3f}</td></tr>"
        for method, values in study_sets(engine, findings, names) for value in values)
    columns = "".join(f"<th scope='col'>{name}</th>"
                      for name in ("Method", "Measure", "Value", "95 % interval"))
    return (f"{head}<div class='cs-study-wide'><table><thead><tr>{columns}</tr></thead><tbody>"
            f"{rows}</tbody></table></div>")


def _table(pairs: Sequence[Pair]) -> str:
    head = "".join(f"<th scope='col'>{name}</th>" for name in TABLE)
    rows = []
    for pair in pairs:
        name = f"{pair.category}: " if pair.category else ""
        bounds = ("–" if pair.low is None or pair.high is None
                  else f"{pair.low:.4g} to {pair.high:.4g}")
        numbers = (f"{pair.difference:.4g}", bounds, str(pair.n), str(pair.ties),
                   f"{pair.win_rate:.0%}", f"{pair.p_adjusted:.2g}",
                   "yes" if pair.distinguishable else "no",
                   "–" if pair.needed is None else f"{pair.needed:,}")
        cells = "".join(f"<td class='number'>{escape(number)}</td>" for number in numbers)
        rows.append(f"<tr><td>{escape(name + pair.a)} − {escape(pair.b)}</td>"
                    f"<td>{escape(pair.measure)}</td>{cells}</tr>")
    return (f"<div class='cs-study-wide'><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>")


def outlying_pictures(engine: Engine, findings: Findings) -> str:
    """The prompts that stand apart, with both pictures."""
    if not findings.outliers:
        return ""
    parts = []
    for outlier in findings.outliers:
        study = findings.study
        shown = []
        for method in (outlier.a, outlier.b):
            run = findings.values.runs.get((method, outlier.prompt, 0))
            if data := picture_data(engine, run):
                name = escape(study.methods[method])
                shown.append(f"<figure><img alt='{name}' src='data:image/png;base64,"
                             f"{base64.b64encode(data).decode()}'><figcaption>{name}</figcaption>"
                             "</figure>")
        parts.append(f"<h3>{escape(study.prompts[outlier.prompt].text)}</h3><p class='quiet'>"
                     f"{escape(MEASURES[outlier.measure].label)}: {outlier.difference:.3g}, seed "
                     f"{study.seeds[0]} is shown</p><div class='pictures'>{''.join(shown)}</div>")
    return f"<h2>Prompts that stand apart</h2>{''.join(parts)}"


def recipe_section(findings: Findings) -> str:
    """Machine, versions, and what makes the same study again."""
    run = next(iter(findings.values.runs.values()), None)
    environment = run.environment if run else {}
    row = findings.study.row()
    recipe = {name: getattr(row, name) for name in (
        "base", "axes", "skip", "prompts", "seeds", "reference", "measures", "stop_when_decided")}
    machine = [f"{name}: {value}" for name, value in environment.items()]
    return f"{bullets(machine)}<pre>{escape(as_json(recipe))}</pre>"
