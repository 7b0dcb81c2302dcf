"""What a voter is shown, ballot by ballot, and what becomes of the answers.

A ballot is drawn when it is asked for, by chance among those that had the fewest answers by then,
so that voters who leave early leave no gaps. Each transaction shuts out other writers first:
thirty voters at once, or one voter in two tabs, get no ballot twice and lose no answer.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipelines.errors import RequestError
from pipelines.log_tables import utc_now
from pipelines.votes.design import SHARED_SHARE, Item, items_of, length_of, specials
from pipelines.votes.pictures import ballot_pictures
from pipelines.votes.rows import (
    EQUAL,
    GONE,
    NEW,
    PLACES,
    REPEAT,
    SHARED,
    SKIP,
    TIE,
    BallotRow,
    VoteRow,
    vote_row,
)

if TYPE_CHECKING:
    from pipelines.engine import Engine
    from pipelines.run_log import RunLog

CHANCE = random.SystemRandom()
APART = 2  # ballots between one and its repeat, where there are so many


@dataclass(frozen=True)
class Ballot:
    """What one voter sees now. `pictures` are PNGs that hold pixels and nothing else, from the left
    or the top. It is the ballot `number` (from 1) of `total`. `left_out`: of the voter's ballots so
    far, those that lacked a picture."""

    id: str
    number: int
    total: int
    question: str
    prompt: str | None
    pictures: tuple[bytes, ...]
    size: tuple[int, int]
    left_out: int


@dataclass(frozen=True)
class Done:
    """The voter has no further ballot: all `answered` are, or the vote was `closed`."""

    answered: int
    left_out: int
    closed: bool


def voter_of(vote: VoteRow, browser: str) -> str:
    """The name of a browser's voter in one vote, from which nobody can tell the browser."""
    return hashlib.sha256(f"{vote.secret}.{browser}".encode()).hexdigest()[:16]


def next_ballot(engine: Engine, vote_id: str, browser: str,
                chance: random.Random = CHANCE) -> Ballot | Done:
    """The ballot that a browser's voter has to answer: the one on show, else a new one. Those that
    lack a picture are marked so, and passed over. Raises RequestError for an unknown vote."""
    vote = vote_row(engine.run_log, vote_id)
    voter = voter_of(vote, browser)
    while True:
        with engine.run_log.database.session() as session:
            rows = _rows_of(session, vote_id, voter)
        left_out = sum(row.answer == GONE for row in rows)
        answered = sum(row.answer not in (None, GONE) for row in rows)
        if vote.revealed_utc:
            return Done(answered, left_out, True)
        row = _open(rows) or _draw(engine.run_log, vote, voter, chance)
        if row is None:
            return Done(answered, left_out, False)
        pictures = ballot_pictures(engine, vote, row)
        if pictures:
            prompt = vote.scenes[row.scene]["prompt"] if vote.shows_prompt else None
            return Ballot(row.id, row.position + 1, length_of(vote), vote.question, prompt or None,
                          pictures.files, pictures.size, left_out)
        answer(engine.run_log, vote_id, browser, row.id, GONE)


def answer(run_log: RunLog, vote_id: str, browser: str, ballot_id: str, given: str) -> bool:
    """Keep a voter's answer; whether it was the first to this ballot, which alone counts. `given`:
    '1' to '4' by place, 'tie' or 'skip'. Raises RequestError."""
    vote = vote_row(run_log, vote_id)
    accepted = (*PLACES[:vote.pictures], TIE, SKIP)
    if given not in (*accepted, GONE):
        raise RequestError(f"answer: received {given!r:.40}, accepted {', '.join(accepted)}")
    still_open = select(VoteRow.id).where(VoteRow.revealed_utc.is_(None))
    with run_log.database.session(write=True) as session:
        changed = session.execute(update(BallotRow).where(
            BallotRow.id == ballot_id, BallotRow.vote_id == vote_id,
            BallotRow.voter == voter_of(vote, browser), BallotRow.answer.is_(None),
            BallotRow.vote_id.in_(still_open)).values(answer=given, answered_utc=utc_now()))
    return changed.rowcount > 0


def take_back(run_log: RunLog, vote_id: str, browser: str) -> bool:
    """Open the ballot that a voter answered last again; whether there was one."""
    vote = vote_row(run_log, vote_id)
    if vote.revealed_utc:
        return False
    voter = voter_of(vote, browser)
    with run_log.database.session(write=True) as session:
        _shut_out(session, vote_id)
        last = session.scalar(
            select(BallotRow).where(BallotRow.vote_id == vote_id, BallotRow.voter == voter,
                                    BallotRow.answer.is_not(None), BallotRow.answer != GONE)
            .order_by(BallotRow.position.desc()).limit(1))
        if last is not None:
            last.answer = last.answered_utc = None
    return last is not None


