"""JavaScript modules joined into one: neither a component nor a page on disk can import."""

from __future__ import annotations

import re
from pathlib import Path

IMPORT = re.compile(r'^import \{[^}]*\} from "(\.[^"]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


def joined(path: Path, seen: set[Path] | None = None) -> str:
    """The module behind what it imports, each once, without imports and exports but the default.

    All share one scope: two modules must not give the same name to different things.
    """
    seen = set() if seen is None else seen
    path = path.resolve()
    if path in seen:
        return ""
    seen.add(path)
    text = path.read_text(encoding="utf-8")
    before = [joined(path.parent / name, seen) for name in IMPORT.findall(text)]
    return "".join(before) + EXPORT.sub("", IMPORT.sub("", text))
