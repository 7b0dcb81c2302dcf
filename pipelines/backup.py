"""The whole data folder in one file, and back.

A ZIP archive: `backup.json`, the database as it was at one moment, and the files that lay beside
it. Files are written before the rows that name them, so every row of the copy has its picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from pipelines.database import Database
from pipelines.doctor import SET_ASIDE
from pipelines.errors import RequestError, StorageError, first_line
from pipelines.files import make_folder, temporary_name, writing
from pipelines.hub.folders import FOLDERS
from pipelines.log_tables import utc_now
from pipelines.names import SHA256
from pipelines.schema import migrate

DATABASE, ABOUT, FORMAT = "runs.sqlite", "backup.json", 1
HASHED = re.compile(rf"(pictures|latents)/[0-9a-f]{{2}}/({SHA256})\.(png|safetensors)")
ALLOWED = re.compile(rf"{HASHED.pattern}|steps/{SHA256}\.safetensors|{re.escape(FOLDERS)}")


@dataclass(frozen=True)
class Summary:
    """What is in a backup."""

    runs: int
    files: int
    size: int


def back_up(home: Path, target: Path, on_file: Callable[[], None] | None = None) -> Summary:
    """Write a data folder into one file, while it may be in use. Raises StorageError; what was
    there before stays then."""
    source = home / DATABASE
    if not source.exists():
        raise StorageError(f"{home} holds no run log, so there is nothing to back up")
    copy = temporary_name(target.absolute())
    files = 0
    try:
        Database(source).copy_to(copy)
        with contextlib.closing(sqlite3.connect(copy)) as database:
            runs = database.execute("SELECT count(*) FROM runs").fetchone()[0]
        with writing(target.absolute()) as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr(ABOUT, json.dumps({"format": FORMAT, "datetime_utc": utc_now(),
                                                "runs": runs}))
            archive.write(copy, DATABASE, zipfile.ZIP_DEFLATED)
            for path in sorted(home.rglob("*")):
                name = path.relative_to(home).as_posix()
                if ALLOWED.fullmatch(name) and path.is_file():
                    archive.write(path, name)
                    files += 1
                    if on_file:
                        on_file()
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{target} cannot be written: {_reason(error)}") from error
    finally:
        copy.unlink(missing_ok=True)
    return Summary(runs, files, target.stat().st_size)


def restore(
    source: Path, home: Path, overwrite: bool = False, on_file: Callable[[], None] | None = None
) -> Summary:
    """Bring a data folder back from a backup. Raises RequestError where the file is no backup or
    the folder holds a log and `overwrite` was not said, StorageError where it is damaged or cannot
    be written. A log that is replaced is kept in `set-aside/`."""
    present = home / DATABASE
    if present.exists() and not overwrite:
        raise RequestError(f"restore: {home} holds a run log already; --overwrite replaces it and "
                           f"keeps it in {home / SET_ASIDE}")
    new = temporary_name(present)
    try:
        make_folder(home)
        with _opened(source) as archive:
            names = archive.namelist()
            about = json.loads(archive.read(ABOUT))
            with archive.open(DATABASE) as packed, new.open("xb") as file:
                shutil.copyfileobj(packed, file)
            _check(new)
            files = [name for name in names if name not in (ABOUT, DATABASE)]
            for name in files:  # before the rows that name them
                _unpack(archive, name, home / name)
                if on_file:
                    on_file()
        _put_aside(home)
        with writing(present) as target, new.open("rb") as file:
            shutil.copyfileobj(file, target)
        return Summary(about["runs"], len(files), source.stat().st_size)
    except (OSError, zipfile.BadZipFile) as error:
        raise StorageError(f"{source} cannot be restored: {_reason(error)}") from error
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            new.with_name(new.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[zipfile.ZipFile]:
    """An archive that holds what a backup holds, and no more; raises RequestError."""
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(source))
            names = archive.namelist()
            about = json.loads(archive.read(ABOUT)) if ABOUT in names else None
        except FileNotFoundError:
            raise RequestError(f"restore: there is no file {source}") from None
        except (zipfile.BadZipFile, ValueError) as error:
            raise RequestError(f"restore: {source} is no backup, or is damaged: {error}") from error
        if not (isinstance(about, dict) and isinstance(about.get("runs"), int)
                and DATABASE in names):
            raise RequestError(f"restore: {source} is no backup; accepted a file that `backup` "
                               "wrote")
        if about.get("format") != FORMAT:
            raise RequestError(f"restore: {source} was written by a newer version (format "
                               f"{about.get('format')!r}); update first")
        for name in names:
            if name not in (ABOUT, DATABASE) and not ALLOWED.fullmatch(name):
                raise RequestError(f"restore: {source} holds {name[:80]!r}, which no backup does")
        yield archive


def _check(database: Path) -> None:
    """Raise StorageError where the database of a backup is damaged or from a newer version."""
    engine = create_engine(f"sqlite:///{database}")
    try:
        migrate(database, engine)
        with engine.connect() as connection:
            answer = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    except SQLAlchemyError as error:
        answer = first_line(getattr(error, "orig", None) or error)
    finally:
        engine.dispose()
    if answer != "ok":
        raise StorageError(f"the database of the backup is damaged: {answer}")


def _unpack(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    """Write a file of a backup; one that is named by its bytes must have them."""
    if target.exists() and HASHED.fullmatch(name):
        with target.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == target.stem:
                return
    with writing(target) as file, archive.open(name) as packed:
        digest = hashlib.sha256()
        while data := packed.read(2**20):
            digest.update(data)
            file.write(data)
        if (hashed := HASHED.fullmatch(name)) and digest.hexdigest() != hashed[2]:
            raise StorageError(f"{name} of the backup is damaged")


def _put_aside(home: Path) -> None:
    """Move the log that is there out of the way, with what SQLite keeps beside it."""
    if not (home / DATABASE).exists():
        return
    folder = home / SET_ASIDE / f"log-{re.sub('[^0-9]', '', utc_now())[:17]}"
    make_folder(folder)
    for suffix in ("-shm", "-wal", ""):
        path = home / f"{DATABASE}{suffix}"
        if path.exists():
            path.replace(folder / path.name)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
