"""Work in the background that somebody watches: how far it is, how long it takes, how to stop it.

A `Work` (pipelines/queue.py: a job that this process does) and a `Download`
(pipelines/hub/download.py: side by side) are Tasks; a `TaskList` holds the downloads.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipelines.error_log import one_line
from pipelines.errors import Cancelled, PipelineError

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Task:
    """`done` of `total` units. `status`: queued, running, paused, done, failed or cancelled;
    `error` says why it failed, `message` what it does now."""

    id: int
    title: str
    total: int
    done: int = 0
    status: str = "queued"
    message: str = ""
    error: str | None = None
    first_step: float | None = None  # time.monotonic() when the first unit was done
    finished: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)  # set: the work shall end

    @property
    def active(self) -> bool:
        return self.status in ("queued", "running", "paused")

    @property
    def cancelling(self) -> bool:
        """It was asked to stop and has not yet."""
        return self.status in ("queued", "running") and self.stop.is_set()

    @property
    def fraction(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0

    def pace(self) -> float | None:
        """Units per second since the first one; None before there is something to measure."""
        if self.first_step is None or self.done < 2:
            return None
        return (self.done - 1) / max(1e-9, time.monotonic() - self.first_step)

    def eta_seconds(self) -> float | None:
        """Time left at this pace; None where there is none yet."""
        pace = self.pace()
        return (self.total - self.done) / pace if pace else None

    def advance(self, units: int = 1) -> None:
        """Count what was done; raises Cancelled where somebody asked to stop."""
        self.check()
        self.first_step = self.first_step or time.monotonic()
        self.done = min(self.total, self.done + units)

    def check(self) -> None:
        """Raise Cancelled where somebody asked to stop; the work calls this between its steps."""
        if self.stop.is_set():
            raise Cancelled("stopped by the user")


def outcome(
    title: str, work: Callable[[], Any], home: Path | None = None
) -> tuple[str, str | None]:
    """Do the work; the status that it ended with, and the error in words where it failed. A
    traceback goes to errors.log, of the data folder `home` where it is another."""
    try:
        work()
    except Cancelled:
        return "cancelled", None
    except Exception as error:
        if not isinstance(error, PipelineError):
            logger.exception("%s failed", title)
        return "failed", one_line(error, home)
    return "done", None


AnyTask = TypeVar("AnyTask", bound=Task)


class TaskList(Generic[AnyTask]):
    """Tasks by id, the oldest first; of those that ended the last `kept` stay listed."""

    def __init__(self, kept: int) -> None:
        self.lock = threading.RLock()  # held by whoever looks for a task and then adds one
        self._kept = kept
        self._ids = itertools.count(1)
        self._tasks: dict[int, AnyTask] = {}

    def next_id(self) -> int:
        return next(self._ids)

    def add(self, task: AnyTask) -> None:
        """List a task, and forget the oldest that ended."""
        with self.lock:
            self._tasks[task.id] = task
            ended = [other for other in self._tasks.values() if not other.active]
            for old in ended[: -self._kept]:
                del self._tasks[old.id]

    def get(self, task_id: int) -> AnyTask | None:
        return self._tasks.get(task_id)

    def all(self) -> list[AnyTask]:
        with self.lock:
            return list(self._tasks.values())

    def active(self) -> list[AnyTask]:
        return [task for task in self.all() if task.active]

    def newest(self, fits: Callable[[AnyTask], bool]) -> AnyTask | None:
        """The newest task for which `fits` holds, running or not."""
        return next((task for task in reversed(self.all()) if fits(task)), None)
