"""Whether somebody who works on a data folder is still there.

Whoever works holds the lock of a file, which the operating system takes away however a process
ends: no clock and no sign of life decides. The owner is one piece of work, so that threads of a
process are told apart as well.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.errors import StorageError

_held: set[str] = set()  # owners in this process


class Presence:
    """One piece of work on a data folder, which others can see as long as its `with` block, or the
    process, lasts. Raises StorageError where no lock can be held."""

    def __init__(self, home: Path) -> None:
        self.home, self.owner = home, uuid.uuid4().hex
        self._lock = FileLock(_path(home, self.owner), thread_local=False)

    def __enter__(self) -> Presence:
        try:
            Path(self._lock.lock_file).parent.mkdir(exist_ok=True)
            self._lock.acquire(blocking=False)
        except OSError as error:
            raise StorageError(f"the lock {self._lock.lock_file} cannot be held: {error}"
                               ) from error
        _held.add(self.owner)
        return self

    def __exit__(self, *_: object) -> None:
        _held.discard(self.owner)
        self._lock.release()
        with contextlib.suppress(OSError):  # what stays behind is removed by whoever looks
            Path(self._lock.lock_file).unlink(missing_ok=True)


def is_there(home: Path, owner: str | None) -> bool:
    """Whether somebody holds an owner's lock; the file of one that is gone is removed."""
    if owner in _held:
        return True
    if not re.fullmatch(r"[0-9a-f]{32}", owner or ""):
        return False
    path = _path(home, owner)
    if not path.exists():
        return False
    try:
        with FileLock(path, blocking=False):
            path.unlink(missing_ok=True)
    except Timeout:
        return True
    except OSError as error:
        raise StorageError(f"the lock {path} cannot be read: {error}") from error
    return False


def _path(home: Path, owner: str) -> Path:
    return home / "locks" / f"{owner}.lock"
