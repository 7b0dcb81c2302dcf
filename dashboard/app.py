"""Contact Sheet: the router."""

from pathlib import Path

import streamlit as st

from dashboard.components.queue import queue_panel
from dashboard.last_net import last_net
from dashboard.learn.class_mode import class_of_address, learner
from dashboard.state import VOTE, begin, end

icon = Path(__file__).parent / "icon.svg"
st.set_page_config("Contact Sheet", icon, layout="wide", initial_sidebar_state=240)
pages = [
    st.Page("views/generate.py", title="Generate", icon=":material/photo_camera:"),
    st.Page("views/inpaint.py", title="In-paint", icon=":material/brush:"),
    st.Page("views/compare.py", title="Compare", icon=":material/grid_on:"),
    st.Page("views/study.py", title="Study", icon=":material/query_stats:"),
    st.Page("views/votes.py", title="Votes", icon=":material/how_to_vote:"),
    st.Page("views/runs.py", title="Runs", icon=":material/list_alt:"),
    st.Page("views/hub.py", title="Hub", icon=":material/hub:"),
    st.Page("views/learn.py", title="Learn", icon=":material/school:"),
]
# A voter sees the ballot and nothing else, a learner of a class the question.
code, voting = class_of_address(), VOTE in st.query_params
if voting:
    page = st.navigation([st.Page("views/ballot.py", title="Vote")], position="hidden")
else:
    page = st.navigation({"Contact Sheet": pages}, position="hidden" if code else "sidebar")
with last_net():
    if code and not voting:
        learner(code)
    else:
        begin(page.title)
        if not voting:
            queue_panel()
        page.run()
        end()
