"""Whether a data folder is as it should be, and what can be done where it is not.

Mending never removes a picture or a row: files that nobody names or that are damaged are moved into
`set-aside/`, files that were left half written and useless thumbnails are removed, and the
full-text index is made anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from pipelines.errors import StorageError
from pipelines.exchange.work import EXPORTS, IMPORTS
from pipelines.fields import PICTURES
from pipelines.files import TEMPORARY, make_folder
from pipelines.job_log import GO_ON, JobRow
from pipelines.log_tables import Run
from pipelines.run_log import RunLog
from pipelines.run_marks import named_files
from pipelines.stores import LatentStore, PictureStore, Store
from pipelines.thumbnails import FOLDER, Thumbnails, whole

SET_ASIDE = "set-aside"
SETTLED_SECONDS = 3600  # younger files may be in work
CLOCK_SECONDS = 60  # that a clock may be behind
BATCH = 500
REBUILD = ("INSERT INTO prompts(prompts) VALUES ('delete-all')",
           "INSERT INTO prompts(rowid, prompt, negative_prompt) SELECT id, "
           "prompt || char(31, 31), negative_prompt || char(31, 31) FROM runs")


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be; `kind` is one of the keys of KINDS."""

    kind: str
    what: str
    mended: bool = False


KINDS = {
    "clock": "the clock of this machine",
    "database": "the database",
    "row": "damaged rows",
    "index": "the full-text index",
    "missing": "files that a row names and that are not there",
    "damaged": "files whose bytes are not what their name says",
    "unnamed": "files that no row names",
    "thumbnail": "thumbnails without a picture, or that cannot be drawn",
    "temporary": "files that were left half written",
}


def examine(home: Path, mend: bool = False, on_file: Callable[[], None] | None = None
            ) -> list[Finding]:
    """All that is wrong with a data folder; `mended` is what was mended now. Raises StorageError
    where the database cannot be opened at all."""
    log = RunLog(home)
    if mend:
        log.database.check_writable()
    findings = [*_clock(log), *_database(log, mend)]
    names = _Names()
    for run in _every_run(log):
        names.add(run)
        if run.damage:
            findings.append(Finding("row", f"run {run.id}: {run.damage}"))
    for store, named in ((PictureStore(home / "pictures"), names.pictures),
                         (LatentStore(home / "latents"), names.latents)):
        findings += _files(log, store, named, mend, on_file)
    findings += _thumbnails(home, mend)
    findings += _temporary(log, mend)
    return findings


class _Names:
    """The files that rows name, each with a run that needs it; None where
    only a run that came to nothing does."""

    def __init__(self) -> None:
        self.pictures: dict[str, int | None] = {}
        self.latents: dict[str, int | None] = {}

    def add(self, run: Run) -> None:
        for name in (run.image_sha256, run.steps_sha256):
            if name:
                self.pictures[name] = run.id
        if run.latents_sha256:
            self.latents[run.latents_sha256] = run.id
        for field in PICTURES:
            name = run.request.get(field)
            if isinstance(name, str):
                self.pictures.setdefault(name, run.id if run.status == "ok" else None)


def _database(log: RunLog, mend: bool) -> Iterator[Finding]:
    with log.database.session() as session:
        run = session.connection().exec_driver_sql
        for (line,) in run("PRAGMA integrity_check(20)").all():
            if line != "ok":
                yield Finding("database", f"{line}; a backup can be restored")
        for table, row, parent, _ in run("PRAGMA foreign_key_check").all():
            yield Finding("database", f"row {row} of {table} names a row of {parent} that is not "
                                      "there")
        indexed, rows = (run(f"SELECT count(*) FROM {table}").scalar()
                         for table in ("prompts_docsize", "runs"))
    if indexed == rows:
        return
    if mend:
        with log.database.session(write=True) as session:
            for statement in REBUILD:
                session.connection().exec_driver_sql(statement)
    yield Finding("index", f"{indexed:,} of {rows:,} runs are found by their prompts", mend)


