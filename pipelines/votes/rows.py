"""Votes and their ballots in the log of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ForeignKey, Index, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from pipelines.checked_rows import checked
from pipelines.errors import RequestError
from pipelines.log_tables import Base, utc_now
from pipelines.run_log import RunLog

STUDY, COMPARISON = "study", "comparison"
SOURCES = (STUDY, COMPARISON)
TIE, SKIP, GONE = "tie", "skip", "gone"
PLACES = ("1", "2", "3", "4")  # from the left, or from the top
ANSWERS = (*PLACES, TIE, SKIP, GONE)
NEW, SHARED, EQUAL, REPEAT = "new", "shared", "equal", "repeat"
KINDS = (NEW, SHARED, EQUAL, REPEAT)


@checked
class VoteRow(Base):
    """A vote over the pictures of a study or a comparison, which `source` and `source_id` name.

    `owner` is the browser that made it, '' the command line. A ballot shows 2 or 4 `pictures`, a
    voter sees up to so many `ballots`. `scenes` are what is painted, a list of {prompt, seed, runs}
    with the id of a run for each of the `methods`, None where there is none. `secret` makes the
    name of a voter from that of a browser. Results are shown since `revealed_utc`.
    """

    __tablename__ = "votes"

    id: Mapped[str] = mapped_column(primary_key=True)
    datetime_utc: Mapped[str]
    owner: Mapped[str] = mapped_column(default="")
    source: Mapped[str]
    source_id: Mapped[str]
    question: Mapped[str]
    shows_prompt: Mapped[bool]
    pictures: Mapped[int]
    ballots: Mapped[int]
    methods: Mapped[list[str]]
    scenes: Mapped[list[dict[str, Any]]]
    secret: Mapped[str]
    revealed_utc: Mapped[str | None] = mapped_column(default=None)

    def contradictions(self) -> list[str]:
        count = len(self.methods)
        whole = self.source in SOURCES and self.pictures in (2, 4) and all(
            isinstance(scene.get("prompt"), str) and isinstance(scene.get("seed"), int)
            and isinstance(runs := scene.get("runs"), list) and len(runs) == count
            and all(run is None or isinstance(run, int) for run in runs) for scene in self.scenes)
        return [] if whole else ["scenes: accepted a prompt, a seed and a run for each method"]


@checked
class BallotRow(Base):
    """Pictures of one scene that a voter was shown, and the answer.

    `methods` are the numbers of the methods as they stood, from the left or the top. `kind`: new,
    shared (another voter had the same), equal (one picture in all places) or repeat (of another
    ballot of this voter). `answer`: a place, tie, skip, or gone where a picture was missing; None
    while there is none.
    """

    __tablename__ = "ballots"

    id: Mapped[str] = mapped_column(primary_key=True)
    vote_id: Mapped[str] = mapped_column(ForeignKey("votes.id"))
    voter: Mapped[str]
    position: Mapped[int]
    kind: Mapped[str]
    repeat_of: Mapped[str | None] = mapped_column(default=None)
    scene: Mapped[int]
    methods: Mapped[list[int]]
    datetime_utc: Mapped[str]
    answer: Mapped[str | None] = mapped_column(default=None)
    answered_utc: Mapped[str | None] = mapped_column(default=None)

    def contradictions(self) -> list[str]:
        return [f"{name}: received {getattr(self, name)!r:.80}, accepted {', '.join(accepted)}"
                for name, accepted in (("answer", ANSWERS), ("kind", KINDS))
                if getattr(self, name) not in (None, *accepted)]


Index("ballots_position", BallotRow.vote_id, BallotRow.voter, BallotRow.position, unique=True)


@dataclass(frozen=True)
class Count:
    """What may be told of a vote before its results: `answers` are choices and ties of `voters`,
    `skipped` ballots were left by a voter, `gone` ones lacked a picture."""

    voters: int = 0
    answers: int = 0
    skipped: int = 0
    gone: int = 0


def vote_rows(run_log: RunLog, limit: int = 50) -> Sequence[VoteRow]:
    """The newest first."""
    query = select(VoteRow).order_by(VoteRow.datetime_utc.desc()).limit(limit)
    with run_log.database.session() as session:
        return session.scalars(query).all()


def vote_row(run_log: RunLog, vote_id: str) -> VoteRow:
    """A vote of the log; RequestError where there is none, or none that can be read."""
    with run_log.database.session() as session:
        row = session.get(VoteRow, vote_id)
    if row is None:
        newest = ", ".join(row.id for row in vote_rows(run_log, 3)) or "none yet"
        raise RequestError(f"vote {vote_id} is not in the log of this machine, which holds "
                           f"{newest}")
    if row.damage:
        raise RequestError(f"vote {vote_id}: {row.damage}")
    return row


def ballot_rows(run_log: RunLog, vote_id: str) -> Sequence[BallotRow]:
    """All that were answered and can be read, in the order of the answers."""
    query = select(BallotRow).where(BallotRow.vote_id == vote_id, BallotRow.answer.is_not(None))
    with run_log.database.session() as session:
        rows = session.scalars(query.order_by(BallotRow.answered_utc, BallotRow.id)).all()
    return [row for row in rows if not row.damage]


def counts(run_log: RunLog, vote_ids: Sequence[str]) -> dict[str, Count]:
    """How many voted in each of these, and how often."""
    is_answer = BallotRow.answer.in_((*PLACES, TIE))
    query = select(
        BallotRow.vote_id, func.count(BallotRow.voter.distinct()).filter(is_answer),
        *(func.count().filter(wanted) for wanted in (
            is_answer, BallotRow.answer == SKIP, BallotRow.answer == GONE)),
    ).where(BallotRow.vote_id.in_(vote_ids)).group_by(BallotRow.vote_id)
    with run_log.database.session() as session:
        counted = {vote_id: Count(*numbers) for vote_id, *numbers in session.execute(query)}
    return {vote_id: counted.get(vote_id, Count()) for vote_id in vote_ids}


def reveal(run_log: RunLog, vote_id: str, owner: str | None) -> VoteRow:
    """Close a vote and let its results be shown. `owner`: the browser that asks, None where it is
    who owns this machine. RequestError for another's vote."""
    row = vote_row(run_log, vote_id)
    if owner is not None and row.owner != owner:
        maker = "by another browser" if row.owner else "on the command line"
        raise RequestError(f"vote {vote_id} was made {maker}, where its results can be revealed; "
                           "on the command line of this machine: python -m pipelines votes reveal "
                           f"{vote_id}")
    with run_log.database.session(write=True) as session:
        session.execute(update(VoteRow).where(
            VoteRow.id == vote_id, VoteRow.revealed_utc.is_(None)).values(revealed_utc=utc_now()))
    return vote_row(run_log, vote_id)
