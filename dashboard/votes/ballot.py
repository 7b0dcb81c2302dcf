"""A voter's page: one ballot after the other, and nothing that tells how a picture was made."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import state
from dashboard.browser import browser
from dashboard.components.text import notice, words
from dashboard.last_net import last_net
from dashboard.votes.results import show_results
from pipelines.errors import PipelineError
from pipelines.sheet.viewer.scripts import joined
from pipelines.votes.ballots import Ballot, Done, answer, next_ballot, take_back
from pipelines.votes.results import results_of
from pipelines.votes.rows import vote_row

HERE = Path(__file__).parent
KEY = "ballot"
BACK = "back"  # what the browser sends to take its last answer back
SEE = "see"  # whether the results are on show

_ballot = st.components.v2.component(
    "contact_sheet.ballot",
    html='<div class="ballot"></div>',
    css=(HERE / "ballot.css").read_text(encoding="utf-8"),
    js=joined(HERE / "ballot.js"),
)


def ballot_page() -> None:
    """The ballot that this browser has to answer now, or why there is none."""
    st.html(HERE / "page.css")
    vote_id = st.query_params[state.VOTE]
    try:
        step = next_ballot(state.engine(), vote_id, browser())
        if isinstance(step, Ballot):
            left_out_note(step.left_out)
            show(vote_id, step)
        else:
            ended(vote_id, step)
    except PipelineError as error:
        notice("error", str(error))


def show(vote_id: str, ballot: Ballot) -> None:
    """Pictures have addresses made of the hash of bytes that were never written before."""
    urls = [state.picture_url(picture, f"place-{place}")
            for place, picture in enumerate(ballot.pictures)]
    width, height = ballot.size
    _ballot(
        key=KEY,
        data={"ballot": ballot.id, "number": ballot.number, "total": ballot.total,
              "question": ballot.question, "prompt": ballot.prompt, "urls": urls,
              "width": width, "height": height},
        on_answer_change=keep_answer, height="content",
    )


@last_net()
def keep_answer() -> None:
    """Write what the browser sent, before the next ballot is drawn."""
    sent = (st.session_state.get(KEY) or {}).get("answer")
    vote_id = st.query_params.get(state.VOTE)
    if not sent or not vote_id:
        return
    log = state.engine().run_log
    if sent["answer"] == BACK:
        take_back(log, vote_id, browser())
    else:
        answer(log, vote_id, browser(), str(sent["ballot"]), str(sent["answer"]))


def ended(vote_id: str, done: Done) -> None:
    """Thanks, and the results where they may be shown."""
    left_out_note(done.left_out)
    given = f"You answered {done.answered} ballot{'s' * (done.answered != 1)}."
    if not done.closed:
        words("Thank you, that was the last one.", "large")
        words(f"{given} They are kept; you can close this page.")
        if done.answered:
            st.button("Back to the last one", icon=":material/undo:", key="vote.back",
                      on_click=last_net()(take_back),
                      args=(state.engine().run_log, vote_id, browser()))
        return
    words("This vote is closed.", "large")
    words(f"{given} Thank you." if done.answered else "It takes no further answers.")
    if st.toggle("See the results", key=SEE):
        engine = state.engine()
        show_results(results_of(engine, vote_row(engine.run_log, vote_id)))


def left_out_note(count: int) -> None:
    if count:
        notice("note", f"{count} ballot{'s' * (count != 1)} left out: a picture was deleted or "
                       "damaged.")