def _clock(log: RunLog) -> Iterator[Finding]:
    behind = log.clock_behind_seconds()
    if behind > CLOCK_SECONDS:
        yield Finding("clock", f"it is {behind / 60:,.0f} min behind the newest run: new runs are "
                               "listed among older ones until it is right")


def _every_run(log: RunLog) -> Iterator[Run]:
    last = -(2**63)
    while True:
        with log.database.session() as session:
            runs = session.scalars(
                select(Run).where(Run.id > last).order_by(Run.id).limit(BATCH)).all()
        yield from runs
        if not runs:
            return
        last = runs[-1].id


def _files(
    log: RunLog, store: Store, named: dict[str, int | None], mend: bool,
    on_file: Callable[[], None] | None,
) -> Iterator[Finding]:
    home, there, unnamed = log.path.parent, set(), []
    for path in sorted(store.folder.glob(f"*/*{store.suffix}")):
        if on_file:
            on_file()
        name = path.stem
        there.add(name)
        settled = _settled(path)
        if not store.whole(name):
            if settled is None:
                continue
            of_run = f", of run {named[name]}" if named.get(name) else ""
            yield Finding("damaged", f"{path}{of_run}", mend and _set_aside(home, path))
        elif name not in named and settled:
            unnamed.append(path)
    with log.database.session(write=mend) as session:  # a row may have come to name it since then
        for name in named_files(session, [path.stem for path in unnamed]):
            unnamed.remove(store.path(name))
        for path in unnamed:
            yield Finding("unnamed", str(path), mend and _set_aside(home, path))
    for name, run_id in named.items():
        if name not in there and run_id is not None:
            yield Finding("missing", f"{store.kind} of run {run_id}: {name}{store.suffix}")


def _thumbnails(home: Path, mend: bool) -> Iterator[Finding]:
    """Small prints of no picture, and such as cannot be drawn; whoever shows one makes it again."""
    thumbnails = Thumbnails(PictureStore(home / "pictures"))
    for path in sorted(thumbnails.folder.glob("*/*.webp")):
        try:
            useless = not thumbnails.pictures.path(path.stem).exists() or not whole(path)
        except StorageError:  # its name is no picture's
            useless = True
        if useless and _settled(path):
            yield Finding("thumbnail", str(path), mend and _removed(path))


def _removed(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {error}") from error
    return True


def _temporary(log: RunLog, mend: bool) -> Iterator[Finding]:
    home = log.path.parent
    folders = [home / name for name in ("pictures", "latents", "steps", FOLDER, EXPORTS)]
    with log.database.session() as session:
        waiting = {settings.get("file") for settings in session.scalars(
            select(JobRow.settings).where(JobRow.status.in_(GO_ON), JobRow.kind == "import"))
            if isinstance(settings, dict)}
    paths = [*home.glob(f"*{TEMPORARY}"), *home.glob(f".*{TEMPORARY}"),
             *(path for folder in folders for path in folder.rglob(f"*{TEMPORARY}")),
             *(path for path in (home / IMPORTS).glob("*") if path.name not in waiting)]
    for path in sorted(set(paths)):
        if not _settled(path):
            continue
        yield Finding("temporary", str(path), mend and _removed(path))


def _settled(path: Path) -> bool | None:
    """Whether a file was written a while ago; None where it is gone."""
    try:
        # Also what seems to come from the future: the clock was set back since.
        return abs(time.time() - path.stat().st_mtime) > SETTLED_SECONDS
    except OSError:
        return None


def _set_aside(home: Path, path: Path) -> bool:
    """Move a file to where it is in nobody's way."""
    target = home / SET_ASIDE / path.relative_to(home)
    try:
        make_folder(target.parent)
        path.replace(target)
    except OSError as error:
        raise StorageError(f"{path} cannot be moved to {target}: {error}") from error
    return True
