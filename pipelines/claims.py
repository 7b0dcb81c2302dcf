"""Who makes which picture, so that no two make the same one at the same time.

Whoever begins to make pictures claims their identities in the log. A claim counts while its owner
is there (presence.py). Claims are taken all at once, and given up before somebody waits for
others': nobody waits in a circle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import TypeVar

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from pipelines.log_tables import Claim, utc_now
from pipelines.presence import Presence, is_there
from pipelines.run_log import RunLog

POLL_SECONDS = 0.2

Key = TypeVar("Key", bound=Hashable)


def make_once(
    run_log: RunLog,
    identities: Mapping[Key, str],
    look: Callable[[], list[Key]],
    make: Callable[[list[Key]], None],
    check: Callable[[], None] | None = None,
    on_wait: Callable[[int], None] | None = None,
    wait: bool = True,
    presence: Presence | None = None,
) -> None:
    """Make what is missing; what somebody else makes at the same time is waited for instead.

    `look()` takes from the log what is there and gives what is missing, `make(some of it)` makes
    and logs it. `identities` of what is missing; what has none is made without asking. What another
    ends without having made is made here. `on_wait(how many)` is told before each wait, during
    which `check` may raise Cancelled. Without `wait` all is made here, claimed where it is free.
    """
    missing = look()
    if not missing:
        return
    with Claims(run_log, presence) as claims:
        while missing:
            claims.take(identities[key] for key in missing if key in identities)
            version = run_log.version()
            missing = look()  # again: until now another could have logged it
            free = [key for key in missing
                    if not wait or identities.get(key) in {None, *claims.held}]
            if free:
                make(free)
                claims.drop()
                missing = look()
            elif missing:
                if on_wait:
                    on_wait(len(missing))
                wanted = {identities[key] for key in missing}
                while run_log.version() == version and not claims.can_take(wanted):
                    if check:
                        check()
                    time.sleep(POLL_SECONDS)


def waiting_text(cells: int) -> str:
    """What `on_wait` tells people."""
    return f"another process makes {cells} of them"


class Claims:
    """What one piece of work has claimed; given up at the end of its `with` block. `presence` is
    the work's, where it shows one already."""

    def __init__(self, run_log: RunLog, presence: Presence | None = None) -> None:
        self.held: frozenset[str] = frozenset()
        self._session = run_log.database.session
        self._home = run_log.path.parent
        self._presence = presence or Presence(self._home)
        self._own_presence = presence is None
        self._owner = self._presence.owner

    def __enter__(self) -> Claims:
        if self._own_presence:
            self._presence.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.drop()
        finally:  # claims that stay behind end with the lock
            if self._own_presence:
                self._presence.__exit__()

    def take(self, identities: Iterable[str]) -> None:
        """Claim those that nobody holds who is still there."""
        wanted = set(identities)
        if not wanted:
            return
        gone = [owner for owner in set(self._owners(wanted).values()) if not self._is_there(owner)]
        rows = [{"identity": identity, "owner": self._owner, "datetime_utc": utc_now()}
                for identity in wanted]
        with self._session(write=True) as session:  # its first statement shuts out other writers
            session.execute(delete(Claim).where(Claim.owner.in_(gone)))
            session.execute(insert(Claim).on_conflict_do_nothing(), rows)
            self.held = frozenset(session.scalars(
                select(Claim.identity).where(Claim.owner == self._owner)))

    def drop(self) -> None:
        """Give up all claims."""
        if self.held:
            with self._session(write=True) as session:
                session.execute(delete(Claim).where(Claim.owner == self._owner))
            self.held = frozenset()

    def can_take(self, identities: Collection[str]) -> bool:
        """Whether one of these is held by nobody, or by somebody who has gone."""
        owners = self._owners(identities)
        return len(owners) < len(identities) or not all(map(self._is_there, set(owners.values())))

    def _owners(self, identities: Collection[str]) -> dict[str, str]:
        query = select(Claim.identity, Claim.owner).where(Claim.identity.in_(identities))
        with self._session() as session:
            return dict(session.execute(query).all())

    def _is_there(self, owner: str) -> bool:
        return is_there(self._home, owner)
