"""The last net under everything that a page draws."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import streamlit as st

from dashboard import state
from dashboard.components.text import notice
from pipelines.error_log import one_line


@contextlib.contextmanager
def last_net() -> Iterator[None]:
    """Show an error as one line where it happened, and go on behind it; also a decorator.

    Streamlit's own way to stop or rerun a script is no Exception, and passes.
    """
    try:
        yield
    except Exception as error:
        notice("error", one_line(error))


def polled(draw: Callable) -> Callable:
    """A part of a page that is drawn again and again while work is under way, over a net of its
    own: Streamlit draws it apart from its page."""
    return st.fragment(last_net()(draw), run_every=state.poll_seconds())
