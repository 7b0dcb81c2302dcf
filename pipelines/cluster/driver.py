"""The driver's side of a cluster: its devices, and what is measured on one of them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.cluster import connection
from pipelines.cluster.device import NOW, Event, version
from pipelines.errors import ClusterError, first_line
from pipelines.models.identity import HASHED_ENVIRONMENT
from pipelines.painting.result import Step

if TYPE_CHECKING:
    from types import ModuleType

    from pipelines.cluster.connection import Place
    from pipelines.engine import Engine
    from pipelines.making import Wanted
    from pipelines.painting.result import OnStep
    from pipelines.request import RunRequest

logger = logging.getLogger(__name__)

START_SECONDS = 120.0  # until a device has imported its libraries
LOOK_SECONDS = 5.0  # between two looks for nodes that have joined
ASK_SECONDS = 0.5  # a device holds a question so long when nothing happens
TURN_SECONDS = 0.05  # between two checks for a cancel
STOP_SECONDS = 10.0  # a device may take so long to stop


class Batch(NamedTuple):
    """What a device did at once; seconds of its own clock."""

    label: str
    pictures: int
    begun: float
    ended: float


@dataclass
class Link:
    """A device as the driver sees it. `answer` is the call that is under way: of open until it is
    `ready`, of events while it works. `numbers` are the pictures that it has still to make, of a
    batch of `count` that costs `cost`; `pace` is what its last batch cost in a second."""

    place: Place
    actor: Any
    answer: Any = None
    ready: bool = False
    session: str = ""
    batch: str = ""
    numbers: set[int] = field(default_factory=set)
    inbox: deque[Event] = field(default_factory=deque)
    models: list[Any] = field(default_factory=list)
    lacking: dict[Any, str] = field(default_factory=dict)
    model: Any = None
    count: int = 0
    cost: float = 0.0
    pace: float | None = None
    began: float = 0.0
    made: Any = None

    @property
    def label(self) -> str:
        return self.place.label

    @property
    def busy(self) -> bool:
        return bool(self.batch)

    def begin(self, method: str, *arguments: Any) -> Any:
        """Let it work: one of its methods that takes a session and a batch."""
        self.batch, self.began = uuid.uuid4().hex, time.monotonic()
        self.made = getattr(self.actor, method).remote(self.session, self.batch, *arguments)
        self.ask(False)
        return self.made

    def ask(self, preview: bool) -> None:
        self.answer = self.actor.events.remote(self.session, ASK_SECONDS, preview)

    def ended(self) -> None:
        self.batch, self.answer, self.made = "", None, None


class Cluster:
    """The devices of a cluster for one driver; connected when it is needed first.

    All pictures come from one kind of device (the same GPU or CPU and the same libraries), the one
    of which there are most: those of another kind would not be the same pictures. What is left out
    stands in `notes`. Its methods raise ClusterError.
    """

    def __init__(self, address: str = "auto") -> None:
        self.address = connection.check_address(address)
        self.notes: list[str] = []
        self.links: dict[str, Link] = {}
        self.batches: list[Batch] = []  # of the pictures that were made last
        self.lock = threading.RLock()  # one piece of work at a time
        self._machine: dict[str, Any] | None = None
        self._looked = 0.0

    @property
    def ray(self) -> ModuleType:
        return connection.connect(self.address)

    @property
    def machine(self) -> Mapping[str, Any]:
        """What makes the pictures: a device of the kind that is used (see hardware.environment)."""
        if self._machine is None:
            with self.lock:
                self.wait_for_devices()
        return self._machine or {}

    def wait_for_devices(self) -> None:
        """Raise ClusterError where none is there, or comes soon."""
        self.look(0.0 if self.ready() else START_SECONDS)
        if not self.ready():
            raise ClusterError("no device of the cluster answers: "
                               f"{'; '.join(self.notes) or 'it has none that is free'}")

    @property
    def device(self) -> str:
        return str(self.machine["device"])

    def hellos(self) -> list[dict[str, Any]]:
        """What each device says of itself, those that are left out too."""
        with self.lock:
            self.look(START_SECONDS)
            return list(self.ray.get([link.actor.hello.remote() for link in self.links.values()]))

    def look(self, wait_seconds: float = 0.0) -> None:
        """See which devices there are now; wait so long for those that are starting."""
        self._looked = time.monotonic()
        there = {place.name: place for place in connection.places(self.ray)}
        for name in self.links.keys() - there.keys():
            if not self.links[name].busy:  # else its call will say that it has gone
                del self.links[name]
        for name, place in there.items():
            if name not in self.links:
                self.begin_with(place)
        deadline = time.monotonic() + wait_seconds
        while (starting := self.waiting(ready=False)) and time.monotonic() < deadline:
            self.ray.wait(starting, timeout=min(1.0, wait_seconds))
            self._welcome()
        self._welcome()

    def look_again(self) -> None:
        """Once in a while: nodes come and go."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self.look()

    def begin_with(self, place: Place) -> None:
        link = self.links[place.name] = Link(place, connection.actor_of(self.ray, place))
        self.open(link)

    def waiting(self, ready: bool) -> list[Any]:
        """The calls that are under way: of devices that work, or of those that start."""
        return [link.answer for link in self.links.values()
                if link.answer is not None and link.ready == ready]

    def _welcome(self) -> None:
        """Take in the devices that have said hello."""
        answers: dict[str, dict[str, Any]] = {}
        for name, link in list(self.links.items()):
            if link.ready or link.answer is None or not self._is_there(link.answer):
                continue
            try:
                answers[name] = self.ray.get(link.answer)
            except self.ray.exceptions.RayError as error:
                del self.links[name]
                self.note(f"{link.label} did not start: {reason_of(error)}")
        if self._machine is None and answers:
            kinds = Counter(_kind(answer) for answer in answers.values()
                            if answer["version"] == version())
            if kinds:
                kind = max(sorted(kinds), key=kinds.__getitem__)
                self._machine = next(answer["environment"] for answer in answers.values()
                                     if _kind(answer) == kind)
        for name, answer in answers.items():
            link = self.links[name]
            link.answer = None
            if answer["version"] != version():
                self.note(f"{link.label} is left out: it has Contact Sheet {answer['version']}, "
                          f"here is {version()}")
            elif _kind(answer) != _kind({"environment": self._machine}):
                kind = f"{self._machine['device_name']} with torch {self._machine['torch']}"
                self.note(f"{link.label} is left out: it is another kind of device than {kind}, "
                          "and all pictures of a comparison come from one kind")
            else:
                link.ready = True
                link.models = link.models or [*answer["models"]]

    def open(self, link: Link) -> None:
        """A session of its own at a device, which is ready once it has answered."""
        if link.session:
            link.actor.close.remote(link.session)
        link.session, link.ready = uuid.uuid4().hex, False
        link.answer = link.actor.open.remote(link.session)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            logger.warning("cluster: %s", text)

    def _is_there(self, answer: Any) -> bool:
        return bool(self.ray.wait([answer], timeout=0)[0])

    def ready(self) -> list[Link]:
        """The devices that can work."""
        return [link for link in self.links.values() if link.ready]

    def next_events(self) -> Iterator[tuple[Link, str]]:
        """Fill the inboxes of devices that work; those that did, and why a device is lost ('' where
        it is not)."""
        calls = {link.answer: link for link in self.ready() if link.answer is not None}
        waiting = [*calls, *self.waiting(ready=False)]
        if not waiting:
            time.sleep(TURN_SECONDS)
            return
        done, _ = self.ray.wait(waiting, timeout=TURN_SECONDS)
        for call in done:
            if call not in calls:
                continue
            link = calls[call]
            try:
                link.inbox.extend(self.ray.get(call))
                link.answer = None
                yield link, ""
            except self.ray.exceptions.RayError as error:
                yield link, reason_of(error)
        self._welcome()

    def lose(self, link: Link, reason: str) -> None:
        """A device has gone; one that can take its place on the same node is started."""
        self.links.pop(link.place.name, None)
        logger.warning("cluster: %s has gone: %s", link.label, reason)
        with contextlib.suppress(self.ray.exceptions.RayError, ValueError):
            self.look()

    def make(self, engine: Engine, wanted: Sequence[Wanted], *arguments: Any) -> None:
        """See `make_on_cluster`, which this is a way to for engines."""
        from pipelines.cluster.work import make_on_cluster

        make_on_cluster(self, engine, wanted, *arguments)

    # --- timings

    @contextlib.contextmanager
    def timer(
        self, engine: Engine, before: Collection[str] = ()
    ) -> Iterator[Callable[[RunRequest, OnStep | None], dict[str, Any]]]:
        """Times pictures, all on one device: one of `before`, the labels of those that timed the
        others, where it is there, else the first."""
        with self.lock:
            self.wait_for_devices()
            links = sorted(self.ready(), key=lambda link: (link.label not in before, link.label))
            yield lambda request, on_step: self._time(links[0], engine, request, on_step)

    def _time(
        self, link: Link, engine: Engine, request: RunRequest, on_step: OnStep | None
    ) -> dict[str, Any]:
        call = link.begin("time", request.model_dump(mode="json"), images_of(engine, [request]))
        try:
            while link.busy:
                for lost_or_told, reason in self.next_events():
                    if lost_or_told is link and reason:
                        link.ended()
                        self.lose(link, reason)
                        raise ClusterError(f"{link.label}, on which all cells are timed, has gone: "
                                           f"{reason}")
                while link.inbox:
                    event = link.inbox.popleft()
                    if event.kind == "done":
                        link.ended()
                    elif on_step:
                        index, total, _ = event.values
                        on_step(Step(index, total, lambda: None))
                if link.busy and link.answer is None:
                    link.ask(False)
        except BaseException:
            self.stop([link])
            raise
        times = self.ray.get(call)
        if isinstance(times, str):
            raise ClusterError(times)
        return times | {"node": link.label}

    def stop(
        self, links: Sequence[Link], take: Callable[[Link, Event], None] | None = None
    ) -> None:
        """Stop what devices do now, and wait until they have; `take(link, event)` gets what has
        happened until then. One that does not stop soon is left to itself."""
        with contextlib.suppress(self.ray.exceptions.RayError):
            for link in links:
                if link.busy:
                    link.actor.stop.remote(link.session, NOW)
        deadline = time.monotonic() + STOP_SECONDS
        while any(link.busy for link in links) and time.monotonic() < deadline:
            for link in links:
                while link.inbox:
                    event = link.inbox.popleft()
                    if take and event.kind != "done":
                        take(link, event)
                    if event.kind == "done":
                        link.ended()
                if link.busy and link.answer is None:
                    link.ask(False)
            for lost, reason in self.next_events():
                if reason:
                    lost.ended()
                    self.lose(lost, reason)
        for link in links:
            link.numbers.clear()
            if link.busy:
                link.ended()
                link.inbox.clear()
                self.open(link)


def reason_of(error: Exception) -> str:
    """What an error of Ray says, in a line: that of its cause where a method raised it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return f"{type(cause).__name__}: {first_line(cause)}"
    return f"{type(error).__name__}: {first_line(error)}"


def images_of(engine: Engine, requests: Sequence[RunRequest]) -> dict[str, bytes]:
    """The stored pictures that requests start from; raises StorageError."""
    from pipelines.fields import PICTURES

    names = {getattr(request, name) for request in requests for name in PICTURES}
    return {sha256: engine.pictures.read(sha256) for sha256 in names if sha256}


def _kind(answer: Mapping[str, Any]) -> tuple[str, ...]:
    machine = answer["environment"]
    return (machine["device"], *(str(machine[name]) for name in HASHED_ENVIRONMENT))
