"""Blind votes on the bundled model's pictures: who is shown what, what is kept, what is told."""

import io
import json
import random
import shutil
import struct
import threading
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from pipelines import Comparison, Engine, RequestError, RunRequest
from pipelines.run_marks import RunMarks
from pipelines.study.conduct import conduct
from pipelines.study.design import Study, parse_methods
from pipelines.study.prompts import bundled_prompts
from pipelines.votes.ballots import Ballot, Done, answer, next_ballot, plan, take_back, voter_of
from pipelines.votes.design import items_of, length_of, new_vote
from pipelines.votes.pictures import fresh_png
from pipelines.votes.results import results_of
from pipelines.votes.rows import BallotRow, ballot_rows, counts, reveal, vote_row, vote_rows

BASE = RunRequest(prompt="a red car", num_inference_steps=1, guidance_scale=1)


@pytest.fixture(scope="module")
def painted(session_engine, tmp_path_factory):
    """A data folder with comparisons; 'small' has three schedulers, two prompts, three seeds."""
    engine = Engine(tmp_path_factory.mktemp("painted"), device="cpu")
    engine.registry = session_engine.registry
    for name, axes in (
        ("small", ["scheduler=ddim,euler,heun", "seed=0..2",
                   "prompt=a red car||a blue boat at sea"]),
        ("one", ["seed=0,1"]), ("sizes", ["height=32,64"]),
        ("five", ["scheduler=ddim,euler,heun,dpmpp_2m,unipc"]),
    ):
        engine.compare(Comparison.parse(BASE, axes), comparison_id=name, shared=True)
    return engine.home


@pytest.fixture
def compared(painted, session_engine, tmp_path):
    """An engine on a copy of it."""
    shutil.copytree(painted, tmp_path / "home")
    engine = Engine(tmp_path / "home", device="cpu")
    engine.registry = session_engine.registry
    return engine


def logged(engine):
    """Every ballot, answered or not."""
    with engine.run_log.database.session() as session:
        return session.scalars(select(BallotRow).order_by(BallotRow.position)).all()


def cast(engine, vote, browser, choose=lambda ballot, row: "tie", most=1000):
    """Let a voter answer; `choose(ballot, row)` gives each answer."""
    given = 0
    while given < most and isinstance(ballot := next_ballot(engine, vote.id, browser), Ballot):
        with engine.run_log.database.session() as session:
            row = session.get(BallotRow, ballot.id)
        assert answer(engine.run_log, vote.id, browser, ballot.id, choose(ballot, row))
        given += 1
    return given


def chunks(png):
    """The kinds of a PNG's chunks."""
    kinds, at = [], 8
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at:at + 4]), png[at + 4:at + 8]
        kinds.append(kind)
        at += 12 + length
    return kinds


def test_a_comparison_becomes_a_vote_of_its_methods_over_prompts_and_seeds(compared):
    vote = new_vote(compared, "comparison", "small")
    assert vote.methods == ["DDIM", "Euler", "Heun"]
    assert {(scene["prompt"], scene["seed"]) for scene in vote.scenes} == {
        (prompt, seed) for prompt in ("a red car", "a blue boat at sea") for seed in range(3)}
    runs = compared.run_log.runs_by_id([n for scene in vote.scenes for n in scene["runs"]])
    assert len({run.id for run in runs}) == 18
    by_id = {run.id: run for run in runs}
    for scene in vote.scenes:
        for scheduler, run in zip(("ddim", "euler", "heun"), scene["runs"], strict=True):
            run = by_id[run]
            assert (run.scheduler, run.prompt, run.seed) == (
                scheduler, scene["prompt"], scene["seed"])
    assert len(items_of(vote)) == 6 * 3 and length_of(vote) == 22
    best = new_vote(compared, "comparison", "small", ballots=7)
    assert length_of(best) == 7
    assert vote_row(compared.run_log, vote.id).scenes == vote.scenes
    assert {row.id for row in vote_rows(compared.run_log)} == {vote.id, best.id}


