"""What people add to the runs of the log: stars, tags and remarks; and the bin.

A run in the bin is left out of lists. Its comparison shows it until the bin is emptied; then its
row goes, and those of its files that no other row names.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.orm import Session

from pipelines.errors import RequestError
from pipelines.fields import PICTURES
from pipelines.job_log import GO_ON
from pipelines.log_tables import Distance, Run, Tag, Timing, UserMeasure, utc_now
from pipelines.run_log import RunLog
from pipelines.stores import Store

if TYPE_CHECKING:
    from pipelines.engine import Engine

LONGEST_TAG = 60
FILES = ("image_sha256", "steps_sha256", "latents_sha256")
AT_ONCE = 500  # rows of a statement
FILES_AT_ONCE = 5000  # that are removed while nobody else can write
# What was measured of runs, by columns that name them.
OF_RUNS = (Timing.run_id, Distance.run_id, Distance.reference_id, UserMeasure.run_id,
           UserMeasure.reference_id)

Item = TypeVar("Item")


class RunMarks:
    """Changes and reads the marks of a log's runs."""

    def __init__(self, run_log: RunLog) -> None:
        self._session = run_log.database.session

    def star(self, run_ids: Collection[int], starred: bool = True) -> None:
        self._set(run_ids, starred=starred)

    def remark(self, run_id: int, words: str) -> None:
        self._set([run_id], remark=words.strip())

    def tag(self, run_ids: Collection[int], tag: str) -> None:
        """Give runs a tag; raises RequestError where it is empty or long."""
        tag = check_tag(tag)
        rows = [{"run_id": run_id, "tag": tag} for run_id in run_ids]
        if rows:
            with self._session(write=True) as session:
                session.execute(insert(Tag).prefix_with("OR IGNORE"), rows)

    def untag(self, run_ids: Collection[int], tag: str) -> None:
        with self._session(write=True) as session:
            for some in _some(run_ids):
                session.execute(delete(Tag).where(Tag.tag == tag, Tag.run_id.in_(some)))

    def tags(self, run_ids: Collection[int]) -> dict[int, list[str]]:
        """The tags of runs, sorted, by the runs that have any."""
        tags: dict[int, list[str]] = {}
        with self._session() as session:
            for some in _some(run_ids):
                query = select(Tag.run_id, Tag.tag).where(Tag.run_id.in_(some))
                for run_id, tag in session.execute(query.order_by(Tag.tag)):
                    tags.setdefault(run_id, []).append(tag)
        return tags

    def delete(self, run_ids: Collection[int]) -> None:
        """Put runs into the bin."""
        self._set(run_ids, deleted_utc=utc_now())

    def bring_back(self, run_ids: Collection[int] | None = None) -> None:
        """Take runs out of the bin; None for all of them."""
        self._set(self.deleted() if run_ids is None else run_ids, deleted_utc=None)

    def deleted(self) -> list[int]:
        """The runs in the bin."""
        with self._session() as session:
            return list(session.scalars(select(Run.id).where(Run.deleted_utc.is_not(None))))

    def _set(self, run_ids: Collection[int], **columns: Any) -> None:
        with self._session(write=True) as session:
            for some in _some(run_ids):
                session.execute(update(Run).where(Run.id.in_(some)).values(**columns))


def check_tag(tag: str) -> str:
    """A tag without blanks too many; raises RequestError where it is empty or long."""
    tag = " ".join(tag.split())
    if not 0 < len(tag) <= LONGEST_TAG:
        raise RequestError(f"tag: received {tag[:80]!r}, accepted 1 to {LONGEST_TAG} characters")
    return tag


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """What runs were asked for that is not the same in all of them: field -> a value for each."""
    requests = [run.request for run in runs]
    names = dict.fromkeys(name for request in requests for name in request)
    values = {name: [request.get(name) for request in requests] for name in names}
    return {name: column for name, column in values.items()
            if any(value != column[0] for value in column)}


def bin_files(engine: Engine) -> list[tuple[Store, str, int]]:
    """The files that go when the bin is emptied: where each lies, its name and its bytes."""
    with engine.run_log.database.session() as session:
        return _files(session, engine)


