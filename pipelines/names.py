"""Names of files: made from texts, for every system, and the SHA-256 of what they hold; and how the
name of a hosted model begins."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

LONGEST = 255  # bytes of a name that every usual file system takes
_KEPT = "=._+"
SHA256 = "[0-9a-f]{64}"  # as a pattern
Sha256 = Annotated[str, Field(pattern=f"^{SHA256}$")]  # names a file, so it is no path
HOSTED = "hf-inference:"  # begins the id of a model that a provider runs elsewhere


def is_hosted(model_id: str) -> bool:
    """Whether a provider runs a model, so that a request for it leaves this machine."""
    return model_id.startswith(HOSTED)


def file_names(texts: Sequence[str], longest: int = LONGEST) -> list[str]:
    """A file name for each text, of at most so many bytes in UTF-8 and of signs that POSIX and
    Windows allow; all are numbered where two would be one, also on a system that ignores case."""
    names = [_cut("".join(c if c.isalnum() or c in _KEPT else "-" for c in text), longest)
             for text in texts]
    if len({unicodedata.normalize("NFKC", name).casefold() for name in names}) == len(names):
        return names
    ends = [f"-{number}" for number in range(1, len(names) + 1)]
    return [_cut(name, longest - len(end)) + end for name, end in zip(names, ends, strict=True)]


def _cut(name: str, longest: int) -> str:
    """The start of a name, in whole characters; Windows allows no dot at its end."""
    return name.encode(errors="replace")[:longest].decode(errors="ignore").rstrip(".")
