"""Learn: lessons in which a guess comes first, and the answer is computed live."""

import streamlit as st

from pipelines.models.opening import warm_libraries


def main() -> None:
    with st.spinner("Loading torch and diffusers …", show_time=True):
        warm_libraries()
    from dashboard.learn.page import learn  # its lessons need both

    learn()


st.title("Learn")
main()
