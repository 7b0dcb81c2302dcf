"""Votes: make one, hand out its link, see the answers come, reveal the results."""

from __future__ import annotations

import os
from urllib.parse import urlencode, urlsplit

import streamlit as st

from dashboard import state
from dashboard.browser import browser
from dashboard.components.recent import Recent, moment
from dashboard.components.text import notice, words
from dashboard.door import SECRET
from dashboard.last_net import last_net, polled
from dashboard.votes.results import show_results
from pipelines.errors import PipelineError
from pipelines.study.rows import study_rows
from pipelines.votes.design import (
    EQUAL_SHARE,
    LONGEST_QUESTION,
    LOOKS,
    MOST_BALLOTS,
    PROMPT,
    QUESTIONS,
    REPEAT_SHARE,
    SHARED_SHARE,
    length_of,
    new_vote,
)
from pipelines.votes.results import results_of
from pipelines.votes.rows import COMPARISON, STUDY, counts, reveal, vote_row, vote_rows

PAGE = state.VOTES
RECENT = Recent(PAGE, state.RESULTS, "vote", "votes")
OWN = "own"
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
ASKED = {PROMPT: "Closer to the prompt", LOOKS: "Better looking", OWN: "My own question"}
PICTURES = {2: "Two pictures", 4: "Four pictures"}
START = {"source": None, "question": PROMPT, "text": "", "pictures": 2, "ballots": 30}


def votes_page() -> None:
    PAGE.start(**START)
    vote_id = RECENT.chosen_id()
    title, list_of_recent = st.columns([3, 2], vertical_alignment="bottom")
    title.title("Votes")
    try:
        with list_of_recent:
            recent()
        PAGE.start(setup=vote_id is None)
        if (opened := PAGE.pop("setup.next")) is not None:
            PAGE.set("setup", opened)
        with st.expander("New vote", key=PAGE.key("setup"), on_change="rerun",
                         icon=":material/how_to_vote:"):
            made = setup()
        if made:
            RECENT.choose(made)
            st.rerun()
        if vote_id:
            st.query_params[state.RESULTS] = vote_id
            show(vote_id)
        else:
            words("Let people say which pictures they prefer, without knowing how they were made: "
                  "make a vote from a study or a comparison, and give its link to your voters.",
                  "quiet")
    except PipelineError as error:
        notice("error", str(error))


def recent() -> None:
    """A list of votes to open again."""
    RECENT.show({
        row.id: f"{moment(row.datetime_utc)} · {row.question} · {len(row.methods)} methods · "
                f"{row.id}"
        for row in vote_rows(state.engine().run_log, 30)})


def ask_people(source: str, source_id: str) -> None:
    """Fill the form with a study or comparison, and go to the page."""
    RECENT.choose(None)
    PAGE.set("source", f"{source} {source_id}")
    st.switch_page("views/votes.py")


def sources() -> dict[str, str]:
    """What can be voted on, the newest first: 'study ID' or 'comparison ID' and how it reads."""
    log = state.engine().run_log
    studies = study_rows(log, 30)
    # The pictures of a study are those of comparisons that bear its id.
    own = {row.id for row in studies}
    found = [(row.datetime_utc, f"{STUDY} {row.id}",
              f"{' × '.join(str(axis.get('name')) for axis in row.axes)} · {len(row.prompts)} "
              "prompts") for row in studies if not row.damage]
    found += [(row.datetime_utc, f"{COMPARISON} {row.id}", row.summary)
              for row in log.comparisons(60)
              if row.id.split("-")[0] not in own and not row.damage]
    return {key: f"{key.split()[0].capitalize()} · {when[5:16].replace('T', ' ')} · {text:.70} · "
                 f"{key.split()[1]}" for when, key, text in sorted(found, reverse=True)[:40]}