@pytest.mark.parametrize(("change", "part"), [
    ({"pictures": 3}, "pictures: received 3, accepted 2 or 4"),
    ({"pictures": 4}, "no prompt and seed has 4 pictures"),
    ({"question": "  "}, "question: received 0 characters"),
    ({"question": "?" * 201}, "received 201 characters"),
    ({"ballots": 0}, "ballots: received 0, accepted 1 to 500"),
    ({"source": "run"}, "source: received 'run', accepted study or comparison"),
    ({"source_id": "nix"}, "comparison nix is not in the log"),
    ({"source": "study", "source_id": "nix"}, "study nix is not in the log"),
    ({"source_id": "one"}, "received 1 methods"),
])
def test_what_cannot_be_voted_on(compared, change, part):
    with pytest.raises(RequestError, match=part.replace("?", r"\?")):
        new_vote(compared, **{"source": "comparison", "source_id": "small", **change})


def test_ballots_mix_new_ones_equal_pictures_and_repeats_with_sides_by_chance(compared):
    vote = new_vote(compared, "comparison", "small")
    for browser in "abc":
        assert cast(compared, vote, browser) == 22
    rows = logged(compared)
    kinds = Counter(row.kind for row in rows)
    assert kinds["equal"] == kinds["repeat"] == 3 * 2
    assert 0 < kinds["shared"] <= 3 * 5 and kinds.total() == 66
    left = Counter(row.methods[0] for row in rows if row.kind != "equal")
    assert set(left) == {0, 1, 2} and min(left.values()) > 8, "sides are drawn by chance"
    by_id = {row.id: row for row in rows}
    for row in rows:
        assert len(set(row.methods)) == (1 if row.kind == "equal" else 2)
        if row.kind == "repeat":
            first = by_id[row.repeat_of]
            assert (first.scene, sorted(first.methods), first.voter) == (
                row.scene, sorted(row.methods), row.voter)
            assert row.position >= 10 and row.position - first.position > 2
    asked = Counter((row.scene, *sorted(row.methods)) for row in rows
                    if row.kind in ("new", "shared"))
    assert set(asked.values()) == {3}, "each voter has each once, and none twice"
    assert plan(vote, "x") != plan(vote, "y")


def test_few_answers_are_spread_evenly(compared):
    vote = new_vote(compared, "comparison", "small", ballots=4)
    for browser in "abc":
        cast(compared, vote, browser)
    pairs = Counter(tuple(sorted(row.methods)) for row in logged(compared))
    assert pairs.total() == 12 and min(pairs.values()) >= 3


def test_a_ballot_tells_nothing_of_its_methods(compared):
    vote = new_vote(compared, "comparison", "small", "looks", ballots=8)
    files = set()
    while isinstance(ballot := next_ballot(compared, vote.id, "a"), Ballot):
        again = next_ballot(compared, vote.id, "a")
        assert again.id == ballot.id and again.prompt is None
        row = next(row for row in logged(compared) if row.id == ballot.id)
        for file, same, method in zip(ballot.pictures, again.pictures, row.methods, strict=True):
            run = compared.run_log.run(vote.scenes[row.scene]["runs"][method])
            stored = compared.pictures.get(run.image_sha256)
            assert chunks(file) == [b"IHDR", b"IDAT", b"IEND"]
            assert (np.asarray(Image.open(io.BytesIO(file))) == np.asarray(stored)).all()
            assert file != same, "encoded anew each time"
            files |= {file, same}
        shown = repr(ballot)
        assert not any(name.lower() in shown.lower() for name in vote.methods)
        answer(compared.run_log, vote.id, "a", ballot.id, "1")
    assert len(files) == 8 * 4, "no file is like another, not even of equal pictures"


def test_pictures_of_other_sizes_are_made_equal(compared):
    vote = new_vote(compared, "comparison", "sizes")
    ballot = next_ballot(compared, vote.id, "a")
    assert ballot.size == (64, 64) and ballot.total == 1
    assert {Image.open(io.BytesIO(file)).size for file in ballot.pictures} == {(64, 64)}
    one = Image.new("RGB", (1, 1), (5, 6, 7))
    assert Image.open(io.BytesIO(fresh_png(one))).getpixel((0, 0)) == (5, 6, 7)


