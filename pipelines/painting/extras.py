"""What is computed beside a picture (previews, strips, measures) and must not cost it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from pipelines.errors import Cancelled, PipelineError, first_line

logger = logging.getLogger(__name__)


class Extras:
    """The extras of one run; those that fail are left out and become notes."""

    def __init__(self) -> None:
        self._missing: dict[str, str] = {}

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Compute what `name` tells the user; any error but Cancelled ends in a note."""
        try:
            yield
        except Cancelled:
            raise
        except Exception as error:
            if name not in self._missing:  # a preview fails at each step
                reason = first_line(error)
                if not isinstance(error, PipelineError):
                    logger.warning("%s: could not be computed", name, exc_info=True)
                    reason = f"{type(error).__name__}: {reason}"
                self._missing[name] = f"{name}: missing, since computing it failed ({reason})"

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._missing.values())
