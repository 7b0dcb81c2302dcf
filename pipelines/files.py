"""Files that are whole or not there, after a kill or a power cut, too."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"  # the suffix of a file that is being written


def temporary_name(path: Path) -> Path:
    """A name in the same folder that nobody has."""
    return path.with_name(f".{secrets.token_hex(8)}{TEMPORARY}")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` at the end, once it is on the disk; what was there
    stays until then, and after any error. Makes the folder; raises OSError."""
    make_folder(path.parent)
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file all at once; see `writing`."""
    with writing(path) as file:
        file.write(data)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they outlast a power cut; raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush_folder(folder.parent)


@functools.lru_cache(65_536)
def sha256_of(path: Path, _size: int, _changed_ns: int, _number: int) -> str:
    """SHA-256 of a file, read once for each size, time of change and inode; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, on systems that open folders."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(number)
