"""Which runs of the log are wanted, as conditions of SQL."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    column,
    false,
    func,
    not_,
    or_,
    select,
    table,
    true,
)
from sqlalchemy.orm import Session, aliased

from pipelines.log_tables import LISTED, MEASURE_NUMBERS, SORTED, Distance, Run, Tag, listed_of
from pipelines.run_query import CHOICES, DATES, FLAGS, NUMBERS, Condition, parse_query

COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
           "=": operator.eq}
TEXTS = ("prompt", "negative_prompt")
PIECE = 3  # letters that the full-text index holds together
MOST_PIECES = 2000  # of which a search for fewer letters is put together
FEW = 10_000  # rows of which a list is made
SELECTIVE = 100_000  # rows that are looked up one by one rather than all read

PROMPTS = table("prompts", column("rowid"), column("prompts"))
_terms = table("prompts_terms", column("term"))


@dataclass(frozen=True)
class RunFilter:
    """Which runs of the log; empty fields let all through.

    `text` is looked for in both prompts, as it stands but for capitals; `since` and `until` are ISO
    dates, both included; `where` is a query (run_query.py). Copies of a reused run are left out,
    unless a comparison is asked for; what is in the bin, unless `comparison_id` or the bin is.
    """

    text: str = ""
    model_id: str | None = None
    scheduler: str | None = None
    status: str | None = None
    since: str | None = None
    until: str | None = None
    comparison_id: str | None = None
    where: str = ""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Raises QueryError, a RequestError, where the query cannot be read."""
        conditions = list(parse_query(self.where))
        if self.text:
            conditions.append(Condition("", ((("is", self.text),),)))
        for name in ("model_id", "scheduler", "status", "comparison_id"):
            if (value := getattr(self, name)) is not None:
                conditions.append(Condition(name, ((("=", value),),)))
        days = [(">=", self.since)] if self.since else []
        if self.until:  # before what comes after all times of that day
            days.append(("<", f"{self.until}~"))
        if days:
            conditions.append(Condition("datetime_utc", (tuple(days),)))
        return tuple(conditions)

    def scope(self) -> ColumnElement[bool]:
        """The rows that are asked at all."""
        if self.comparison_id is not None:
            return true()
        asked = {(c.field, bound[0][1]) for c in self.conditions if not c.negated
                 for bound in c.alternatives}
        if ("is", "deleted") in asked:
            return Run.deleted_utc.is_not(None)
        if any(field == "comparison_id" for field, _ in asked):
            return Run.deleted_utc.is_(None)
        return LISTED


