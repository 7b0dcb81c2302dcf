"""What a page shows of the things that it made before, and the list to open them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st

from dashboard.state import PageState


def moment(datetime_utc: str) -> str:
    """Month, day and minute, as titles of such a list begin."""
    return datetime_utc[5:16].replace("T", " ")


@dataclass(frozen=True)
class Recent:
    """`key` names the id in the address and in the session; `noun`, `plural`: what it is."""

    page: PageState
    key: str
    noun: str
    plural: str

    def chosen_id(self) -> str | None:
        """The one on show: the address's, else the one this session looked at last."""
        if from_address := st.query_params.get(self.key):
            st.session_state[self.key] = from_address
        return st.session_state.get(self.key)

    def choose(self, chosen: str | None) -> None:
        """Show another one, or none; from the next script run on."""
        st.session_state[self.key] = chosen
        self.page.set("setup.next", chosen is None)
        if chosen:
            st.query_params[self.key] = chosen
        else:
            st.query_params.pop(self.key, None)

    def show(self, titles: Mapping[str, str]) -> None:
        """The list, by id. The browser sends a title back: each must be of one id alone."""
        current = st.session_state.get(self.key)
        self.page.set("recent", current if current in titles else None)
        st.selectbox(f"Open a {self.noun}", list(titles), key=self.page.key("recent"),
                     format_func=titles.__getitem__,
                     placeholder=(f"Recent {self.plural}" if titles or current
                                  else f"No {self.noun} yet"),
                     disabled=not titles, label_visibility="collapsed",
                     on_change=lambda: self.choose(self.page.get("recent")))
