"""Before a study begins: what it costs, and what it can show."""

from __future__ import annotations

import contextlib
import functools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import select

from pipelines.comparison import Forecast, forecast
from pipelines.errors import RequestError
from pipelines.log_tables import Distance, Run
from pipelines.measuring import converged_request
from pipelines.request import RunRequest
from pipelines.study.design import Study
from pipelines.study.measures import MEASURES
from pipelines.study.statistics import correlation_within, smallest_effect, win_rate_of

if TYPE_CHECKING:
    from pipelines.engine import Engine

ASSUMED_CORRELATION = 0.5  # of the differences of two seeds of one prompt, where nothing is known
ROWS_LOOKED_AT = 20_000
# What is asked for, or only the pipeline knew: no part of a method.
ASKED = {"prompt", "seed", "height", "width", "revision"}
FEWEST_LOGGED = 8  # pairs of the log that a spread is told from


@dataclass(frozen=True)
class Spread:
    """Of the paired differences of two methods in the log: the standard deviation of one pair, how
    alike two seeds of a prompt are (None where the log cannot tell), and from how many pairs."""

    deviation: float
    correlation: float | None
    pairs: int


def cost(engine: Engine, study: Study, with_log: bool = True) -> tuple[Forecast, int]:
    """What is still to be made, the references among it (those that are there already are not
    known of), and how many cells the log has, where it is looked into, which takes the libraries.
    """
    wanted: list[RunRequest] = []
    in_log = 0
    for comparison in study.comparisons:
        there = set(engine.in_log(comparison)) if with_log else set()
        in_log += len(there)
        wanted += [cell.request for number, cell in enumerate(comparison.cells)
                   if not cell.left_out and number not in there]
    if wanted:
        distinct = {}
        for request in study.converged_requests:
            reference = converged_request(_filled_in(engine, request))
            distinct[reference.model_dump_json()] = reference
        wanted += list(distinct.values()) * (len(study.prompts) * len(study.seeds))
    return forecast(wanted, engine.run_log, engine.registry, shared=True), in_log


def outlook(engine: Engine, study: Study) -> list[str]:
    """Sentences that say what the study can show if it is made as planned."""
    prompts, seeds, comparisons = len(study.prompts), len(study.seeds), \
        len(study.pairs) * len(study.measures)
    spreads = spreads_in_log(engine, study)
    told = [s.correlation for s in spreads.values() if s.correlation is not None]
    correlation = max(told) if told else ASSUMED_CORRELATION
    effect = smallest_effect(prompts, seeds, correlation, comparisons)
    alike = (f"differences of two seeds of a prompt correlate by {correlation:.2f} in the log"
             if told else f"differences of two seeds of a prompt are taken to correlate by "
             f"{correlation:g}")
    adjusted = (f"{comparisons} comparisons are adjusted together (Holm)" if comparisons > 1
                else "one comparison is made")
    sentences = [f"With {prompts} prompts × {seeds} seed{'s' * (seeds != 1)} a true win rate of "
                 f"{math.ceil(100 * win_rate_of(effect))} % is found with 80 % probability, "
                 f"where differences are spread about normally; {adjusted}, and {alike}."]
    for name, spread in spreads.items():
        known = MEASURES[name]
        sentences.append(f"In {known.label} that is a difference of "
                         f"{effect * spread.deviation:.2g}{known.unit}, by the spread of "
                         f"{spread.pairs} pairs in the log.")
    if study.stop_when_decided:
        sentences.append("With 'stop when decided' intervals are about half as wide again, and so "
                         "is the difference that is found.")
    return sentences


def spreads_in_log(engine: Engine, study: Study) -> dict[str, Spread]:
    """By measure, the widest spread of any two of the study's methods that the log has measured for
    the same prompts, seeds and references."""
    names = [name for name in study.measures if hasattr(Distance, name)]
    methods = {_method(_filled_in(engine, request)): number
               for number, request in enumerate(study.requests)}
    query = (select(Run.request, Run.prompt, Run.seed, Distance.reference_id,
                    *(getattr(Distance, name) for name in names))
             .join(Distance, Distance.run_id == Run.id)
             .where(Run.model_id.in_({request.model_id for request in study.requests}))
             .order_by(Run.id.desc()).limit(ROWS_LOOKED_AT))
    values: dict[tuple, dict[int, tuple]] = {}

    @functools.cache
    def method_of(logged: str) -> int | None:
        with contextlib.suppress(RequestError):  # of a version that knew other fields
            return methods.get(_method(RunRequest(**json.loads(logged))))
        return None

    with engine.run_log.database.session() as session:
        for request, prompt, seed, reference, *measured in session.execute(query):
            method = method_of(json.dumps(_without_asked(request), sort_keys=True))
            if method is not None:
                values.setdefault((prompt, seed, reference), {}).setdefault(method, measured)
    spreads = {}
    for place, name in enumerate(names):
        found = [spread for a, b in study.pairs if (spread := _spread(values, place, a, b))]
        if found:
            spreads[name] = max(found, key=lambda spread: spread.deviation)
    return spreads


def _spread(values: dict[tuple, dict[int, tuple]], place: int, a: int, b: int) -> Spread | None:
    by_prompt: dict[str, list[float]] = {}
    for (prompt, _, _), measured in values.items():
        if a in measured and b in measured:
            pair = measured[a][place], measured[b][place]
            if None not in pair:
                by_prompt.setdefault(prompt, []).append(pair[0] - pair[1])
    differences = [value for row in by_prompt.values() for value in row]
    if len(differences) < FEWEST_LOGGED:
        return None
    seeds = max(map(len, by_prompt.values()))
    table = [row for row in by_prompt.values() if len(row) == seeds]
    return Spread(float(np.std(differences, ddof=1)), correlation_within(table), len(differences))


def _filled_in(engine: Engine, request: RunRequest) -> RunRequest:
    """With the model's own steps and guidance where they were left open."""
    info = engine.registry.describe(request.model_id, request.revision, request.variant)
    return info.fill_in(request)


def _method(request: RunRequest) -> str:
    """What two pictures of one method have in common, as text."""
    return json.dumps(_without_asked(request.model_dump(mode="json")), sort_keys=True)


def _without_asked(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in ASKED}