class Clauses:
    """The conditions of a filter as SQL, written for the log as it is."""

    def __init__(self, session: Session, run_filter: RunFilter) -> None:
        self._session = session
        self.scope = run_filter.scope()
        self._conditions = run_filter.conditions
        # The run that was really made, which distances and tags are kept under.
        self._source = (Run.id if self.scope is LISTED
                        else func.coalesce(Run.reused_from, Run.id))

    @functools.cached_property
    def match(self) -> str | None:
        """What the full-text index is asked for; None where nothing is."""
        return " AND ".join(f"({match})" for condition in self._conditions
                            if (match := self._pieces(condition)) and not condition.negated) or None

    @functools.cached_property
    def negated_texts(self) -> ColumnElement[bool] | None:
        """That prompts lack the texts that a row must not have, for rows that are looked at; None
        where there are no such texts."""
        clauses = [self._clause(condition) for condition in self._conditions
                   if condition.negated and condition.field in ("", *TEXTS)]
        return and_(*clauses) if clauses else None

    def by_index(
        self, without_match: bool = False, without_negated: bool = False
    ) -> ColumnElement[bool]:
        """For a search of the whole log: texts are looked up in the full-text index, those that
        must be there unless that is done beside, and so are those that must not."""
        clauses = []
        for condition in self._conditions:
            if without_negated and condition.negated and condition.field in ("", *TEXTS):
                continue
            match = self._pieces(condition)
            if not match:
                clauses.append(self._clause(condition, len(condition.alternatives) == 1))
            elif condition.negated:
                clauses.append(Run.id.not_in(_matching(match)))
        if self.match and not without_match:
            clauses.append(Run.id.in_(_matching(self.match)))
        return and_(true(), *clauses)

    def by_row(self) -> ColumnElement[bool]:
        """For rows that are looked at one after the other."""
        return and_(true(), *(self._clause(condition) for condition in self._conditions))

    def _clause(self, condition: Condition, listed: bool = False) -> ColumnElement[bool]:
        clause = or_(*(self._alternative(condition.field, bounds, listed)
                       for bounds in condition.alternatives))
        return not_(func.coalesce(clause, false())) if condition.negated else clause

    def _alternative(
        self, field: str, bounds: Sequence[tuple[str, Any]], listed: bool
    ) -> ColumnElement[bool]:
        """`listed`: an index may make a list of the few runs that fit."""
        relation, value = bounds[0]
        if field == "is":
            if value == "starred":
                other = aliased(Run)
                ids = select(other.id).where(other.starred)
                ids = ids.with_hint(other, "INDEXED BY runs_starred", "sqlite")
                if self._selective(ids):
                    return Run.id.in_(ids)
            return FLAGS[value]
        if field == "tag":
            return self._source.in_(select(Tag.run_id).where(_like_text(Tag.tag, value)))
        if field in MEASURE_NUMBERS:
            return self._measured(field, bounds, listed)
        if field in ("", *TEXTS):
            return or_(*(_contains(getattr(Run, name), value) for name in TEXTS
                         if field in ("", name)))
        clause = self._of_column(field, bounds)
        if self.scope is LISTED and field in SORTED and listed:
            other = aliased(Run)
            ids = select(other.id).where(listed_of(other), self._of_column(field, bounds, other))
            ids = ids.with_hint(other, f"INDEXED BY listed_{field}", "sqlite")
            if self._selective(ids):
                return Run.id.in_(ids)
        return clause

    def _of_column(
        self, field: str, bounds: Sequence[tuple[str, Any]], table: Any = Run
    ) -> ColumnElement[bool]:
        relation, value = bounds[0]
        stored = getattr(table, field)
        if field in NUMBERS and relation == "is":
            return stored.is_(None)
        if field in (*NUMBERS, *DATES):
            return _within(stored, bounds)
        if field in CHOICES:
            return stored == value if relation == "=" else _like_text(stored, value)
        return _contains(stored, value)

    def _selective(self, ids: Select) -> bool:
        """Whether an index gives so few ids that looking each up is less than reading all."""
        counted = select(func.count()).select_from(ids.limit(SELECTIVE + 1).subquery())
        return self._session.scalar(counted) <= SELECTIVE

    def _measured(
        self, name: str, bounds: Sequence[tuple[str, Any]], listed: bool
    ) -> ColumnElement[bool]:
        """Whether a run has such a distance, to whichever reference."""
        distance = aliased(Distance)
        measure = getattr(distance, name)
        if bounds[0] == ("is", ""):
            return ~select(distance.run_id).where(distance.run_id == self._source,
                                                  measure.is_not(None)).exists()
        ids = select(distance.run_id).where(_within(measure, bounds))
        if listed and self._selective(ids):
            return self._source.in_(ids)
        return ids.where(distance.run_id == self._source).exists()

    def _pieces(self, condition: Condition) -> str | None:
        """A condition on prompts as the full-text index understands it; None for others, and where
        it would be put together of too many pieces."""
        if condition.field not in ("", *TEXTS):
            return None
        alternatives = []
        for ((_, text),) in condition.alternatives:
            if "\0" in text:
                continue
            pieces = [text] if len(text) >= PIECE else self._beginning_with(text)
            if len(pieces) > MOST_PIECES:
                return None
            alternatives += pieces
        phrases = " OR ".join('"{}"'.format(piece.replace('"', '""')) for piece in alternatives)
        if not phrases:  # no prompt has these letters
            phrases = '"\x1f\x1f\x1f"'
        return f"{{{condition.field}}} : ({phrases})" if condition.field else phrases

    def _beginning_with(self, text: str) -> list[str]:
        start = text.lower()
        query = select(_terms.c.term).where(_terms.c.term >= start,
                                            _terms.c.term < f"{start}\U0010ffff")
        return list(self._session.scalars(query.limit(MOST_PIECES + 1)))


def _matching(match: str) -> Select:
    return select(PROMPTS.c.rowid).where(PROMPTS.c.prompts.op("MATCH")(match))


def _within(stored: Any, bounds: Sequence[tuple[str, Any]]) -> ColumnElement[bool]:
    return and_(*(COMPARE[relation](stored, value) for relation, value in bounds))


def _like_text(stored: Any, value: str) -> ColumnElement[bool]:
    """Equal to a text in which a star stands for anything."""
    if "*" not in value:
        return stored == value
    return stored.op("GLOB")("*".join(map(_exactly, value.split("*"))))


def _exactly(text: str) -> str:
    """A pattern of GLOB that is this text."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def _contains(stored: Any, text: str) -> ColumnElement[bool]:
    """Whether a text stands in a column, in whichever capitals."""
    pattern = ""
    for letter in text:
        forms = dict.fromkeys(f for f in (letter, letter.lower(), letter.upper()) if len(f) == 1)
        alone = len(forms) == 1 and letter not in "*?["
        pattern += letter if alone else f"[{''.join(forms)}]"
    return stored.op("GLOB")(f"*{pattern}*")