def test_double_clicks_reloads_and_taking_back(compared):
    log = compared.run_log
    vote = new_vote(compared, "comparison", "small", ballots=5)
    first = next_ballot(compared, vote.id, "a")
    assert (first.number, first.total, first.prompt in ("a red car", "a blue boat at sea")) == (
        1, 5, True)
    assert not take_back(log, vote.id, "a")
    assert not answer(log, vote.id, "b", first.id, "1"), "another voter's ballot"
    assert answer(log, vote.id, "a", first.id, "1")
    assert not answer(log, vote.id, "a", first.id, "2"), "the first answer counts"
    assert ballot_rows(log, vote.id)[0].answer == "1"
    with pytest.raises(RequestError, match="received '3', accepted 1, 2, tie, skip"):
        answer(log, vote.id, "a", first.id, "3")
    second = next_ballot(compared, vote.id, "a")
    assert second.number == 2 and second.id == next_ballot(compared, vote.id, "a").id
    assert take_back(log, vote.id, "a")
    assert next_ballot(compared, vote.id, "a").id == first.id
    assert answer(log, vote.id, "a", first.id, "skip")
    assert next_ballot(compared, vote.id, "a").id == second.id
    cast(compared, vote, "a")
    assert next_ballot(compared, vote.id, "a") == Done(5, 0, False)
    count = counts(log, [vote.id])[vote.id]
    assert (count.voters, count.answers, count.skipped) == (1, 4, 1)


def test_a_deleted_or_damaged_picture_is_passed_over_and_said(compared):
    vote = new_vote(compared, "comparison", "small", ballots=30)
    gone = [scene["runs"][0] for scene in vote.scenes]
    RunMarks(compared.run_log).delete(gone[:3])
    for run in compared.run_log.runs_by_id(gone[3:]):
        compared.pictures.path(run.image_sha256).write_bytes(b"no picture")
    answered = cast(compared, vote, "a")
    done = next_ballot(compared, vote.id, "a")
    assert done.left_out > 5 and done.answered == answered < 16
    assert all(0 not in row.methods for row in logged(compared) if row.answer != "gone")
    reveal(compared.run_log, vote.id, "")
    assert any("a picture was deleted or damaged" in note
               for note in results_of(compared, vote_row(compared.run_log, vote.id)).notes)
    assert all(scene["runs"][0] is None or scene["runs"][0] not in gone[:3]
               for scene in new_vote(compared, "comparison", "small").scenes)


def test_thirty_voters_at_once_lose_no_vote(compared):
    """Each with a connection of its own to the database, as a process has."""
    vote = new_vote(compared, "comparison", "small", ballots=4)
    start, given, errors = threading.Barrier(30), Counter(), []

    def visit(browser):
        engine = Engine(compared.home, device="cpu")
        chance = random.Random(browser)
        start.wait()
        try:
            while isinstance(ballot := next_ballot(engine, vote.id, browser), Ballot):
                tabs = [threading.Thread(target=lambda: given.update(
                    {(browser, answer(engine.run_log, vote.id, browser, ballot.id, chance.choice(
                        ["1", "2", "tie", "skip"]))): 1})) for _ in range(2)]
                for tab in tabs:
                    tab.start()
                for tab in tabs:
                    tab.join()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=visit, args=(f"browser {n}",)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(given[f"browser {n}", True] == given[f"browser {n}", False] == 4 for n in range(30))
    rows = ballot_rows(compared.run_log, vote.id)
    assert Counter(row.voter for row in rows) == {
        voter_of(vote, f"browser {n}"): 4 for n in range(30)}
    count = counts(compared.run_log, [vote.id])[vote.id]
    assert count.answers + count.skipped == 120 and count.voters == 30


def test_results_are_shown_only_when_their_owner_reveals_them(compared):
    log = compared.run_log
    vote = new_vote(compared, "comparison", "small", ballots=6, owner="ada")
    cast(compared, vote, "a", most=3)
    with pytest.raises(RequestError, match="still open: its results are shown once its owner"):
        results_of(compared, vote_row(log, vote.id))
    with pytest.raises(RequestError, match="made by another browser"):
        reveal(log, vote.id, "bob")
    waiting = next_ballot(compared, vote.id, "a")
    when = reveal(log, vote.id, "ada").revealed_utc
    assert reveal(log, vote.id, None).revealed_utc == when
    assert not answer(log, vote.id, "a", waiting.id, "1"), "the vote is closed"
    assert next_ballot(compared, vote.id, "a") == Done(3, 0, True)
    assert not take_back(log, vote.id, "a")
    found = results_of(compared, vote_row(log, vote.id))
    assert found.count.answers == 3 and not any(pair.distinguishable for pair in found.pairs)
    assert "nothing is told apart" in found.notes[0]


