"""Many browsers at once on a fresh dashboard: sessions over Streamlit's own websocket.

    python tests/browsers.py --browsers 20 --jobs 2 --seconds 180

Each opens Generate, asks for its pictures one after the other, and polls as its page tells it to.
What is counted: errors on pages, jobs that were lost or failed, and how the turns went round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from browser.actions import dashboard
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import connect

from dashboard.browser import COOKIE

PATIENCE = 300.0  # seconds
GONE = 20.0  # seconds after which a poll is taken for one that gets no answer


@dataclass
class Browser:
    """One session: what its page showed, and how long its answers took (seconds)."""

    number: int
    widgets: dict[str, str] = field(default_factory=dict)  # label -> id
    errors: list[str] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    polls: dict[str, float] = field(default_factory=dict)  # fragment -> interval
    unanswered: int = 0  # polls of a part that the page has no longer
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return f"{self.number:016x}"

    async def visit(self, url: str, jobs: int, until: asyncio.Event) -> None:
        headers = {"Cookie": f"{COOKIE}={self.id}", "User-Agent": "Firefox/140 Linux"}
        address = url.replace("http", "ws") + "/_stcore/stream"
        async with connect(address, additional_headers=headers, origin=url, max_size=None,
                           subprotocols=["streamlit"]) as self.socket:
            listener = asyncio.create_task(self._listen())
            await self._run()
            for job in range(jobs):
                await self._run(prompt=f"a red car {self.number} {job}", go=True)
            while not until.is_set():
                for fragment, interval in list(self.polls.items()):
                    await self._run(fragment=fragment)
                    await asyncio.sleep(interval)
                await asyncio.sleep(0.05)
            listener.cancel()

    async def _run(self, prompt: str = "", go: bool = False, fragment: str = "") -> None:
        """Let the script run, and wait for its end."""
        message = BackMsg()
        state = message.rerun_script
        state.query_string = ""
        if not fragment:
            self.polls.clear()
        else:
            state.fragment_id, state.is_auto_rerun = fragment, True
        if prompt:
            state.widget_states.widgets.add(id=self.widgets["Prompt"], string_value=prompt)
        if go:
            state.widget_states.widgets.add(id=self.widgets["Generate"], trigger_value=True)
        self.finished.clear()
        begin = time.monotonic()
        await self.socket.send(message.SerializeToString())
        try:
            await asyncio.wait_for(self.finished.wait(), GONE if fragment else PATIENCE)
        except TimeoutError:
            if not fragment:
                raise
            self.unanswered += 1
            self.polls.pop(fragment, None)
            return
        self.answers.append(time.monotonic() - begin)

    async def _listen(self) -> None:
        async for data in self.socket:
            message = ForwardMsg.FromString(data)
            kind = message.WhichOneof("type")
            if kind == "script_finished":
                self.finished.set()
            elif kind == "auto_rerun":
                self.polls[message.auto_rerun.fragment_id] = message.auto_rerun.interval
            elif kind == "delta":
                self._see(message.delta.new_element)

    def _see(self, element) -> None:
        kind = element.WhichOneof("type")
        if kind in ("button", "text_area"):
            widget = getattr(element, kind)
            self.widgets[widget.label] = widget.id
        elif kind == "exception":
            self.errors.append(element.exception.message)
        elif kind == "html" and "cs-notice cs-error" in element.html.body:
            self.errors.append(element.html.body)


def jobs_of(home: Path, browsers: Sequence[Browser]) -> list[tuple[str, str, int | None]]:
    """Browser, status and turn of each of their jobs."""
    ids = {browser.id for browser in browsers}
    log = sqlite3.connect(home / "runs.sqlite")
    with contextlib.closing(log), contextlib.suppress(sqlite3.OperationalError):  # no table yet
        rows = log.execute("SELECT browser, status, turn FROM jobs ORDER BY id").fetchall()
        return [row for row in rows if row[0] in ids]
    return []


async def visits(url: str, home: Path, count: int, jobs: int, seconds: float) -> list[Browser]:
    """Open all browsers at once; they stay at least so many seconds, and until all is done."""
    browsers, until = [Browser(number + 1) for number in range(count)], asyncio.Event()
    tasks = [asyncio.create_task(browser.visit(url, jobs, until)) for browser in browsers]
    begin = time.monotonic()
    while time.monotonic() - begin < PATIENCE:
        await asyncio.sleep(0.5)
        for task in tasks:
            if task.done():
                task.result()
        rows = jobs_of(home, browsers) if (home / "runs.sqlite").exists() else []
        ended = len(rows) == count * jobs and all(
            status not in ("waiting", "running") for _, status, _ in rows)
        if ended and time.monotonic() - begin > seconds:
            break
    until.set()
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    return browsers


def measure(home: Path, count: int, jobs: int, seconds: float) -> dict[str, object]:
    """The figures of a fresh dashboard in a folder."""
    with dashboard(home, {}) as running:
        browsers = asyncio.run(visits(running.url, home, count, jobs, seconds))
    return figures(browsers, jobs_of(home, browsers), jobs)


def figures(
    browsers: Sequence[Browser], rows: Sequence[tuple[str, str, int | None]], jobs: int
) -> dict[str, object]:
    """What the visits came to; `jobs` were asked for by each."""
    count = len(browsers)
    turns = [browser for browser, _, _ in sorted(
        (row for row in rows if row[2] is not None), key=lambda row: row[2])]
    begun = {browser.id: 0 for browser in browsers}
    lead = 0
    for browser in turns:
        begun[browser] += 1
        lead = max(lead, begun[browser] - min(begun.values()))
    answers = sorted(answer for browser in browsers for answer in browser.answers)
    return {
        "browsers": count, "jobs": len(rows), "lost": count * jobs - len(rows),
        "done": sum(status == "done" for _, status, _ in rows),
        "errors": [error for browser in browsers for error in browser.errors],
        "polls without an answer": sum(browser.unanswered for browser in browsers),
        "largest lead": lead, "answers": len(answers),
        "median answer": statistics.median(answers),
        "slowest of 100": answers[int(len(answers) * 0.99)], "slowest": answers[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--browsers", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="of each browser")
    parser.add_argument("--seconds", type=float, default=180, help="that the browsers stay")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, figure in measure(Path(folder), given.browsers, given.jobs,
                                    given.seconds).items():
            print(f"{name}: {figure:.2f}" if isinstance(figure, float) else f"{name}: {figure}")


if __name__ == "__main__":
    main()
