"""The pictures of a model: which of its files to show, and small copies of them."""

from __future__ import annotations

from pipelines.errors import RequestError
from pipelines.hub.model import ModelDetails
from pipelines.inpainting.pictures_in import FORMATS, open_picture
from pipelines.pixels import flat

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PICTURE = 20_000_000  # bytes
PICTURE_SIDE = 1024  # pixels


def example_pictures(details: ModelDetails, most: int = 6) -> list[str]:
    """Paths of pictures in the repository: those that its card shows as outputs first."""
    paths = [file.path for file in details.files
             if file.suffix in PICTURE_SUFFIXES and file.size <= MAX_PICTURE]
    shown = [str((item.get("output") or {}).get("url", "")).removeprefix("./")
             for item in details.card.get("widget") or () if isinstance(item, dict)
             and isinstance(item.get("output"), dict)]
    first = [path for path in shown if path in paths]
    return list(dict.fromkeys([*first, *paths]))[:most]


def small_picture(content: bytes) -> bytes | None:
    """A picture made small enough to show; None where it is none."""
    import io

    try:
        picture = flat(open_picture(content, formats=(*FORMATS, "GIF")))
    except RequestError:
        return None
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    out = io.BytesIO()
    picture.save(out, "PNG" if max(picture.size) <= 256 else "JPEG", quality=88)
    return out.getvalue()
