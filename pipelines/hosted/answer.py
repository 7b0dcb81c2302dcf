"""One request to a provider, watched.

huggingface_hub's InferenceClient tells no headers, and has no limit of size, and none of time for
what it fetches after the first answer. Hooks of its HTTP client see to these, for the requests that
are sent within `watched` alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
from huggingface_hub.utils import get_session

from pipelines.errors import Cancelled, ProviderError, RequestError
from pipelines.inpainting.pictures_in import MAX_BYTES

TIMEOUT = "CONTACT_SHEET_INFERENCE_TIMEOUT"  # seconds that one answer may take
USUAL_TIMEOUT = 120.0
BEGINNING = 300  # bytes of an answer that are kept, for a message
# Headers by which a provider tells what a picture cost, and how long it took.
COST = re.compile(r"cost|price|bill|charge|credit")
TIME = re.compile(r"^x-.*(time|duration|latency)")
TOLD = re.compile(rf"{COST.pattern}|{TIME.pattern}|^x-compute|^x-inference|provider")


@dataclass
class Gate:
    """What all requests of one piece of work share: whether nothing more is sent, whether what is
    under way is given up, and until when the provider wants to be left alone."""

    closing: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    not_before: float = 0.0

    def pass_through(self) -> None:
        """Wait where the provider asked for it; raises Cancelled."""
        while (left := self.not_before - time.monotonic()) > 0 and not self.closing.is_set():
            self.closing.wait(left)
        if self.closing.is_set():
            raise Cancelled("stopped by the user")


@dataclass
class Answer:
    """One request under way: until when it may take, and what its answer says beside the
    picture."""

    gate: Gate
    deadline: float
    told: dict[str, Any] = field(default_factory=dict)
    begins: bytes = b""

    def left(self) -> float:
        """Seconds; raises Cancelled, or httpx2's time-out where there are none."""
        if self.gate.ended.is_set():
            raise Cancelled("stopped by the user")
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpx2.ReadTimeout("the time is over")
        return left


_under_way = threading.local()


def timeout() -> float:
    """Seconds that one answer may take; raises RequestError."""
    text = os.environ.get(TIMEOUT)
    if not text:
        return USUAL_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise RequestError(f"{TIMEOUT}: received {text!r}, accepted seconds above 0 to 3600")
    return seconds


@contextlib.contextmanager
def watched(answer: Answer) -> Iterator[None]:
    """Let the hooks act on the requests that this thread sends within."""
    session = get_session()
    hooks = session.event_hooks
    if _watch_request not in hooks["request"]:
        session.event_hooks = {"request": [*hooks["request"], _watch_request],
                               "response": [*hooks["response"], _watch_response]}
    _under_way.answer = answer
    try:
        yield
    finally:
        del _under_way.answer


def _watch_request(request: httpx2.Request) -> None:
    answer = getattr(_under_way, "answer", None)
    if answer is not None:
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), answer.left())
        request.extensions = {**request.extensions, "timeout": timeouts}


def _watch_response(response: httpx2.Response) -> None:
    answer = getattr(_under_way, "answer", None)
    if answer is None:
        return
    if response.request.method == "POST":
        headers = {name.lower(): value[:200] for name, value in response.headers.items()}
        answer.told = {"address": str(response.request.url.copy_with(query=None)),
                       "headers": {name: value for name, value in headers.items()
                                   if TOLD.search(name)},
                       "content_type": headers.get("content-type", "")}
    response.stream = _Limited(response.stream, answer)
    if response.is_error:
        response.read()


class _Limited(httpx2.SyncByteStream):
    """An answer's bytes, as far as they are not too many and come in time."""

    def __init__(self, stream: Any, answer: Answer) -> None:
        self._stream, self._answer = stream, answer

    def __iter__(self) -> Iterator[bytes]:
        count, self._answer.begins = 0, b""
        for chunk in self._stream:
            self._answer.left()
            count += len(chunk)
            if count > MAX_BYTES:
                raise ProviderError(f"the answer is larger than {MAX_BYTES // 2**20} MB, which no "
                                    "picture here may be")
            self._answer.begins = (self._answer.begins + chunk)[:BEGINNING]
            yield chunk

    def close(self) -> None:
        self._stream.close()