def _draw(run_log: RunLog, vote: VoteRow, voter: str, chance: random.Random) -> BallotRow | None:
    """A voter's next ballot, put into the log; None where there is none left."""
    with run_log.database.session(write=True) as session:
        _shut_out(session, vote.id)
        rows = _rows_of(session, vote.id, voter)
        if (row := _open(rows)) is not None:  # another tab was faster
            return row
        kinds, position = plan(vote, voter), rows[-1].position + 1 if rows else 0
        if position >= len(kinds):
            return None
        chosen = _choose(session, vote, voter, rows, kinds[position], chance)
        if chosen is None:
            return None
        kind, scene, methods, repeat_of = chosen
        row = BallotRow(
            id=secrets.token_hex(8), vote_id=vote.id, voter=voter, position=position, kind=kind,
            repeat_of=repeat_of, scene=scene, methods=chance.sample(methods, len(methods)),
            datetime_utc=utc_now())
        session.add(row)
    return row


def plan(vote: VoteRow, voter: str) -> list[str]:
    """The kinds of a voter's ballots in order: repeats are in the second half."""
    chance = random.Random(f"{vote.secret}.{voter}")
    length = length_of(vote)
    equal, repeats = specials(length)
    kinds = [EQUAL] * equal + [SHARED] * int((length - equal - repeats) * SHARED_SHARE + 0.5)
    kinds += [NEW] * (length - repeats - len(kinds))
    chance.shuffle(kinds)
    for _ in range(repeats):
        kinds.insert(chance.randint((len(kinds) + 1) // 2, len(kinds)), REPEAT)
    return kinds


def _choose(
    session: Session, vote: VoteRow, voter: str, rows: Sequence[BallotRow], kind: str,
    chance: random.Random,
) -> tuple[str, int, list[int], str | None] | None:
    """Kind, scene, methods, and the ballot that is repeated."""
    repeated = {row.repeat_of for row in rows}
    answered = [row for row in rows if row.kind in (NEW, SHARED) and row.id not in repeated
                and row.answer not in (None, SKIP, GONE)]
    if kind == REPEAT and answered:
        earlier = [row for row in answered if row.position < len(rows) - APART]
        row = chance.choice(earlier or answered)
        return REPEAT, row.scene, row.methods, row.id
    items = items_of(vote)
    if kind == EQUAL:
        scene, methods = chance.choice(items)
        return EQUAL, scene, [chance.choice(methods)] * len(methods), None
    seen = {_item(row) for row in rows if row.kind in (NEW, SHARED)}
    unseen = [item for item in items if item not in seen]
    if not unseen:
        return None
    others = Counter(_item(row) for row in _answered_by_others(session, vote.id, voter))
    if kind == SHARED and (common := [item for item in unseen if others[item]]):
        return SHARED, *_fewest(common, others, chance), None
    return NEW, *_fewest(unseen, others, chance), None


def _fewest(items: Sequence[Item], answers: Counter[Item],
            chance: random.Random) -> tuple[int, list[int]]:
    """By chance one of the items whose methods, and then whose scene, had the fewest answers."""
    pairs: Counter[tuple[int, ...]] = Counter()
    scenes: Counter[int] = Counter()
    for (scene, methods), count in answers.items():
        scenes[scene] += count
        for pair in combinations(methods, 2):
            pairs[pair] += count
    ranks = [(answers[item], sum(pairs[pair] for pair in combinations(item[1], 2)),
              scenes[item[0]]) for item in items]
    least = min(ranks)
    scene, methods = chance.choice([item for item, rank in zip(items, ranks, strict=True)
                                    if rank == least])
    return scene, list(methods)


def _open(rows: Sequence[BallotRow]) -> BallotRow | None:
    """The first that waits for an answer."""
    return next((row for row in rows if row.answer is None and not row.damage), None)


def _item(row: BallotRow) -> Item:
    return row.scene, tuple(sorted(row.methods))


def _shut_out(session: Session, vote_id: str) -> None:
    """From now on nobody else can write."""
    session.execute(update(VoteRow).where(VoteRow.id == vote_id).values(owner=VoteRow.owner))


def _rows_of(session: Session, vote_id: str, voter: str) -> Sequence[BallotRow]:
    return session.scalars(select(BallotRow).where(
        BallotRow.vote_id == vote_id, BallotRow.voter == voter).order_by(BallotRow.position)).all()


def _answered_by_others(session: Session, vote_id: str, voter: str) -> Sequence[BallotRow]:
    rows = session.scalars(select(BallotRow).where(
        BallotRow.vote_id == vote_id, BallotRow.voter != voter, BallotRow.kind.in_((NEW, SHARED)),
        BallotRow.answer.in_((*PLACES, TIE)))).all()
    return [row for row in rows if not row.damage]
