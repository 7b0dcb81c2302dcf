"""Exports and imports as jobs of the queue: what asks for them, and what does them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipelines.errors import Cancelled, RequestError, StorageError
from pipelines.exchange.bring_in import Imported, bring_in
from pipelines.exchange.formats import LOG_FORMATS
from pipelines.files import write_file, writing
from pipelines.job_log import PAUSE
from pipelines.log_tables import utc_now
from pipelines.run_filter import RunFilter

if TYPE_CHECKING:
    from pipelines.queue import Job, JobQueue, Work

EXPORTS, IMPORTS = "exports", "imports"  # folders of the data folder
AT_ONCE = 2**20


def submit_export(jobs: JobQueue, name: str, run_filter: RunFilter, **asked: str) -> Job:
    """Queue an export; its file will lie in `exports/`. `asked`: who asks (`JobQueue.submit`)."""
    form = LOG_FORMATS[name]
    moment = re.sub("[^0-9]", "", utc_now())[:14]
    file = f"contact-sheet-runs-{moment}{form.suffix}" if form.suffix else name
    return jobs.submit(
        "export", f"{form.label}: {file}", max(1, jobs.engine.run_log.exact_count(run_filter)),
        {"format": name, "filters": asdict(run_filter), "file": file},
        same=[name, asdict(run_filter)], **asked)


def do_export(work: Work, settings: Mapping[str, Any]) -> None:
    try:
        form = LOG_FORMATS[settings["format"]]
        run_filter = RunFilter(**settings["filters"])
        target = exports_folder(work.engine.home) / Path(settings["file"]).name
    except (TypeError, LookupError) as error:
        raise _unreadable(work) from error
    written = form.write(work.engine, target, run_filter, _watch(work))
    work.message = written.summary
    if written.left_out:
        work.message += f"; {len(written.left_out):,} left out"
        _keep_list(target, written.left_out)


def submit_import(jobs: JobQueue, name: str, data: BinaryIO, **asked: str) -> Job:
    """Queue the import of a file that somebody gives, which is kept until it has come in."""
    jobs.engine.run_log.database.check_writable()
    path = jobs.engine.home / IMPORTS / f"{secrets.token_hex(8)}.zip"
    try:
        with writing(path) as file:
            while part := data.read(AT_ONCE):
                file.write(part)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    return jobs.submit("import", name, 1, {"file": path.name, "name": name}, **asked)


def do_import(work: Work, settings: Mapping[str, Any]) -> None:
    try:
        path = work.engine.home / IMPORTS / Path(settings["file"]).name
        name = str(settings["name"])
    except (TypeError, LookupError) as error:
        raise _unreadable(work) from error
    try:
        imported = bring_in(work.engine, path, _watch(work))
    except RequestError as error:
        path.unlink(missing_ok=True)
        raise RequestError(str(error).replace(str(path), name)) from error
    except Cancelled:
        if work.wish != PAUSE:
            path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)
    work.message = imported.summary
    if imported.skipped:
        _keep_list(exports_folder(work.engine.home) / f"import-{work.id}", _lines(imported))


def exports_folder(home: Path) -> Path:
    return home / EXPORTS


def _lines(imported: Imported) -> list[str]:
    more = imported.skipped_count - len(imported.skipped)
    return [*imported.skipped, *([f"and {more:,} more"] if more else [])]


def _keep_list(beside: Path, lines: list[str] | tuple[str, ...]) -> None:
    """A text that says what was left out."""
    path = beside.with_name(f"{beside.name}-left-out.txt")
    try:
        write_file(path, "".join(f"{line}\n" for line in lines).encode(errors="replace"))
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


def _watch(work: Work) -> Any:
    def on_done(done: int, total: int) -> None:
        work.total = max(1, total)
        work.message = f"{done:,} of {total:,}"
        work.check_further()
        work.advance(max(0, done - work.done))

    return on_done


def _unreadable(work: Work) -> RequestError:
    return RequestError(f"job {work.id} ({work.row.kind}) cannot be read by this version")