def setup() -> str | None:
    """The form; the id of the vote that was made just now."""
    offered, wanted = sources(), PAGE.get("source")
    if wanted and wanted not in offered:  # another page asked for an old one
        offered[wanted] = wanted.capitalize()
    if not offered:
        words("There is nothing to vote on yet: make a study, or a comparison of two methods or "
              "more, on its page.", "quiet")
        return None
    if not wanted:
        PAGE.set("source", next(iter(offered)))
    st.selectbox("Pictures of", list(offered), format_func=offered.get, **PAGE.kept("source"))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.segmented_control("Question", list(ASKED), format_func=ASKED.get, required=True,
                             **PAGE.kept("question"))
        st.segmented_control("On a ballot", list(PICTURES), format_func=PICTURES.get,
                             required=True, **PAGE.kept("pictures"))
        st.number_input("Ballots per voter", 1, MOST_BALLOTS, **PAGE.kept("ballots"), width=150)
    question = PAGE.get("question")
    if question == OWN:
        st.text_input("The question", max_chars=LONGEST_QUESTION, **PAGE.kept("text"),
                      placeholder="Which picture is sharper?")
        question = PAGE.get("text") or ""
    else:
        words(QUESTIONS[question] + (" Voters do not see the prompt." if question == LOOKS
                                     else ""), "quiet")
    words(f"Of each voter's ballots {EQUAL_SHARE:.0%} show one picture in every place, and "
          f"{REPEAT_SHARE:.0%} ask again what that voter was asked before; of the others about "
          f"{SHARED_SHARE:.0%} are ones that another voter had.".replace("%", " %"), "quiet")
    if not st.button("Make vote", type="primary", icon=":material/how_to_vote:",
                     key=PAGE.key("go"), disabled=not question.strip()):
        return None
    source, source_id = PAGE.get("source").split()
    return new_vote(state.engine(), source, source_id, question, PAGE.get("pictures"),
                    int(PAGE.get("ballots")), browser()).id


def show(vote_id: str) -> None:
    """One vote: its link and how many answered, or its results."""
    vote = vote_row(state.engine().run_log, vote_id)
    words(vote.question, "large")
    words(f"{len(vote.methods)} methods, {len(vote.scenes)} prompts and seeds, "
          f"{PICTURES[vote.pictures].lower()} on a ballot, {length_of(vote)} ballots for each "
          f"voter · {vote.source} {vote.source_id}", "quiet")
    if vote.revealed_utc:
        count = counts(state.engine().run_log, [vote_id])[vote_id]
        notice("good", f"Closed and revealed on {vote.revealed_utc[:16].replace('T', ' ')} UTC; "
                       f"{count.answers} answers of {count.voters} voters.")
        show_results(results_of(state.engine(), vote))
        return
    words("The link for your voters; nobody needs an account:")
    st.code(link(vote_id), language=None)
    if os.environ.get(SECRET):
        words("Who opens it is asked for the dashboard's password first.", "quiet")
    elif st.get_option("server.address") in THIS_MACHINE:
        words("Only this machine reaches the dashboard now; to let others vote, start it with "
              "contact-sheet --host 0.0.0.0.", "quiet")
    polled(progress)(vote_id)
    if vote.owner != browser():
        maker = "Another browser made this vote" if vote.owner else \
            "This vote was made on the command line"
        notice("note", f"{maker}, where its results can be revealed; on this machine: python -m "
                       f"pipelines votes reveal {vote_id}")
        return
    words("Nobody sees results before you reveal them. That closes the vote.", "quiet")
    with st.popover("Reveal results", icon=":material/visibility:"):
        words("No further answer is taken then. This cannot be undone.")
        st.button("Close the vote and reveal", type="primary", key=PAGE.key("reveal"),
                  on_click=last_net()(reveal),
                  args=(state.engine().run_log, vote_id, browser()))


def link(vote_id: str) -> str:
    """What a voter opens: the dashboard's own address."""
    address = urlsplit(st.context.url or "http://localhost:8501/")
    return f"{address.scheme}://{address.netloc}/?{urlencode({state.VOTE: vote_id})}"


def progress(vote_id: str) -> None:
    """How many voted by now."""
    count = counts(state.engine().run_log, [vote_id])[vote_id]
    closed = vote_row(state.engine().run_log, vote_id).revealed_utc
    if closed:  # on the command line, or in another tab
        st.rerun()
    if not count.voters:
        words("No answer yet.", "quiet")
        return
    extra = [f"{number} {text}" for number, text in ((count.skipped, "skipped"),
                                                     (count.gone, "left out")) if number]
    words(f"{count.answers} answers of {count.voters} voter{'s' * (count.voters != 1)}"
          + (f" ({', '.join(extra)})" if extra else ""), "large")
