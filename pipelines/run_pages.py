"""Pages of runs, fast in a log of a million: none costs more than one look through an index.

A page begins behind the run that the last one ended with, so that the last page costs what the
first does. Without a filter, an index has the order. With one, the runs that fit are put into a
list if they are few; if they are many, most pages are full after a short walk along the order, and
where that walk ends too soon, the index of all that can be filtered is read to its end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, text, true, tuple_
from sqlalchemy.orm import Session

from pipelines.log_tables import FACTS_INDEX, LISTED, Run
from pipelines.run_filter import FEW, PROMPTS, Clauses, RunFilter

WALK = 5_000  # runs that are looked at along the order
LOOK = 25_000  # runs whose prompts are read one by one, to see what they lack
BATCH = 500  # runs of an export that are in memory at once
BY_FACTS = f"INDEXED BY {FACTS_INDEX.name}"


@dataclass(frozen=True)
class Place:
    """Where a page begins: behind a run, by its value in the sorted column and its id; before it
    with `backwards`. Without a run, at the beginning or, backwards, at the end."""

    value: Any = None
    run_id: int | None = None
    backwards: bool = False


FIRST, LAST = Place(), Place(backwards=True)


@dataclass(frozen=True)
class Page:
    """Runs in order, the places of the pages before and after (None where there is none), and how
    many runs fit in all, exactly or more than that where `more`; None where nobody asked."""

    runs: Sequence[Run]
    before: Place | None
    after: Place | None
    count: int | None
    more: bool = False


def page_of(
    session: Session,
    run_filter: RunFilter,
    fitting: Callable[[], Sequence[int]] | None,
    sort: str,
    ascending: bool,
    place: Place,
    size: int,
) -> tuple[Sequence[Run], bool]:
    """Up to `size` runs from a place on, in the order of the list, and whether there are more that
    way; `fitting()` is what `few` finds, None without conditions."""
    ascending = ascending != place.backwards
    wanted = size + 1
    clauses = Clauses(session, run_filter)

    def ids(query: Select) -> list[int]:
        """Of a query over Run, in order, behind the place."""
        order = _ordered(query, sort, ascending, place)
        numbers: list[int] = []
        for part in order:
            if len(numbers) < wanted:
                numbers += session.scalars(part.limit(wanted - len(numbers))).all()
        return numbers

    by_facts = select(Run.id).where(clauses.scope).with_hint(Run, BY_FACTS, "sqlite")
    if fitting is None:
        numbers = ids(select(Run.id).where(clauses.scope))
    else:
        numbers = _walk(session, clauses, sort, ascending, place, wanted)
        if len(numbers) < wanted:
            if len(few_ids := fitting()) <= FEW:
                numbers = ids(by_facts.where(Run.id.in_(_listed(few_ids))))
            else:
                numbers = ids(by_facts.where(clauses.by_index()))
    more = len(numbers) == wanted
    numbers = numbers[:size]
    runs = {run.id: run for run in session.scalars(select(Run).where(Run.id.in_(numbers)))}
    return [runs[number] for number in (reversed(numbers) if place.backwards else numbers)
            if number in runs], more


def few(session: Session, run_filter: RunFilter) -> Sequence[int]:
    """The ids of the runs that fit, in no order; only FEW + 1 of them where there are more."""
    clauses = Clauses(session, run_filter)
    query = select(Run.id)
    if match := clauses.match:  # the full-text index gives them one after the other
        query = query.select_from(PROMPTS).join(Run, Run.id == PROMPTS.c.rowid)
        query = query.where(PROMPTS.c.prompts.op("MATCH")(match))
    query = query.with_hint(Run, BY_FACTS, "sqlite").where(clauses.scope)
    if (lacking := clauses.negated_texts) is not None:
        # What most prompts have not is told sooner by a look at some rows than by a list of those
        # that have it.
        others = query.where(clauses.by_index(without_match=True, without_negated=True))
        some = session.scalars(others.limit(LOOK)).all()
        looked = session.scalars(
            select(Run.id).where(Run.id.in_(_listed(some)), lacking).limit(FEW + 1)).all()
        if len(looked) > FEW or len(some) < LOOK:
            return looked
    query = query.where(clauses.by_index(without_match=True))
    return session.scalars(query.limit(FEW + 1)).all()


def batches(session_of: Any, run_filter: RunFilter) -> Iterator[Sequence[Run]]:
    """All runs that fit, the newest first, a few at a time."""
    last = None
    while True:
        with session_of() as session:
            clauses = Clauses(session, run_filter)
            query = select(Run.id).where(clauses.scope, clauses.by_row())
            if last is not None:
                query = query.where(Run.id < last)
            query = query.with_hint(Run, BY_FACTS, "sqlite")
            numbers = session.scalars(query.order_by(Run.id.desc()).limit(BATCH)).all()
            runs = session.scalars(
                select(Run).where(Run.id.in_(numbers)).order_by(Run.id.desc())).all()
        if not numbers:
            return
        yield runs
        last = numbers[-1]


def distinct_values(session: Session, name: str) -> list[Any]:
    """The values of a sorted column, each found by a step in its index."""
    column = getattr(Run, name)
    values: list[Any] = []
    query = select(func.min(column)).where(LISTED)
    value = session.scalar(query)
    while value is not None:
        values.append(value)
        value = session.scalar(query.where(column > value))
    return values


def _ordered(
    query: Select, sort: str, ascending: bool, place: Place
) -> Iterator[Select]:
    """A query in order behind a place; in two parts where a column may be empty, since SQL compares
    nothing with NULL. Empty ones come first, as SQLite sorts them."""
    column = getattr(Run, sort)
    order = (lambda c: c.asc()) if ascending else (lambda c: c.desc())
    if sort == "id":
        behind = true() if place.run_id is None else _behind(Run.id, place.run_id, ascending)
        yield query.where(behind).order_by(order(Run.id))
        return
    nullable = Run.__table__.columns[sort].nullable
    for empty in ((True, False) if ascending else (False, True)) if nullable else (False,):
        part = query.order_by(order(Run.id)) if empty else query.order_by(order(column),
                                                                         order(Run.id))
        if nullable:
            part = part.where(column.is_(None) if empty else column.is_not(None))
        if place.run_id is not None:
            at_empty = nullable and place.value is None
            if at_empty == empty and empty:
                part = part.where(_behind(Run.id, place.run_id, ascending))
            elif at_empty == empty:
                part = part.where(_behind(tuple_(column, Run.id),
                                          tuple_(place.value, place.run_id), ascending))
            elif at_empty != ascending:  # this part comes before the place
                continue
        yield part


def _behind(left: Any, right: Any, ascending: bool) -> ColumnElement[bool]:
    return left > right if ascending else left < right


def _walk(
    session: Session, clauses: Clauses, sort: str, ascending: bool,
    place: Place, size: int,
) -> list[int]:
    """The first runs that fit among WALK along the order; fewer than asked where they are none."""
    numbers: list[int] = []
    for part in _ordered(select(Run.id).where(clauses.scope), sort, ascending, place):
        near = part.limit(WALK).subquery()
        query = select(near.c.id).select_from(near).join(Run, Run.id == near.c.id)
        query = query.with_hint(Run, BY_FACTS, "sqlite").where(clauses.by_row())
        numbers += session.scalars(query.limit(size - len(numbers))).all()
        if len(numbers) == size or session.scalar(
                select(func.count()).select_from(near)) == WALK:
            break
    return numbers


def _listed(numbers: Sequence[int]) -> Select:
    """The ids as a table of SQL."""
    return select(text("value")).select_from(
        func.json_each(json.dumps(list(numbers))).table_valued("value"))


