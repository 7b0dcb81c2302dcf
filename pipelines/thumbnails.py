"""Small prints of stored pictures, made once, when one is first shown.

They lie beside the pictures under the same names. One that was cut or changed is made again; all of
them may be deleted at any time.
"""

from __future__ import annotations

import functools
import io
import logging
from pathlib import Path

from pipelines.errors import StorageError
from pipelines.files import write_file
from pipelines.stores import PictureStore

logger = logging.getLogger(__name__)

FOLDER = "thumbnails"
SIDE = 192  # pixels of the longer side: three for each that a list gives it


class Thumbnails:
    """The small prints of a store's pictures, at most SIDE pixels a side."""

    def __init__(self, pictures: PictureStore) -> None:
        self.pictures, self.folder = pictures, pictures.folder.with_name(FOLDER)

    def path(self, sha256: str) -> Path:
        """Where the print of a picture lies, or would; raises StorageError for no SHA-256."""
        return self.folder / sha256[:2] / f"{self.pictures.path(sha256).stem}.webp"

    def get(self, sha256: str | None) -> Path | None:
        """The print of a picture, made now where there is none that is whole; the picture itself
        where that is small or nothing can be written, None where the picture is missing or
        damaged."""
        if sha256 is None:
            return None
        try:
            path = self.path(sha256)
            if whole(path):
                return path
            if max(self.pictures.size(sha256)) <= SIDE:
                return self.pictures.path(sha256)
            data = self._made(sha256)
        except StorageError:
            return None
        try:
            write_file(path, data)
        except OSError:  # a full disk, a folder that can only be read
            logger.debug("a thumbnail could not be kept", exc_info=True)
            return self.pictures.path(sha256)
        return path

    def _made(self, sha256: str) -> bytes:
        from PIL import Image

        image = self.pictures.get(sha256)
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=85, method=2)
        return buffer.getvalue()


def whole(path: Path) -> bool:
    """Whether a print is there and can be drawn; it is looked into once for each size and time of
    change."""
    try:
        stat = path.stat()
    except OSError:
        return False
    return _drawable(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(65_536)
def _drawable(path: Path, _size: int, _changed_ns: int, _number: int) -> bool:
    from PIL import Image

    try:
        with Image.open(path, formats=("WEBP",)) as image:
            image.load()
            return max(image.size) <= SIDE
    except Exception:  # a broken file may raise anything in a decoder
        return False
