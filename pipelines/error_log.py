"""What nobody foresaw: one line for the user, the traceback in a file of the data folder.

Errors of pipelines/errors.py say all that the user needs. Any other comes as a surprise, and
whoever mends it needs its traceback.
"""

from __future__ import annotations

import sys
import threading
import traceback
from pathlib import Path

from pipelines.errors import PipelineError, first_line
from pipelines.log_tables import utc_now
from pipelines.run_log import data_home

NAME = "errors.log"
LARGEST = 1_000_000  # bytes; then another file begins, and the one before is kept beside it

_lock = threading.Lock()


def one_line(error: Exception, home: Path | None = None) -> str:
    """What to tell the user of an error: its message where it is one of ours, else its kind, its
    message and where its traceback is now."""
    if isinstance(error, PipelineError):
        return str(error)
    kind, message = type(error).__name__, first_line(error)
    text = kind if message == kind else f"{kind}: {message}"
    return f"{text} (not foreseen; its traceback is {record(error, home)})"


def record(error: Exception, home: Path | None = None) -> str:
    """Write down a traceback, in the data folder; says where it stands."""
    lines = "".join(traceback.format_exception(error))
    try:
        path = (home or data_home()) / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock:
            _append(path, f"{utc_now()} Python {sys.version.split()[0]} {sys.platform}\n{lines}\n")
    except Exception:  # the data folder may be what is broken
        print(lines, file=sys.stderr)
        return "on standard error"
    return f"in {path}"


def append(home: Path, text: str) -> None:
    """Add what was recorded on another machine."""
    with _lock:
        _append(home / NAME, text)


def _append(path: Path, text: str) -> None:
    if path.exists() and path.stat().st_size > LARGEST:
        path.replace(path.with_name(f"{NAME}.1"))
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
