"""Pictures and latents beside the run log: files named by the SHA-256 of their bytes.

The name says what must be in a file, so a file is never believed because it is there: one that was
cut, emptied or changed counts as missing, and is written again where somebody has its bytes.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.colour import to_srgb
from pipelines.errors import StorageError
from pipelines.files import sha256_of, write_file
from pipelines.names import SHA256
from pipelines.pixels import NOTES, PROFILE, notes_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


RECENT_NS = 10**9


class Store:
    """Files of one kind. Raises StorageError for a name that is no SHA-256, too: it may come from
    a request or a log, and is part of a path."""

    kind: str  # of what is in a file, for messages: "a picture"
    suffix: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the file lies, or would."""
        if not (isinstance(sha256, str) and re.fullmatch(SHA256, sha256)):
            received = repr(sha256)[:80]
            raise StorageError(f"{self.kind}: received the name {received}, accepted a SHA-256: "
                               "64 hex digits")
        return self.folder / sha256[:2] / f"{sha256}{self.suffix}"

    def whole(self, sha256: str | None) -> bool:
        """Whether a file is there with the bytes that its name tells: they are read once, and again
        when its size or its time has changed. False for None and for 'to come', too."""
        try:
            path = self.path(sha256)
            stat = path.stat()
            # What was written just now may be written again at what the clock takes for one time.
            recent = time.time_ns() - stat.st_mtime_ns < RECENT_NS
            hashed = sha256_of.__wrapped__ if recent else sha256_of
            return hashed(path, stat.st_size, stat.st_mtime_ns, stat.st_ino) == sha256
        except (OSError, StorageError):
            return False

    def read(self, sha256: str) -> bytes:
        """The bytes of a file; raises StorageError where it is missing or damaged."""
        try:
            data = self.path(sha256).read_bytes()
        except OSError as error:
            raise self._unreadable(sha256, error) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._unreadable(sha256, f"the file is damaged, {len(data):,} bytes are left")
        return data

    def write(self, data: bytes) -> str:
        """Store bytes and return their name, once they are on the disk; there is never half a file.
        Raises StorageError."""
        name = hashlib.sha256(data).hexdigest()
        if self.whole(name):
            return name
        try:
            write_file(self.path(name), data)
        except OSError as error:
            raise StorageError(
                f"{self.kind} cannot be written to {self.folder}: {error}"
            ) from error
        return name

    def bytes_of(self, sha256: str) -> int | None:
        """The length of a file, whole or not; None where there is none."""
        try:
            return self.path(sha256).stat().st_size
        except (OSError, StorageError):
            return None

    def remove(self, sha256: str) -> None:
        """Delete a file, if it is there; raises StorageError."""
        try:
            self.path(sha256).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path(sha256)} cannot be removed: {error}") from error

    def _unreadable(self, sha256: str, reason: object) -> StorageError:
        kind = self.kind.removeprefix("a ")
        return StorageError(f"{kind} {sha256[:12]} cannot be read: {reason}")


class PictureStore(Store):
    """PNG files in sRGB."""

    kind, suffix = "a picture", ".png"

    def put(self, image: Image) -> str:
        """Store a picture once and return its name; raises StorageError.

        Its colours are made sRGB, whatever profile it brings. Of what else it says of itself, only
        what was changed on its way in is kept, and the profile that its colours had before.
        """
        from PIL.PngImagePlugin import PngInfo

        if image.info.get("icc_profile"):
            image = to_srgb(image.copy())
        text = PngInfo()
        if notes := notes_of(image):
            text.add_itxt(NOTES, "\n".join(notes))
        if profile := image.info.get(PROFILE):
            text.add_text(PROFILE, profile)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", pnginfo=text, icc_profile=None)
        return self.write(buffer.getvalue())

    def remove(self, sha256: str) -> None:
        """Delete a picture and its small print (thumbnails.py)."""
        from pipelines.thumbnails import Thumbnails

        super().remove(sha256)
        try:
            Thumbnails(self).path(sha256).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"the thumbnail of {sha256} cannot be removed: {error}") from error

    def size(self, sha256: str) -> tuple[int, int]:
        """Width and height of a stored picture, read from its header once; raises StorageError
        where it is missing or damaged."""
        return self._header(sha256)[0]

    def notes(self, sha256: str) -> tuple[str, ...]:
        """What was changed of a stored picture on its way in, as `size` reads it."""
        return self._header(sha256)[1]

    def get(self, sha256: str) -> Image:
        """Open a stored picture; raises StorageError where it is missing or damaged."""
        from PIL import Image

        data = self.read(sha256)
        try:
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                image.load()
                return image
        except Exception as error:  # no PNG, under its right name
            raise self._unreadable(sha256, error) from error

    def _header(self, sha256: str) -> tuple[tuple[int, int], tuple[str, ...]]:
        path = self.path(sha256)
        try:
            if self.whole(sha256):
                return _png_header(path)
            path.stat()
            reason: object = "the file is damaged"
        except Exception as error:  # it is missing, or no PNG
            reason = error
        raise self._unreadable(sha256, reason)


@functools.lru_cache(4096)
def _png_header(path: Path) -> tuple[tuple[int, int], tuple[str, ...]]:
    from PIL import Image

    with Image.open(path) as image:  # reads the header; pixels are decoded when they are asked for
        return image.size, notes_of(image)


class LatentStore(Store):
    """Final latents as safetensors files.

    One tensor 'latents' each, without the batch dimension, in the dtype that the run had.
    """

    kind, suffix = "latents", ".safetensors"

    def put(self, latents: torch.Tensor) -> str:
        """Store latents once and return their name; raises StorageError."""
        from safetensors.torch import save

        return self.write(save({"latents": latents.detach().cpu().contiguous()}))

    def get(self, sha256: str) -> torch.Tensor:
        """Open stored latents; raises StorageError where they are missing or damaged."""
        from safetensors.torch import load

        data = self.read(sha256)
        try:
            return load(data)["latents"]
        except Exception as error:  # no safetensors, under their right name
            raise self._unreadable(sha256, error) from error