def empty_bin(engine: Engine) -> int:
    """Remove the runs in the bin for good; how many bytes of files went with them."""
    session_of = engine.run_log.database.session
    with session_of(write=True) as session:
        going = list(session.scalars(select(Run.id).where(Run.deleted_utc.is_not(None))))
        files = _files(session, engine)
        for run_id in going:
            _hand_on(session, run_id)
        for some in _some(going):
            session.execute(update(Run).where(Run.parent_id.in_(some)).values(parent_id=None))
            for column in (Tag.run_id, *OF_RUNS):
                session.execute(delete(column.class_).where(column.in_(some)))
            session.execute(delete(Run).where(Run.id.in_(some)))
    # After the rows: what is left over is found by the doctor. A job may have come to name a file
    # since then; whoever adds a row looks for its files once nobody else can write (RunLog.add).
    freed = 0
    for some in _some(files, FILES_AT_ONCE):
        with session_of(write=True) as session:
            named = named_files(session, [name for _, name, _ in some])
            for store, name, size in some:
                if name not in named:
                    store.remove(name)
                    freed += size
    return freed


def _hand_on(session: Session, run_id: int) -> None:
    """Make the oldest copy of a run, in another comparison, the one that was made."""
    copies = select(Run.id).where(Run.reused_from == run_id)
    heir = session.scalar(select(func.min(Run.id)).where(
        Run.id.in_(copies), Run.deleted_utc.is_(None)))
    if heir is None:
        session.execute(update(Run).where(Run.reused_from == run_id).values(reused_from=None))
        return
    session.execute(update(Run).where(Run.id == heir).values(reused_from=None))
    session.execute(update(Run).where(Run.reused_from == run_id).values(reused_from=heir))
    for column in OF_RUNS:
        session.execute(update(column.class_).prefix_with("OR REPLACE").where(
            column == run_id).values({column.key: heir}))


def _files(session: Session, engine: Engine) -> list[tuple[Store, str, int]]:
    stores = {"image_sha256": engine.pictures, "steps_sha256": engine.pictures,
              "latents_sha256": engine.latents}
    going: dict[str, Store] = {}
    rows = select(*(getattr(Run, name) for name in FILES))
    for row in session.execute(rows.where(Run.deleted_utc.is_not(None))):
        going |= {sha: stores[name] for name, sha in zip(FILES, row, strict=True) if sha}
    named = named_files(session, list(going), "deleted_utc IS NULL")
    return [(store, name, size) for name, store in going.items()
            if name not in named and (size := store.bytes_of(name)) is not None]


def named_files(session: Session, names: Sequence[str], where: str = "true") -> set[str]:
    """Those of these files that a run names, as what it made or started from, or what has not been
    made yet: a comparison's base, or a job that has not ended. `where`: which runs count."""
    if not names:
        return set()
    rows = (
        [f"SELECT {name} FROM runs WHERE {where} AND {name} IN asked" for name in FILES]
        + [f"SELECT json_extract(request, '$.{name}') FROM runs WHERE {where} "
           "AND task IN ('image-to-image', 'inpainting') AND json_valid(request) "
           f"AND json_extract(request, '$.{name}') IN asked" for name in PICTURES]
        + [f"SELECT json_extract(base, '$.{name}') FROM comparisons WHERE json_valid(base) "
           f"AND json_extract(base, '$.{name}') IN asked" for name in PICTURES]
        + ["SELECT name FROM asked, jobs WHERE jobs.status IN "
           f"({', '.join(map(repr, GO_ON))}) AND instr(jobs.settings, name)"])
    query = "WITH asked AS (SELECT value AS name FROM json_each(:names)) " + " UNION ".join(rows)
    return set(session.scalars(text(query), {"names": json.dumps(list(names))}))


def _some(items: Iterable[Item], at_once: int = AT_ONCE) -> Iterator[tuple[Item, ...]]:
    """Numbers, or others, in parts that a statement takes."""
    parts = iter(items)
    while part := tuple(itertools.islice(parts, at_once)):
        yield part
