"""A device of a cluster: what runs in an actor of Ray, on the node that has the device.

It holds a registry, so that models stay loaded, and for each driver an engine whose data folder is
temporary: nothing of a picture stays on the node once the driver has it. A driver asks for what has
happened (`events`) while `make` works in another thread of the actor.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pipelines
from pipelines.engine import Engine
from pipelines.error_log import NAME, one_line
from pipelines.errors import Cancelled, LoadError, NoFurther, UnknownModelError
from pipelines.hardware import environment
from pipelines.log_tables import Run
from pipelines.making import Wanted
from pipelines.models.identity import ENGINE
from pipelines.models.registry import Registry
from pipelines.painting.result import Step
from pipelines.request import RunRequest
from pipelines.timer import timer

LEFT_SECONDS = 60.0  # without a question from its driver; then nobody waits for the work
FORGET_SECONDS = 600.0
NOW, NO_FURTHER = "now", "no further"  # how to stop


class Item(NamedTuple):
    """A picture that a device shall make: its number at the driver, the request as values, the
    identity that it has there (None where there is none), whether its latents are kept."""

    number: int
    request: dict[str, Any]
    identity: str | None
    keep_latents: bool


class Event(NamedTuple):
    """What happened to a picture: 'step' (index, total, preview as PNG or None), 'run' (columns,
    picture and latents as bytes), 'strip' (columns, picture), 'refused' (why); of the batch (number
    -1): 'errors' (tracebacks), 'done' (why it broke off, '' if it did not,
    and the seconds of its clock at which it began and ended)."""

    batch: str
    kind: str
    number: int
    values: tuple[Any, ...]


class Session:
    """What a device does for one driver, one batch after the other."""

    def __init__(self, home: Path, registry: Registry) -> None:
        self.engine = Engine(home)
        self.engine.registry = registry
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.asked = time.monotonic()
        self.wants_preview = False
        self.batch = self.stopping = ""

    def check(self) -> None:
        """Raise Cancelled where the driver wants no more, or is not there any more."""
        if self.stopping == NOW or time.monotonic() - self.asked > LEFT_SECONDS:
            raise Cancelled("stopped by the driver")
        if self.stopping == NO_FURTHER:
            raise NoFurther("stopped by the driver")

    def tell(self, kind: str, number: int = -1, *values: Any) -> None:
        self.events.put(Event(self.batch, kind, number, values))


class Device:
    """The actor. Its methods are called by drivers, from several threads."""

    def __init__(self, label: str, device: str) -> None:
        """`label` names it to people: the node, and which device of it."""
        self.label = label
        self.registry = Registry(device)
        self._home = Path(tempfile.mkdtemp(prefix="contact-sheet-device-"))
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._models: list[str] = []

    def hello(self) -> dict[str, Any]:
        """What it is: label, process, versions and hardware, and the ids of models it has used."""
        return {"label": self.label, "device": self.registry.device,
                "pid": os.getpid(), "version": version(), "models": list(self._models),
                "environment": environment(self.registry.device)}

    def open(self, session_id: str) -> dict[str, Any]:
        """Begin with a driver, and say hello; what others left is cleared away."""
        with self._lock:  # migrations of two databases do not go side by side
            for name, session in list(self._sessions.items()):
                if time.monotonic() - session.asked > FORGET_SECONDS:
                    self.close(name)
            self._sessions[session_id] = Session(self._home / session_id, self.registry)
        return self.hello()

    def close(self, session_id: str) -> None:
        """End with a driver."""
        if session := self._sessions.pop(session_id, None):
            session.stopping = NOW
        shutil.rmtree(self._home / session_id, ignore_errors=True)

    def events(self, session_id: str, wait_seconds: float, preview: bool) -> list[Event]:
        """What has happened since the last call; waits for something to happen. `preview`: a
        preview of the next step is wanted."""
        session = self._sessions[session_id]
        session.asked = time.monotonic()
        session.wants_preview |= preview
        happened = []
        with contextlib.suppress(queue.Empty):
            happened.append(session.events.get(timeout=wait_seconds))
            while True:
                happened.append(session.events.get_nowait())
        return happened

    def stop(self, session_id: str, how: str) -> None:
        """Stop the batch: NOW, or NO_FURTHER once the pictures that have begun are done."""
        self._sessions[session_id].stopping = how

    def make(
        self, session_id: str, batch: str, items: Sequence[Item], images: Mapping[str, bytes]
    ) -> None:
        """Make pictures of one model side by side; each is told as it is done. `images` are the
        stored pictures that the requests name, by their SHA-256."""
        session = self._sessions[session_id]
        session.batch, session.stopping, session.asked = batch, "", time.monotonic()
        broken, begun = "", time.monotonic()
        try:
            self._make(session, items, images)
        except Cancelled:
            pass
        except Exception as error:
            broken = f"{self.label}: {one_line(error, session.engine.home)}"
        try:
            self._tell_errors(session)
            for folder in ("pictures", "latents", "steps"):
                shutil.rmtree(session.engine.home / folder, ignore_errors=True)
        finally:
            session.tell("done", -1, broken, begun, time.monotonic())

    def _make(
        self, session: Session, items: Sequence[Item], images: Mapping[str, bytes]
    ) -> None:
        engine = session.engine
        for data in images.values():
            engine.pictures.write(data)
        requests = {item.number: RunRequest(**item.request) for item in items}
        known: dict[tuple, Any] = {}
        items = [item for item in items if not self._refused(session, item, requests, known)]
        numbers, runs = [item.number for item in items], dict[int, Run]()

        def on_step(place: int, step: Step) -> None:
            session.check()
            preview = None
            if session.wants_preview and step.index < step.total:
                session.wants_preview = False
                preview = _png(step.preview())
            session.tell("step", numbers[place], step.index, step.total, preview)

        def on_run(place: int, run: Run) -> None:
            runs[numbers[place]] = run
            picture, latents = run.image_sha256, run.latents_sha256
            session.tell(
                "run", numbers[place],
                self._columns(run, leaving=("id", "comparison_id", "axes", "parent_id")),
                engine.pictures.read(picture) if picture else None,
                engine.latents.read(latents) if latents else None)

        for item in items[:1]:
            model_id = requests[item.number].model_id
            self._models = [*(name for name in self._models if name != model_id), model_id]
        try:
            engine.make([Wanted(requests[item.number], keep_latents=item.keep_latents)
                         for item in items], on_step, on_run, session.check)
        finally:  # the steps are drawn after the pictures
            for number, run in runs.items():
                strip = run.steps_sha256
                columns = {name: getattr(run, name)
                           for name in ("steps_sha256", "steps_shown", "notes")}
                if run.status == "ok":
                    session.tell("strip", number, columns,
                                 engine.pictures.read(strip) if strip else None)

    def _refused(
        self, session: Session, item: Item, requests: Mapping[int, RunRequest],
        known: dict[tuple, Any],
    ) -> bool:
        """Whether this node cannot make what the driver means, which is told then: it has not got
        the model, or other files under its name."""
        request, reason = requests[item.number], ""
        try:
            mine = session.engine.identity(request, known)
            if item.identity and mine != item.identity:
                reason = (f"its files of {request.model_id} are not those of the driver; large "
                          "ones count by size and time of change: share the folder or the Hub's "
                          "cache, or copy with times (rsync -t)")
        except (UnknownModelError, LoadError) as error:
            reason = str(error) if item.identity else ""  # else its run says what is wrong
        except Exception:
            return False  # its run says what is wrong
        if reason:
            session.tell("refused", item.number, f"{self.label}: {reason}")
        return bool(reason)

    def time(
        self, session_id: str, batch: str, request: Mapping[str, Any], images: Mapping[str, bytes]
    ) -> dict[str, float] | str:
        """Make one picture apart, and give its times in milliseconds, or say why there are none;
        its steps are told."""
        session = self._sessions[session_id]
        session.batch, session.stopping, session.asked = batch, "", time.monotonic()
        for data in images.values():
            session.engine.pictures.write(data)

        def on_step(step: Step) -> None:
            session.check()
            session.tell("step", 0, step.index, step.total, None)

        try:
            with timer(session.engine) as timed:
                return timed(RunRequest(**request), on_step)
        except Exception as error:
            return f"{self.label}: {one_line(error, session.engine.home)}"
        finally:
            session.tell("done", -1, "", 0.0, 0.0)

    def _columns(self, run: Run, leaving: Sequence[str]) -> dict[str, Any]:
        columns = {name: value for name, value in run.as_dict().items() if name not in leaving}
        columns["environment"] = columns["environment"] | {"node": self.label}
        return columns

    def _tell_errors(self, session: Session) -> None:
        """Tracebacks belong where people look for them: at the driver."""
        path = session.engine.home / NAME
        if path.exists():
            session.tell("errors", -1, path.read_text("utf-8", "replace"))
            path.unlink()


def version() -> str:
    """What drivers and devices must agree in."""
    return f"{pipelines.__version__} (engine {ENGINE})"


def _png(image: Any) -> bytes | None:
    if image is None:
        return None
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
