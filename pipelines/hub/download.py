"""Downloads into the Hub's local cache: in the background, with pause, resume and checksums.

huggingface_hub's own transfer throws a broken-off file away, so the bytes are fetched here, each
into a file named by its checksum, and huggingface_hub puts the finished file in its place.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import Cancelled, HubError, StorageError
from pipelines.hub.cache import PARTIAL, cached_path, checksum, repo_folder
from pipelines.hub.client import TIMEOUT, Hub
from pipelines.hub.plan import DownloadPlan, HubFile, size_text
from pipelines.hub.wording import host, reworded
from pipelines.tasks import Task, TaskList, outcome

WORKERS = 4  # files at once
TRIES = 5  # without a new byte in between
LONGEST_WAIT = 60.0  # seconds between two tries
SPARE = 200_000_000  # bytes of the disk that a download leaves free
SPEED_SECONDS = 5.0  # the time over which the speed is taken
LISTED = 20  # finished downloads that stay listed


@dataclass
class FileProgress:
    """`status`: waiting, running, checking or done; `done` and the file's size are bytes."""

    file: HubFile
    status: str = "waiting"
    done: int = 0


class Download(Task):
    """One model on its way; its units are bytes. A paused or failed one can be started again."""

    def __init__(self, id: int, plan: DownloadPlan, hub: Hub) -> None:
        super().__init__(id, plan.model_id, plan.size_bytes)
        self.plan, self.hub = plan, hub
        self.files: list[FileProgress] = []
        self._lock = threading.Lock()
        self._samples: collections.deque[tuple[float, int]] = collections.deque()

    def pace(self) -> float | None:
        """Bytes per second over the last seconds."""
        with self._lock:
            samples = list(self._samples)
        if self.status != "running" or len(samples) < 2:
            return None
        seconds = time.monotonic() - samples[0][0]
        return (samples[-1][1] - samples[0][1]) / seconds if seconds > 0.2 else None

    def start(self) -> None:
        """Begin, or go on after a pause or a failure; raises StorageError where the disk is full.

        What an earlier attempt fetched is kept. That attempt's threads may still wait for a silent
        server: their stop flag stays set, so that they write nothing more.
        """
        files = [FileProgress(file, done=self._bytes_here(file)) for file in self.plan.files]
        here = sum(file.done for file in files)
        check_room(self.hub.cache_dir, self.total - here)
        with self._lock:
            if self.status == "running":  # a second click
                return
            self.stop = threading.Event()
            self.files, self.done = files, here
            self.error, self.message, self.status = None, "", "running"
            self._samples.clear()
            self.finished.clear()
        threading.Thread(target=self._run, args=(self.stop,), daemon=True,
                         name=f"contact-sheet-download-{self.id}").start()

    def pause(self) -> None:
        """Stop fetching at once; what is here stays, also when the program ends."""
        if self.status == "running":
            self._end("paused", self.stop)

    def cancel(self) -> None:
        """Stop for good and remove the parts of files; whole files stay in the cache."""
        if self.status in ("running", "paused", "failed"):
            self._end("cancelled", self.stop)
            for progress in self.files:
                with contextlib.suppress(OSError):
                    self._partial(progress.file).unlink(missing_ok=True)

    def _end(self, status: str, stop: threading.Event, error: str | None = None) -> None:
        """Leave the running state once, by whoever comes first."""
        with self._lock:
            if self.stop is not stop or self.status not in ("running", "paused", "failed"):
                return
            if stop.is_set() and status in ("done", "failed"):
                return
            stop.set()
            self.status, self.error, self.message = status, error, ""
            if status != "paused":
                self.finished.set()

    # --- in the background

    def _run(self, stop: threading.Event) -> None:
        """Fetch all files, the main one last: only then is there a model to be found."""
        main = [progress for progress in self.files if progress.file.path == self.plan.main_file]
        others = [progress for progress in self.files if progress not in main]
        others.sort(key=lambda progress: -progress.file.size)

        def fetch_all() -> None:
            try:
                self._together(others, stop)
                for progress in main:
                    self._fetch(progress, stop)
                self._write_ref()
            except OSError as error:
                raise StorageError(_disk_text(self.hub.cache_dir, error)) from error

        status, error = outcome(f"the download of {self.plan.model_id}", fetch_all)
        if status != "cancelled":  # else pause() or cancel() has said so
            self._end(status, stop, error)

    def _together(self, files: list[FileProgress], stop: threading.Event) -> None:
        """Fetch files in a few threads; raises what the first of them raised."""
        waiting, problems = collections.deque(files), []

        def work() -> None:
            while not stop.is_set() and not problems:
                try:
                    progress = waiting.popleft()
                except IndexError:
                    return
                try:
                    self._fetch(progress, stop, problems)
                except Exception as error:
                    problems.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]

    def _fetch(
        self, progress: FileProgress, stop: threading.Event, problems: list | None = None
    ) -> None:
        """One file, whole, verified and in its place in the cache."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import WeakFileLock

        def check() -> None:
            if stop.is_set() or problems:
                raise Cancelled("stopped by the user")

        plan, file = self.plan, progress.file
        if cached_path(plan, file, self.hub.cache_dir):
            progress.status = "done"
            self._count(progress, file.size)
            return
        progress.status = "running"
        lock = self.hub.cache_dir / ".locks" / self._folder.name / f"{file.etag}.contact-sheet.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            while True:
                check()
                try:
                    stack.enter_context(WeakFileLock(lock, timeout=0.5))
                    break
                except TimeoutError:
                    self.message = "waiting for another program that fetches the same file"
            self._forget_damaged(file)
            if not self._blob(file).exists():
                self._transfer(progress, check, stop)
        check()
        with reworded(self.hub, plan.model_id, plan.commit):
            path = Path(hf_hub_download(
                plan.model_id, file.path, revision=plan.commit, cache_dir=self.hub.cache_dir,
                endpoint=self.hub.endpoint, token=self.hub.token, library_name="contact-sheet",
            ))
        if not path.is_symlink():  # a file system without links got a copy
            self._blob(file).unlink(missing_ok=True)
        progress.status = "done"
        self._count(progress, file.size)

    def _transfer(
        self, progress: FileProgress, check: Callable[[], None], stop: threading.Event
    ) -> None:
        """The bytes of one file, over as many connections as it takes, and their checksum."""
        file, partial = progress.file, self._partial(progress.file)
        partial.parent.mkdir(parents=True, exist_ok=True)
        tries, damaged = 0, False
        while True:
            have = partial.stat().st_size if partial.exists() else 0
            try:
                if have != file.size:
                    self._stream(progress, partial, have if have < file.size else 0, check)
                if partial.stat().st_size == file.size:
                    progress.status = "checking"
                    if checksum(partial, file.etag, check) == file.etag:
                        partial.replace(self._blob(file))
                        return
                    partial.unlink()
                    progress.status = "running"
                    self._count(progress, 0)
                    if damaged:
                        raise HubError(f"{file.path} arrived damaged twice: its checksum is not "
                                       f"the one that {host(self.hub)} names")
                    damaged = True
                    continue
                problem, wait = f"{file.path} broke off", 0.0
            except _Again as again:
                problem, wait = str(again), again.wait
            check()
            now = partial.stat().st_size if partial.exists() else 0
            tries = 1 if now > have else tries + 1
            if tries > TRIES:
                raise HubError(f"{problem}; {TRIES} tries without a new byte. Resume later: what "
                               "is here is kept")
            self.message = f"{problem}: trying again"
            stop.wait(max(wait, 0.1 if tries == 1 else min(2.0 ** (tries - 2), LONGEST_WAIT)))
            check()

    def _stream(self, progress: FileProgress, partial: Path, have: int, check: Callable) -> None:
        """Append what is missing of a file; raises _Again where another try may help."""
        import httpx2
        from huggingface_hub.utils import get_session, hf_raise_for_status

        headers = {**self.hub.headers(), "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        url = self.hub.file_url(self.plan.model_id, progress.file.path, self.plan.commit)
        try:
            with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as answer:
                if answer.status_code in (408, 429) or answer.status_code >= 500:
                    wait = answer.headers.get("Retry-After", "")
                    seconds = min(float(wait), LONGEST_WAIT) if wait.isdigit() else 0.0
                    raise _Again(f"{host(self.hub)} answered {answer.status_code}", seconds)
                if answer.is_error:
                    answer.read()
                with reworded(self.hub, self.plan.model_id, self.plan.commit):
                    hf_raise_for_status(answer)
                begins = f"bytes {have}-"
                if have and not answer.headers.get("Content-Range", "").startswith(begins):
                    have = 0  # the server sends all of it again
                with partial.open("r+b" if have else "wb") as out:
                    out.seek(have)
                    out.truncate()
                    self._count(progress, have)
                    for chunk in answer.iter_raw():
                        check()
                        out.write(chunk)
                        self._count(progress, progress.done + len(chunk))
                        self._sample()
        except httpx2.TransportError as error:
            raise _Again(f"the connection to {host(self.hub)} broke ({error or 'no data'})"
                         ) from error

    def _count(self, progress: FileProgress, done: int) -> None:
        progress.done = done
        with self._lock:
            self.done = sum(file.done for file in self.files)

    def _sample(self) -> None:
        """Note the pace, now that bytes come."""
        now = time.monotonic()
        self.message = ""
        with self._lock:
            self._samples.append((now, self.done))
            while self._samples[0][0] < now - SPEED_SECONDS:
                self._samples.popleft()

    def _forget_damaged(self, file: HubFile) -> None:
        """A file of the wrong size is no file: remove it and what points to it."""
        blob = self._blob(file)
        if blob.exists() and blob.stat().st_size != file.size:
            blob.unlink()
        pointer = self._folder / "snapshots" / self.plan.commit / file.path
        broken = pointer.is_symlink() and not pointer.exists()
        if broken or (pointer.exists() and pointer.stat().st_size != file.size):
            pointer.unlink()

    def _bytes_here(self, file: HubFile) -> int:
        for path in (self._blob(file), self._partial(file)):
            with contextlib.suppress(OSError):
                return min(path.stat().st_size, file.size)
        return file.size if cached_path(self.plan, file, self.hub.cache_dir) else 0

    def _write_ref(self) -> None:
        """Let the branch's name stand for this commit, as huggingface_hub's cache does."""
        plan = self.plan
        if plan.revision == plan.commit:
            return
        ref = self._folder / "refs" / plan.revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        temporary = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
        temporary.write_text(plan.commit, encoding="utf-8")
        temporary.replace(ref)

    @property
    def _folder(self) -> Path:
        return repo_folder(self.hub.cache_dir, self.plan.model_id)

    def _blob(self, file: HubFile) -> Path:
        return self._folder / "blobs" / file.etag

    def _partial(self, file: HubFile) -> Path:
        return self._folder / "blobs" / f"{file.etag}{PARTIAL}"


class _Again(Exception):
    """A problem that another try may solve, after `wait` seconds at least."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class Downloads(TaskList[Download]):
    """All downloads of this process; they run beside the queue of jobs."""

    def __init__(self) -> None:
        super().__init__(LISTED)

    def start(self, hub: Hub, plan: DownloadPlan) -> Download:
        """Begin a download, or go on with the one of the same plan that did not end well."""
        with self.lock:
            download = self.newest(
                lambda d: d.plan == plan and d.status not in ("done", "cancelled"))
            download = download or Download(self.next_id(), plan, hub)
            download.start()
            self.add(download)
        return download

    def latest(self, model_id: str) -> Download | None:
        return self.newest(lambda download: download.plan.model_id == model_id)


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_room(folder: Path, needed: int) -> None:
    """Raise StorageError where `needed` bytes do not fit on the folder's disk."""
    free = free_bytes(folder)
    if needed and needed + SPARE > free:
        raise StorageError(
            f"the disk of {folder} has {size_text(free)} free; {size_text(needed)} and "
            f"{size_text(SPARE)} to spare are needed: delete models that you no longer use, or "
            "set HF_HOME to a folder on a larger disk"
        )


def _disk_text(folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (f"the disk of {folder} is full ({size_text(free_bytes(folder))} free); make room "
                "and resume: what is here is kept")
    return f"the cache {folder} cannot be written: {error}"
