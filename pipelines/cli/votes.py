"""Blind votes over the pictures of a study or comparison, and their results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.output import Json, print_json, print_notes, print_table
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.votes.design import MOST_BALLOTS, QUESTIONS, length_of, new_vote
from pipelines.votes.rows import COMPARISON, STUDY, counts, vote_row, vote_rows
from pipelines.votes.rows import reveal as reveal_vote

if TYPE_CHECKING:
    from pipelines.votes.results import Results

VoteId = Annotated[str, typer.Argument(metavar="ID", help="The vote, as `votes list` has it.")]


def list_votes(as_json: Json = False) -> None:
    """List the votes of this machine, the newest first, with the answers that they have so far."""
    log = Engine().run_log
    rows = vote_rows(log)
    counted = counts(log, [row.id for row in rows])
    records = [{"id": row.id, "datetime_utc": row.datetime_utc, row.source: row.source_id,
                "question": row.question, "methods": len(row.methods),
                "voters": counted[row.id].voters, "answers": counted[row.id].answers,
                "revealed_utc": row.revealed_utc, "damage": row.damage or None} for row in rows]
    if as_json:
        print_json(records)
    elif not records:
        print("No votes yet. Make one: python -m pipelines votes new --study ID")
    else:
        print_table(["id", "made", "of", "question", "methods", "voters", "answers", "results"],
                    [[row.id, row.datetime_utc[:16], f"{row.source} {row.source_id}", row.question,
                      record["methods"], record["voters"], record["answers"],
                      row.damage or ("revealed" if row.revealed_utc else "hidden")]
                     for row, record in zip(rows, records, strict=True)])


def new(
    study: Annotated[str | None, typer.Option(metavar="ID", help="A study of the log.")] = None,
    comparison: Annotated[str | None, typer.Option(
        metavar="ID", help="A comparison of the log.")] = None,
    question: Annotated[str, typer.Option(
        metavar="|".join((*QUESTIONS, "TEXT")), help="What voters are asked; with looks they do "
        "not see the prompt.")] = "prompt",
    pictures: Annotated[int, typer.Option(help="On a ballot: 2, or 4 for the best of four.")] = 2,
    ballots: Annotated[int, typer.Option(
        min=1, max=MOST_BALLOTS, help="For each voter, as far as there are so many.")] = 30,
    as_json: Json = False,
) -> None:
    """Make a vote; the dashboard serves it at ?vote=ID."""
    if (study is None) == (comparison is None):
        raise RequestError("received both a study and a comparison, accepted one" if study else
                           "accepted --study ID or --comparison ID")
    engine = Engine()
    source, source_id = (STUDY, study) if study else (COMPARISON, comparison)
    row = new_vote(engine, source, source_id or "", question, pictures, ballots)
    if as_json:
        print_json({"vote_id": row.id, "methods": row.methods, "scenes": len(row.scenes),
                    "ballots": length_of(row), "question": row.question})
        return
    print(f"vote {row.id}: {len(row.methods)} methods, {len(row.scenes)} prompts and seeds, "
          f"{length_of(row)} ballots for each voter")
    print(f"voters open the dashboard's address with ?vote={row.id} behind it, such as "
          f"http://localhost:8501/?vote={row.id}")


def reveal(vote_id: VoteId) -> None:
    """Close a vote, so that its results are shown here and on the page Votes."""
    log = Engine().run_log
    already = vote_row(log, vote_id).revealed_utc
    reveal_vote(log, vote_id, None)
    print(f"vote {vote_id} {'was revealed before' if already else 'is closed'}; its results: "
          f"python -m pipelines votes results {vote_id}")


def results(vote_id: VoteId, as_json: Json = False) -> None:
    """Print what a vote found; only once it was revealed."""
    from pipelines.votes.results import results_of

    engine = Engine()
    found = results_of(engine, vote_row(engine.run_log, vote_id))
    if as_json:
        print_json(found.as_json())
    else:
        _print_results(found)
    print_notes(*found.notes)


def _print_results(found: Results) -> None:
    from pipelines.votes.results import percent

    count = found.count
    print(f"{found.vote.question} {count.answers} answers of {count.voters} voters")
    for pair in found.pairs:
        if pair.distinguishable:
            print(pair.sentence)
    print(found.side_sentence)
    for share, text in ((found.equal_tied, "equal pictures were called equal"),
                        (found.tied, "different ones were called equal"),
                        (found.repeated, "repeats were answered as before")):
        if share:
            print(f"{text}: {percent(share)}, {share.total} answers")
    if found.alpha:
        bounds = "" if found.alpha.low is None else \
            f" ({found.alpha.low:.2f} to {found.alpha.high:.2f})"
        print(f"Krippendorff's alpha: {found.alpha.alpha:.2f}{bounds}, {found.alpha.units} ballots "
              "of two voters or more")
    print_table(["method", "strength", "low", "high"],
                [[s.method, f"{s.strength:.2f}", f"{s.low:.2f}", f"{s.high:.2f}"]
                 for s in found.strengths])
    print_table(["a", "b", "a is chosen", "low", "high", "wins", "ties", "losses", "p"],
                [[p.a, p.b, f"{p.share:.0%}", f"{p.low:.0%}", f"{p.high:.0%}", p.wins, p.ties,
                  p.losses, f"{p.p_adjusted:.2g}"] for p in found.pairs])
    print_table(["measure", "agrees with the votes", "low", "high", "choices", "left out"],
                [[m.measure, f"{m.agree.share:.0%}", f"{m.agree.low:.0%}", f"{m.agree.high:.0%}",
                  m.agree.total, m.left_out] for m in found.measures])
