"""Pictures and latents beside the run log: files named by the SHA-256 of their bytes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import StorageError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class PictureStore:
    """PNG files named by the SHA-256 of their bytes."""

    kind = "a picture"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / f"{sha256}.png"

    def put(self, image: Image) -> str:
        """Store a picture once and return its name; raises StorageError."""
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return _put(self, buffer.getvalue())

    def size(self, sha256: str) -> tuple[int, int]:
        """Width and height of a stored picture, read from its header once; raises StorageError
        where it is missing or broken."""
        path = self.path(sha256)
        try:
            return _picture_size(path, path.stat().st_mtime_ns)
        except OSError as error:
            raise StorageError(f"picture {sha256[:12]} cannot be read: {error}") from error

    def get(self, sha256: str) -> Image:
        """Open a stored picture; raises StorageError where it is missing or broken."""
        from PIL import Image

        try:
            with Image.open(self.path(sha256)) as image:
                image.load()
                return image
        except OSError as error:
            raise StorageError(f"picture {sha256[:12]} cannot be read: {error}") from error


@functools.lru_cache(4096)
def _picture_size(path: Path, _changed: int) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as image:  # reads the header; pixels are decoded when they are asked for
        return image.size


class LatentStore:
    """Final latents as safetensors files named by the SHA-256 of their bytes.

    One tensor 'latents' each, without the batch dimension, in the dtype that the run had.
    """

    kind = "latents"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / f"{sha256}.safetensors"

    def put(self, latents: torch.Tensor) -> str:
        """Store latents once and return their name; raises StorageError."""
        from safetensors.torch import save

        return _put(self, save({"latents": latents.detach().cpu().contiguous()}))

    def get(self, sha256: str) -> torch.Tensor:
        """Open stored latents; raises StorageError where they are missing or broken."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self.path(sha256).read_bytes())["latents"]
        except (OSError, SafetensorError, KeyError) as error:
            raise StorageError(f"latents {sha256[:12]} cannot be read: {error}") from error


def _put(store: PictureStore | LatentStore, data: bytes) -> str:
    """Write a file once, to a temporary name that is then replaced; its SHA-256."""
    name = hashlib.sha256(data).hexdigest()
    path = store.path(name)
    if path.exists():
        return name
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise StorageError(
            f"{store.kind} cannot be written to {store.folder}: {error}"
        ) from error
    return name
