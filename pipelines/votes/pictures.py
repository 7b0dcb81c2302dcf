"""The pictures of a ballot as files that tell nothing of their method.

Each is encoded anew whenever it is asked for, from pixels alone, and cut at places drawn by chance:
no two files are alike, not even of one picture, so that neither a file nor an address made from its
hash can be found again on another ballot, on another page, or in a folder. What no encoding hides:
pixels that are equal. Who decodes two files can tell that they show one picture, as the eye can.
"""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipelines.errors import StorageError
from pipelines.votes.rows import BallotRow, VoteRow

if TYPE_CHECKING:
    from pipelines.engine import Engine

CHANCE = random.SystemRandom()
CUTS = 6  # of a file's compressed pixels


@dataclass(frozen=True)
class BallotPictures:
    """PNGs in the order of a ballot's places, all of one `size` (width, height)."""

    files: tuple[bytes, ...]
    size: tuple[int, int]


def ballot_pictures(engine: Engine, vote: VoteRow, ballot: BallotRow) -> BallotPictures | None:
    """The pictures of a ballot; None where one was deleted, or its file is missing or damaged.

    Pictures of different sizes are enlarged to the largest, which their sizes would give away.
    """
    if ballot.damage or not 0 <= ballot.scene < len(vote.scenes):
        return None
    run_ids = [vote.scenes[ballot.scene]["runs"][method] for method in ballot.methods]
    runs = {run.id: run for run in engine.run_log.runs_by_id(set(run_ids))
            if run.image_sha256 and not run.deleted_utc}
    try:
        pictures = [engine.pictures.get(runs[run_id].image_sha256).convert("RGB")
                    for run_id in run_ids]
    except (KeyError, StorageError):
        return None
    width, height = (max(sides) for sides in zip(*(p.size for p in pictures), strict=True))
    return BallotPictures(tuple(
        fresh_png(picture if picture.size == (width, height)
                  else picture.resize((width, height), Image.Resampling.LANCZOS))
        for picture in pictures), (width, height))


def fresh_png(image: Image.Image) -> bytes:
    """A PNG of an RGB picture with its pixels and nothing else, which no call writes twice."""
    pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    # Filter 1 of PNG: each pixel as its difference to the one on its left.
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    rows = np.hstack([np.ones((height, 1), np.uint8), differences.reshape(height, -1)]).tobytes()
    places = sorted(CHANCE.sample(range(1, len(rows)), min(CUTS, len(rows) - 1)))
    packer, packed = zlib.compressobj(6), []
    for start, end in zip([0, *places], [*places, len(rows)], strict=True):
        packed.append(packer.compress(rows[start:end]))
        packed.append(packer.flush(zlib.Z_FULL_FLUSH if end < len(rows) else zlib.Z_FINISH))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join([b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header),
                     _chunk(b"IDAT", b"".join(packed)), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
