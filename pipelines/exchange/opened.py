"""An exported log as it is read: a file from anywhere, so nothing in it is believed.

Before a row is read, its list of files must be one that an export writes, within bounds: no other
names, no path that leads out, nothing packed so that it grows beyond measure.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.database import Unreadable, read_json
from pipelines.errors import RequestError, StorageError
from pipelines.exchange.archive import ABOUT, FORMAT, KIND, TABLES
from pipelines.inpainting.pictures_in import check_size
from pipelines.stores import PictureStore, Store

LONGEST_LINE = 16 * 2**20  # bytes of a row
LARGEST_FILE = 512 * 2**20  # bytes of a picture, or of latents
MOST_TIMES = 200  # that a file of rows may be larger than it is packed
FREE = 200 * 10**6  # bytes of the disk that stay free
FILE = re.compile(r"(?:pictures/([0-9a-f]{2})/\1[0-9a-f]{62}\.png"
                  r"|latents/([0-9a-f]{2})/\2[0-9a-f]{62}\.safetensors)")
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError,
          OSError)  # what a broken, encrypted or oddly packed member raises


class Opened:
    """The rows and files of an exported log."""

    def __init__(self, source: Path, archive: zipfile.ZipFile, room: Path) -> None:
        """Raises RequestError where it is no exported log; `room` is a folder of the disk that it
        goes to."""
        self.source, self._archive = source, archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        self.about = self._checked(room)

    def _checked(self, room: Path) -> dict[str, Any]:
        tables = {f"{name}.jsonl" for name in TABLES}
        files = 0
        for info in self._archive.infolist():
            name = info.filename
            if name in self._members:
                raise self._refused(f"holds {name:.80} twice")
            if name != ABOUT and name not in tables and not FILE.fullmatch(name):
                raise self._refused(f"holds {name[:80]!r}, which no export of this version does")
            if info.flag_bits & 1:
                raise self._refused(f"holds {name:.80} encrypted")
            of_rows = name in tables or name == ABOUT
            times = info.file_size / max(1, info.compress_size)
            if (info.file_size > 2**20 and times > MOST_TIMES if of_rows
                    else info.file_size > LARGEST_FILE or times > 2):
                raise self._refused(f"would unpack {name:.80} from {info.compress_size:,} to "
                                    f"{info.file_size:,} bytes, which no export does")
            files += 0 if of_rows else info.file_size
            self._members[name] = info
        about = self._about()
        if (free := shutil.disk_usage(room).free) < files + FREE:
            raise StorageError(f"import: {self.source} needs up to {files / 1e9:.1f} GB, and "
                               f"{free / 1e9:.1f} GB are free")
        return about

    def _about(self) -> dict[str, Any]:
        try:
            info = self._members[ABOUT]
            about = read_json(self._archive.read(info).decode()) if info.file_size < 2**16 else None
        except (KeyError, *BROKEN):
            about = None
        if not isinstance(about, dict) or about.get("kind") != KIND:
            raise self._refused("is no exported log; accepted a file that `export` wrote")
        if about.get("format") != FORMAT:
            raise self._refused(f"was written by a newer version ({about.get('version')!r:.40}, "
                                f"format {about.get('format')!r:.20}); update first")
        return about

    def _refused(self, reason: str) -> RequestError:
        return RequestError(f"import: {self.source} {reason}")

    def lines(self, table: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """The rows of a table with their numbers, or what is wrong with a line."""
        info = self._members.get(f"{table}.jsonl")
        if info is None:
            return
        number = 0
        try:
            with self._archive.open(info) as file:
                while line := file.readline(LONGEST_LINE + 1):
                    number += 1
                    if len(line) > LONGEST_LINE:
                        yield number, f"longer than {LONGEST_LINE:,} bytes"
                        while line and not line.endswith(b"\n"):
                            line = file.readline(LONGEST_LINE)
                        continue
                    yield number, _row(line)
        except BROKEN as error:
            yield number + 1, f"the rest of the file cannot be read: {error or type(error)}"

    def rows_of(self, table: str) -> int:
        """How many runs the file says that it holds; 0 where it does not."""
        count = self.about.get(table)
        return count if isinstance(count, int) and count > 0 else 0

    def bring(self, store: Store, name: str) -> str:
        """Put a file into a store, where it is not whole there; '' or why it cannot be."""
        if store.whole(name):
            return ""
        member = store.path(name).relative_to(store.folder.parent).as_posix()
        info = self._members.get(member)
        if info is None:
            return "is not in the file"
        try:
            data = self._archive.read(info)
        except BROKEN as error:
            return f"is damaged in the file: {error or type(error).__name__}"
        if hashlib.sha256(data).hexdigest() != name:
            return "is damaged in the file: its bytes are not what its name says"
        if reason := (_no_picture(data) if isinstance(store, PictureStore) else _no_latents(data)):
            return reason
        store.write(data)
        return ""


@contextlib.contextmanager
def opened(source: Path, room: Path) -> Iterator[Opened]:
    """An exported log; raises RequestError where the file is none, or holds what none does."""
    try:
        archive = zipfile.ZipFile(source)
    except FileNotFoundError:
        raise RequestError(f"import: there is no file {source}") from None
    except IsADirectoryError:
        raise RequestError(f"import: {source} is a folder; accepted a file that `export` wrote"
                           ) from None
    except BROKEN as error:
        raise RequestError(f"import: {source} is no ZIP file, or is damaged: {error}") from error
    with archive:
        yield Opened(source, archive, room)


def _row(line: bytes) -> dict[str, Any] | str:
    try:
        row = read_json(line.decode())
    except UnicodeDecodeError:
        return "no UTF-8"
    if isinstance(row, Unreadable) or not isinstance(row, dict):
        return f"no row: {line[:60].strip()!r}"
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in row.values()):
        return "holds a number that no column can"
    return row


def _no_picture(data: bytes) -> str:
    """Why bytes are no picture of a store; '' where they are one."""
    from PIL import Image

    try:
        with (warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
              Image.open(io.BytesIO(data), formats=("PNG",)) as image):
            check_size(*image.size)
            image.verify()
    except RequestError as error:
        return f"is refused: {error}"
    except Image.DecompressionBombError:
        return "has more pixels than a picture may have"
    except Exception:  # a broken file may raise anything in a decoder
        return "is no PNG"
    return ""


def _no_latents(data: bytes) -> str:
    """Why bytes are no latents of a store; '' where they are some."""
    from safetensors import SafetensorError, deserialize

    try:
        names = [name for name, _ in deserialize(data)]
    except SafetensorError:
        names = []
    return "" if names == ["latents"] else "holds no latents"
