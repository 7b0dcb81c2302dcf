"""What a vote found, once its owner revealed it: numbers, sentences, and what limits them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import PipelineError, RequestError
from pipelines.study.measures import MEASURES
from pipelines.study.statistics import FEWEST_PROMPTS
from pipelines.votes import estimates
from pipelines.votes.estimates import FEWEST_VOTERS, Alpha, Answer, Estimator, Share
from pipelines.votes.rows import PLACES, TIE, BallotRow, Count, VoteRow, ballot_rows, counts
from pipelines.votes.scenes import source_of

if TYPE_CHECKING:
    from pipelines.engine import Engine


@dataclass(frozen=True)
class MethodStrength:
    """A method and the logarithm of its strength (the mean of all is 0), with a 95 % interval."""

    method: str
    strength: float
    low: float
    high: float


@dataclass(frozen=True)
class MethodPair:
    """How often a is chosen over b, by their strengths, with a 95 % interval; `wins`, `ties` and
    `losses` of a as they were counted."""

    a: str
    b: str
    share: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    p_adjusted: float
    distinguishable: bool
    sentence: str


@dataclass(frozen=True)
class MeasureAgreement:
    """How often the picture that a measure finds better was chosen; `left_out` choices are between
    pictures that it finds equal, or of which one has no value."""

    measure: str
    agree: Share
    left_out: int


@dataclass(frozen=True)
class Results:
    """`places`: the share of choices that fell on each place, from the left or the top. `tied`: the
    share of ties where methods differed, `equal_tied` where they did not. `repeated`: the share of
    repeats that were answered as before. `each_other`: of how many pairs of choices, by two voters
    of one question, how many agree. `nu`: how readily voters call a tie (Davidson 1970)."""

    vote: VoteRow
    count: Count
    strengths: tuple[MethodStrength, ...]
    pairs: tuple[MethodPair, ...]
    nu: float
    places: tuple[Share | None, ...]
    tied: Share | None
    equal_tied: Share | None
    repeated: Share | None
    alpha: Alpha | None
    each_other: tuple[int, int] | None
    measures: tuple[MeasureAgreement, ...]
    notes: tuple[str, ...]

    @property
    def side_sentence(self) -> str:
        """Whether places were preferred, whatever stood there."""
        shares = [(place, share) for place, share in enumerate(self.places) if share]
        if not shares:
            return "No picture was chosen yet."
        chance = 1 / self.vote.pictures
        place, share = max(shares, key=lambda pair: pair[1].share)
        name = (("left (or upper)", "right (or lower)") if self.vote.pictures == 2
                else ("first", "second", "third", "fourth"))[place]
        text = (f"{name} picture was chosen in {percent(share)} of {share.total} choices; by "
                f"chance it is {100 * chance:.0f} %")
        if share.low > chance:
            return f"Voters prefer a side: the {text}. Sides are drawn by chance, so no method " \
                   "gains by it, but differences look smaller than they are."
        return f"No side was preferred as far as can be told: the {text}."

    def as_json(self) -> dict[str, Any]:
        """The object that `votes results --json` prints."""
        vote = self.vote
        return {
            "vote_id": vote.id, "question": vote.question, vote.source: vote.source_id,
            "pictures": vote.pictures, "revealed_utc": vote.revealed_utc,
            **asdict(self.count),
            "methods": [asdict(strength) for strength in self.strengths],
            "pairs": [asdict(pair) for pair in self.pairs], "nu": self.nu,
            "places": [_share(share) for share in self.places],
            "ties": _share(self.tied), "ties_of_equal_pictures": _share(self.equal_tied),
            "agreement_with_themselves": _share(self.repeated),
            "krippendorff_alpha": asdict(self.alpha) if self.alpha else None,
            "agreement_with_each_other": dict(zip(("agree", "pairs"), self.each_other, strict=True))
            if self.each_other else None,
            "measures": [{"measure": m.measure, **(_share(m.agree) or {}), "left_out": m.left_out}
                         for m in self.measures],
            "notes": list(self.notes)}


def _share(share: Share | None) -> dict[str, Any] | None:
    return {"share": share.share, **asdict(share)} if share else None


def percent(share: Share) -> str:
    """'68 % (59 to 76 %)'."""
    return f"{share.share:.0%} ({100 * share.low:.0f} to {share.high:.0%})".replace("%", " %")


def results_of(engine: Engine, vote: VoteRow) -> Results:
    """What a vote found; RequestError where its owner has not revealed it."""
    if not vote.revealed_utc:
        raise RequestError(f"vote {vote.id} is still open: its results are shown once its owner "
                           "reveals them, which closes it (on the page Votes, or with: python -m "
                           f"pipelines votes reveal {vote.id})")
    rows = ballot_rows(engine.run_log, vote.id)
    answers = [answer for row in rows if (answer := _answer(vote, row))]
    estimator = Estimator(answers)
    names = vote.methods
    strengths, preferences, nu, groups = estimates.strengths(estimator, len(names))
    alpha, each_other = estimates.with_each_other(answers)
    measures, problem = _measures(engine, vote, estimator)
    count = counts(engine.run_log, [vote.id])[vote.id]
    return Results(
        vote, count,
        tuple(MethodStrength(name, s.strength, s.low, s.high)
              for name, s in sorted(zip(names, strengths, strict=True),
                                    key=lambda pair: -pair[1].strength)) if answers else (),
        tuple(_pair(names, preference) for preference in preferences) if answers else (),
        nu, tuple(estimates.places(estimator, vote.pictures)),
        estimates.ties(estimator, equal=False), estimates.ties(estimator, equal=True),
        estimates.with_themselves(estimator), alpha, each_other, measures,
        (*_scope(estimator), *_notes(vote, count, groups, estimator), *problem))


def _answer(vote: VoteRow, row: BallotRow) -> Answer | None:
    if row.answer not in (*PLACES[:vote.pictures], TIE) or row.scene >= len(vote.scenes):
        return None
    return Answer(row.id, row.voter, vote.scenes[row.scene]["prompt"], row.scene,
                  tuple(row.methods), None if row.answer == TIE else int(row.answer) - 1,
                  row.kind, row.repeat_of)


def _pair(names: Sequence[str], known: estimates.Preference) -> MethodPair:
    a, b, share, low, high = known.a, known.b, known.share, known.low, known.high
    wins, losses = known.wins, known.losses
    if share < 0.5:  # the preferred one is named first
        a, b, share, low, high, wins, losses = b, a, 1 - share, 1 - high, 1 - low, losses, wins
    bounds = f"{share:.0%} of choices ({100 * low:.0f} to {high:.0%})".replace("%", " %")
    answers = wins + known.ties + losses
    met = f"{answers} answer{'s' * (answers != 1)}"
    sentence = (f"{names[a]} is preferred to {names[b]}: in {bounds}, {met} to this pair"
                if known.told else
                f"{names[a]} and {names[b]} cannot be told apart: {bounds}, {met} to this pair")
    return MethodPair(names[a], names[b], share, low, high, wins, known.ties, losses, known.p,
                      known.told, sentence)


def _measures(
    engine: Engine, vote: VoteRow, estimator: Estimator
) -> tuple[tuple[MeasureAgreement, ...], list[str]]:
    """The measures that have a say, the best first; why others have none."""
    try:
        measured = source_of(engine, vote.source, vote.source_id).measured
    except PipelineError as error:
        return (), [f"The measures cannot be read: {error}"]
    found, silent = [], []
    for measure, values in measured.items():
        agree, left_out = estimates.measure_agreement(
            estimator, MEASURES[measure].sign,
            lambda scene, method, values=values: values.get(vote.scenes[scene]["runs"][method]))
        if agree:
            found.append(MeasureAgreement(measure, agree, left_out))
        elif left_out:
            silent.append(f"Not in the figure of measures: {MEASURES[measure].label}, which finds "
                          "these pictures equal, or was not measured.")
    if not measured and estimator.answers:
        silent = [f"No measure is held against the votes: the {vote.source} has none."]
    return tuple(sorted(found, key=lambda m: -m.agree.share)), silent


def _scope(estimator: Estimator) -> list[str]:
    """What intervals are over."""
    prompts, voters = estimator.prompts, estimator.voters
    few_prompts, few_voters = prompts < FEWEST_PROMPTS, voters < FEWEST_VOTERS
    said = f"{prompts} prompt{'s' * (prompts != 1)} and {voters} voter{'s' * (voters != 1)}"
    if not estimator.answers:
        return ["Nobody answered."]
    if few_prompts and few_voters:
        return [f"{said}: below {FEWEST_PROMPTS} prompts and {FEWEST_VOTERS} voters nothing is "
                "told apart. Intervals take each answer for itself, and speak of these prompts "
                "and voters only."]
    if few_voters:
        return [f"{said}: intervals are over prompts, and speak of these voters only; with "
                f"{FEWEST_VOTERS} voters or more they would speak of others, too."]
    if few_prompts:
        return [f"{said}: intervals are over voters, and speak of these prompts only; with "
                f"{FEWEST_PROMPTS} prompts or more they would speak of others, too."]
    return [f"{said}: intervals are over both."]


def _notes(vote: VoteRow, count: Count, groups: int, estimator: Estimator) -> list[str]:
    notes = []
    if count.skipped:
        notes.append(f"{count.skipped} ballot{'s' * (count.skipped != 1)} skipped by voters.")
    if count.gone:
        notes.append(f"{count.gone} ballot{'s' * (count.gone != 1)} left out: a picture was "
                     "deleted or damaged.")
    if groups > 1 and estimator.answers:
        notes.append(f"No answer joins {groups} groups of methods; nothing is told apart between "
                     "them.")
    if vote.pictures > 2 and (tied := sum(a.choice is None for a in estimator.answers)):
        notes.append(f"{tied} times no picture was the best; strengths leave those out.")
    return notes


def explanation() -> list[str]:
    """How the numbers were worked out, in plain words."""
    return [
        "Strengths are those of Bradley and Terry with ties after Davidson, computed by the "
        "package evalica. A method whose strength is larger by 1 is chosen "
        f"{math.e / (1 + math.e):.0%} of the time.".replace("%", " %")
        + " Each method is also given half a win and half a loss against an average one, so that "
          "one that won every time has a finite strength.",
        "Repeats and ballots with equal pictures count for agreement and sides, not for strengths. "
        "Verdicts on pairs are adjusted over all pairs (Holm).",
        "Krippendorff's alpha is 1 where voters agree fully, and 0 where they agree as chance "
        "would have it.",
    ]
