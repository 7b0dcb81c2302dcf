"""Making a vote, and the ballots that it can have."""

from __future__ import annotations

import functools
import itertools
import math
import random
import secrets
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.errors import RequestError
from pipelines.log_tables import Run, utc_now
from pipelines.votes.rows import SOURCES, VoteRow
from pipelines.votes.scenes import source_of

if TYPE_CHECKING:
    from pipelines.engine import Engine

PROMPT, LOOKS = "prompt", "looks"
# Questions that come with the program. That of looks hides the prompt, which would bias it.
QUESTIONS = {PROMPT: "Which picture is closer to the prompt?",
             LOOKS: "Which picture looks better?"}
LONGEST_QUESTION = 200
FEWEST_METHODS, MOST_METHODS = 2, 64
MOST_SCENES = 500
MOST_BALLOTS = 500
MOST_ITEMS = 5000
# Of the ballots of a voter: one picture in all places, and one of the voter's own again.
EQUAL_SHARE = REPEAT_SHARE = 0.1
# Of those that are left, the share that another voter had, too.
SHARED_SHARE = 0.25

Item = tuple[int, tuple[int, ...]]  # a scene and the methods on a ballot, in ascending order


def new_vote(
    engine: Engine,
    source: str,
    source_id: str,
    question: str = PROMPT,
    pictures: int = 2,
    ballots: int = 30,
    owner: str = "",
) -> VoteRow:
    """Make a vote from the pictures of a study or comparison of the log, and keep it there.

    `question`: 'prompt', 'looks' or a text of one's own. `pictures` on a ballot: 2, or 4 for the
    best of four. `ballots` for each voter, 1 to 500. Raises RequestError.
    """
    if source not in SOURCES:
        raise RequestError(f"source: received {source!r}, accepted {' or '.join(SOURCES)}")
    question = question.strip()
    if not 0 < len(question) <= LONGEST_QUESTION:
        raise RequestError(f"question: received {len(question)} characters, accepted "
                           f"{', '.join(QUESTIONS)}, or a text of 1 to {LONGEST_QUESTION}")
    if pictures not in (2, 4):
        raise RequestError(f"pictures: received {pictures}, accepted 2 or 4")
    if not 0 < ballots <= MOST_BALLOTS:
        raise RequestError(f"ballots: received {ballots}, accepted 1 to {MOST_BALLOTS}")
    found = source_of(engine, source, source_id)
    if not FEWEST_METHODS <= len(found.methods) <= MOST_METHODS:
        raise RequestError(f"{source} {source_id}: received {len(found.methods)} methods (what "
                           "differs but for prompt and seed), accepted "
                           f"{FEWEST_METHODS} to {MOST_METHODS}")
    secret = secrets.token_hex(16)
    scenes = [scene for scene in found.scenes if sum(map(_usable, scene.runs)) >= pictures]
    if not scenes:
        raise RequestError(f"{source} {source_id}: no prompt and seed has {pictures} pictures or "
                           "more to choose from" + (", accepted with 2 pictures on a ballot"
                                                    if pictures > 2 else ""))
    if len(scenes) > MOST_SCENES:
        scenes = random.Random(secret).sample(scenes, MOST_SCENES)
    row = VoteRow(
        id=uuid.uuid4().hex[:12], datetime_utc=utc_now(), owner=owner, source=source,
        source_id=source_id, question=QUESTIONS.get(question, question),
        shows_prompt=question != LOOKS, pictures=pictures, ballots=ballots,
        methods=list(found.methods), secret=secret,
        scenes=[{"prompt": scene.prompt, "seed": scene.seed,
                 "runs": [run.id if _usable(run) else None for run in scene.runs]}
                for scene in scenes])
    engine.run_log.add(row)
    return row


def _usable(run: Run | None) -> bool:
    return run is not None and run.deleted_utc is None


def items_of(vote: VoteRow) -> Sequence[Item]:
    """Every ballot that a vote can have, without its order; where there would be more than 5,000,
    a sample of so many."""
    return _items(vote.id, vote.pictures, vote.secret, tuple(
        tuple(n for n, run in enumerate(scene["runs"]) if run is not None)
        for scene in vote.scenes))


@functools.lru_cache(8)
def _items(
    _id: str, pictures: int, secret: str, there: tuple[tuple[int, ...], ...]
) -> Sequence[Item]:
    chance = random.Random(secret)
    if sum(math.comb(len(methods), pictures) for methods in there) <= 20 * MOST_ITEMS:
        items = [(scene, chosen) for scene, methods in enumerate(there)
                 for chosen in itertools.combinations(methods, pictures)]
        return items if len(items) <= MOST_ITEMS else sorted(chance.sample(items, MOST_ITEMS))
    drawn = set()
    for _ in range(4 * MOST_ITEMS):  # few are drawn twice, and then there are some fewer
        scene = chance.randrange(len(there))
        drawn.add((scene, tuple(sorted(chance.sample(there[scene], pictures)))))
        if len(drawn) == MOST_ITEMS:
            break
    return sorted(drawn)


def length_of(vote: VoteRow) -> int:
    """How many ballots a voter sees: fewer than were asked for where there are not so many."""
    items, length = len(items_of(vote)), vote.ballots
    while length - sum(specials(length)) > items:
        length -= 1
    return length


def specials(length: int) -> tuple[int, int]:
    """How many of so many ballots have equal pictures, and how many are repeats."""
    return int(length * EQUAL_SHARE + 0.5), int(length * REPEAT_SHARE + 0.5)