def test_results_of_nobody(compared):
    vote = new_vote(compared, "comparison", "small")
    reveal(compared.run_log, vote.id, None)
    found = results_of(compared, vote_row(compared.run_log, vote.id))
    assert found.strengths == found.pairs == found.measures == ()
    assert found.notes == ("Nobody answered.",)
    assert "No picture was chosen" in found.side_sentence
    json.dumps(found.as_json(), allow_nan=False)


def test_a_study_is_voted_on_and_its_measures_are_held_against_the_votes(engine):
    """Voters who always choose the picture with the lower distance, but one in five."""
    study = Study(BASE, parse_methods(["num_inference_steps=1,2,4"], BASE),
                  bundled_prompts(9, "postcards"), (0,), "num_inference_steps=4",
                  ("rms_latents", "psnr"))
    values = conduct(engine, study).values
    vote = new_vote(engine, "study", study.id, "Which one is sharper?", ballots=14)
    assert vote.methods == ["1 steps", "2 steps", "4 steps"] and len(vote.scenes) == 9
    chance = random.Random(1)

    def closer(ballot, row):
        if row.kind == "equal":
            return "tie"
        if chance.random() < 0.2:
            return chance.choice("12")
        return str(1 + max((0, 1), key=lambda place: row.methods[place]))

    for browser in "abcde":
        cast(engine, vote, browser, closer)
    reveal(engine.run_log, vote.id, None)
    found = results_of(engine, vote_row(engine.run_log, vote.id))
    assert [s.method for s in found.strengths] == ["4 steps", "2 steps", "1 steps"]
    assert any("4 steps is preferred to 1 steps: in" in pair.sentence for pair in found.pairs)
    table = values.tables["rms_latents"]
    assert (table[0] > table[1]).mean() > 0.8, "what the voters follow is what is measured"
    agreement = {measure.measure: measure.agree for measure in found.measures}
    assert agreement["rms_latents"].low > 0.6
    assert found.equal_tied.share == 1 and found.repeated.share > 0.6
    assert found.alpha.alpha > 0.3 and found.each_other[0] / found.each_other[1] > 0.6
    written = found.as_json()
    assert written["question"] == "Which one is sharper?" and written["voters"] == 5
    assert json.loads(json.dumps(written, allow_nan=False)) == written


def test_best_of_four(compared):
    engine = compared
    vote = new_vote(engine, "comparison", "five", pictures=4, ballots=10)
    assert len(items_of(vote)) == 5
    cast(engine, vote, "a", lambda ballot, row: str(1 + row.methods.index(max(row.methods))))
    cast(engine, vote, "b", lambda ballot, row: "tie", most=3)
    reveal(engine.run_log, vote.id, None)
    found = results_of(engine, vote_row(engine.run_log, vote.id))
    assert [s.method for s in found.strengths][0] == "UniPC"
    assert len(found.places) == 4 and any("no picture was the best" in n for n in found.notes)


def test_votes_on_the_command_line(run, compared, monkeypatch):
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(compared.home))
    assert run("votes", "list")[1].startswith("No votes yet")
    code, out, _ = run("votes", "new", "--comparison", "small", "--ballots", "5", "--json")
    made = json.loads(out)
    assert code == 0 and made["ballots"] == 5 and made["methods"] == ["DDIM", "Euler", "Heun"]
    vote = vote_row(compared.run_log, made["vote_id"])
    cast(compared, vote, "a", lambda ballot, row: "1")
    (listed,) = json.loads(run("votes", "list", "--json")[1])
    assert (listed["voters"], listed["answers"], listed["comparison"]) == (1, 5, "small")
    assert vote.id in run("votes", "list")[1]
    code, out, err = run("votes", "results", vote.id)
    assert (code, out) == (2, "") and "still open" in err
    assert "is closed" in run("votes", "reveal", vote.id)[1]
    code, out, err = run("votes", "results", vote.id, "--json")
    assert code == 0 and json.loads(out)["places"][0]["share"] == 1
    code, out, err = run("votes", "results", vote.id)
    assert code == 0 and "The left" not in out and "left (or upper)" in out and "note: " in err
    for wrong in (("new",), ("new", "--comparison", "a", "--study", "b"), ("reveal", "nix")):
        assert run("votes", *wrong)[0] == 2
