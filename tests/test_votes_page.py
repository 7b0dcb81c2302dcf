"""The pages of votes, on the real engine and the bundled model, through AppTest."""

import pytest
from apptest import component_data, html, page

from dashboard import state
from pipelines import Comparison, RunRequest
from pipelines.votes.ballots import Ballot, answer, next_ballot
from pipelines.votes.design import new_vote
from pipelines.votes.rows import reveal, vote_rows

BASE = RunRequest(prompt="a red car", num_inference_steps=1, guidance_scale=1)


@pytest.fixture
def compared(home):
    state.engine().compare(Comparison.parse(BASE, ["scheduler=ddim,euler", "seed=0,1"]),
                           comparison_id="small", shared=True)
    return state.engine()


def test_an_owner_makes_a_vote_sees_answers_come_and_reveals(compared):
    app = page("votes")
    assert "Let people say which pictures they prefer" in html(app)
    app.button_group(key="votes.question").set_value("own").run()
    assert app.button(key="votes.go").disabled
    app.text_input(key="votes.text").set_value("Which one is <b>sharper</b>?").run()
    app.button(key="votes.go").click().run()
    assert not app.exception
    (row,) = vote_rows(compared.run_log)
    assert (row.question, row.source_id, row.methods) == (
        "Which one is <b>sharper</b>?", "small", ["DDIM", "Euler"])
    shown = html(app)
    assert "&lt;b&gt;sharper" in shown and "No answer yet" in shown
    assert app.code[0].value.endswith(f"/?vote={row.id}")
    ballot = next_ballot(compared, row.id, "a")
    answer(compared.run_log, row.id, "a", ballot.id, "1")
    app.run()
    assert "1 answers of 1 voter" in html(app) and "Euler" not in html(app)
    app.button(key="votes.reveal").click().run()
    assert not app.exception
    assert "DDIM" in html(app) and "nothing is told apart" in html(app)
    assert "Euler" in component_data(app, "contact_sheet.drawings")["drawings"][0]["drawing"]


def test_another_browser_sees_no_results_and_nothing_to_vote_on_is_said(home):
    assert "There is nothing to vote on yet" in html(page("votes"))
    engine = state.engine()
    engine.compare(Comparison.parse(BASE, ["scheduler=ddim,euler"]), comparison_id="two",
                   shared=True)
    vote = new_vote(engine, "comparison", "two", owner="ada")
    app = page("votes", results=vote.id)
    assert "Another browser made this vote" in html(app)
    assert not [button for button in app.button if button.key == "votes.reveal"]
    assert "vote nix is not in the log" in html(page("votes", results="nix"))


def test_a_voter_sees_the_ballot_and_nothing_else(compared):
    vote = new_vote(compared, "comparison", "small", ballots=2, owner="ada")
    app = page("generate", vote=vote.id)
    assert not app.exception and not app.sidebar.children
    data = component_data(app, "contact_sheet.ballot")
    assert data["question"] == "Which picture is closer to the prompt?"
    assert data["prompt"] == "a red car" and len(data["urls"]) == 2
    assert sorted(data) == ["ballot", "height", "number", "prompt", "question", "total", "urls",
                            "width"]
    everything = f"{data} {html(app)}".lower()
    assert not any(word in everything for word in ("ddim", "euler", "scheduler", "run"))
    browser = app.session_state["browser"]
    while isinstance(ballot := next_ballot(compared, vote.id, browser), Ballot):
        answer(compared.run_log, vote.id, browser, ballot.id, "tie")
    app.run()
    assert "Thank you, that was the last one" in html(app) and "2 ballots" in html(app)
    app.button(key="vote.back").click().run()
    assert component_data(app, "contact_sheet.ballot")["number"] == 2
    reveal(compared.run_log, vote.id, "ada")
    app.run()
    assert "This vote is closed" in html(app) and "DDIM" not in html(app)
    app.toggle(key="see").set_value(True).run()
    assert "DDIM" in html(app)
    assert "vote nix is not in the log" in html(page("generate", vote="nix"))
