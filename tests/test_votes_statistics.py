"""What votes say, against voters whose preferences are known: simulations with fixed seeds."""

import numpy as np
import pytest

from pipelines.votes import estimates
from pipelines.votes.estimates import (
    Answer,
    Estimator,
    duels,
    measure_agreement,
    places,
    strengths,
    ties,
    with_each_other,
    with_themselves,
)
from pipelines.votes.rows import EQUAL, NEW, REPEAT

TRUTH = np.array([0.6, 0.2, -0.1, -0.7])
NU = 0.5


@pytest.fixture
def cheap(monkeypatch):
    """Fewer resamples, so that many votes are counted in a second."""
    monkeypatch.setattr(estimates, "RESAMPLES", 80)


def simulated(seed, truth=TRUTH, voters=10, prompts=30, each=40, lean=0.0, spread=0.3):
    """Answers of voters who choose as Davidson's model says. `lean`: how much the left picture
    gains; `spread`: how much prompts and voters differ in their taste."""
    rng = np.random.default_rng(seed)
    of_prompt = rng.normal(0, spread, (prompts, len(truth)))
    of_voter = rng.normal(0, spread, (voters, len(truth)))
    answers = []
    for voter in range(voters):
        for number in range(each):
            scene = int(rng.integers(prompts))
            left, right = (int(n) for n in rng.permutation(len(truth))[:2])
            liking = truth + of_prompt[scene] + of_voter[voter]
            a, b = liking[left] + lean, liking[right]
            weights = np.exp([a, b, (a + b) / 2]) * (1, 1, NU)
            choice = int(rng.choice(3, p=weights / weights.sum()))
            answers.append(Answer(f"{voter}.{number}", f"voter {voter}", f"prompt {scene}", scene,
                                  (left, right), None if choice == 2 else choice, NEW))
    return answers


def test_known_strengths_are_recovered_within_their_intervals(cheap):
    centred = TRUTH - TRUTH.mean()
    covered, told, nus = [], [], []
    for seed in range(10):
        found, preferences, nu, groups = strengths(Estimator(simulated(seed)), 4)
        covered += [s.low <= truth <= s.high for s, truth in zip(found, centred, strict=True)]
        covered += [p.low <= 1 / (1 + np.exp(TRUTH[p.b] - TRUTH[p.a])) <= p.high
                    for p in preferences]
        told.append([p.told for p in preferences])
        nus.append(nu)
        assert groups == 1
    assert np.mean(covered) >= 0.9
    assert np.mean(nus) == pytest.approx(NU, abs=0.06)
    told = np.array(told)  # pairs in order: 01 02 03 12 13 23
    assert told[:, 2].mean() >= 0.9, "the strongest and the weakest"
    assert told[:, 3].mean() < 0.5, "two that are nearly alike"


def test_methods_that_do_not_differ_are_seldom_told_apart(cheap):
    false = [any(p.told for p in strengths(Estimator(simulated(seed, np.zeros(3), each=24)), 3)[1])
             for seed in range(20)]
    assert np.mean(false) <= 0.1


def test_a_planted_side_bias_is_found_and_none_where_there_is_none(cheap):
    leaning, straight = (places(Estimator(simulated(seed, lean=lean)), 2)
                         for seed, lean in ((1, 0.5), (2, 0.0)))
    expected = 1 / (1 + np.exp(-0.5))  # of alike pictures; of others it is a little less
    assert leaning[0].low > 0.5 and leaning[0].low < expected < leaning[0].high + 0.02
    assert leaning[0].count + leaning[1].count == leaning[0].total
    assert straight[0].low < 0.5 < straight[0].high


def test_what_few_prompts_or_voters_can_say():
    alone = Estimator(simulated(3, voters=1, prompts=3, each=40))
    assert not alone.drawn and not any(p.told for p in strengths(alone, 4)[1])
    assert Estimator(simulated(3, voters=1, prompts=9)).drawn
    assert Estimator(simulated(3, voters=5, prompts=1)).drawn
    never = [Answer(str(n), f"v{n}", "p", 0, (0, 1), 0, NEW) for n in range(12)]
    (first, second), (pair,), _, _ = strengths(Estimator(never), 2)
    assert np.isfinite([first.strength, first.low, second.high]).all() and pair.wins == 12


def test_groups_that_no_answer_joins():
    answers = [Answer(f"{v}{pair}", f"v{v}", f"p{v}", v, pair, 0, NEW)
               for v in range(9) for pair in ((0, 1), (2, 3))]
    _, preferences, _, groups = strengths(Estimator(answers), 4)
    assert groups == 2
    assert {(p.a, p.b) for p in preferences if p.told} == {(0, 1), (2, 3)}
    assert {p.p for p in preferences if (p.a, p.b) not in ((0, 1), (2, 3))} == {1.0}


def test_the_best_of_four_counts_as_better_than_three_others():
    answer = Answer("a", "v", "p", 0, (2, 0, 3, 1), 0, NEW)
    assert duels(answer) == [(0, 2, 2), (2, 3, 1), (1, 2, 2)]
    assert duels(Answer("a", "v", "p", 0, (2, 0, 3, 1), None, NEW)) == []
    assert duels(Answer("a", "v", "p", 0, (2, 0), None, NEW)) == [(0, 2, 0)]


def test_agreement_by_hand():
    def one(name, voter, methods, choice, kind=NEW, repeat_of=None, scene=0):
        return Answer(name, voter, f"p{scene}", scene, methods, choice, kind, repeat_of)

    answers = [
        one("a", "v", (0, 1), 0), one("b", "v", (1, 0), 1, REPEAT, "a"),  # the same again
        one("c", "w", (1, 0), 1), one("d", "w", (0, 1), 1, REPEAT, "c"),  # not
        one("e", "v", (1, 1), None, EQUAL), one("f", "w", (1, 1), 0, EQUAL),
        one("g", "v", (0, 1), None, scene=1), one("h", "w", (0, 1), 1, scene=1)]
    estimator = Estimator(answers)
    assert (with_themselves(estimator).count, with_themselves(estimator).total) == (1, 2)
    assert (ties(estimator, True).count, ties(estimator, True).total) == (1, 2)
    assert (ties(estimator, False).count, ties(estimator, False).total) == (1, 4)
    alpha, each_other = with_each_other(answers)
    assert each_other == (1, 1) and alpha.units == 2
    assert alpha.alpha < 1
    same = [one(str(v), f"v{v}", (0, 1), 0) for v in range(3)]
    assert with_each_other(same)[0].alpha == 1 and with_each_other(same)[0].low is None
    assert with_each_other(answers[:1]) == (None, None)
    alike = [one(f"{v}{n}", f"v{v}", (0, 1), 0 if (v, n) == (0, 0) else 1, scene=n)
             for v in range(3) for n in range(40)]
    assert with_each_other(alike)[0].alpha > 0.9, "although all but one chose the same method"
    liked = {0: 3.0, 1: 1.0}
    agree, left_out = measure_agreement(estimator, 1, lambda scene, method: liked[method])
    assert (agree.count, agree.total, left_out) == (2, 3, 0)
    agree, left_out = measure_agreement(estimator, -1, lambda scene, method: liked[method]
                                        if scene == 0 else None)
    assert (agree.count, agree.total, left_out) == (0, 2, 1)


def test_a_share_has_an_interval_at_its_ends_too():
    answers = simulated(4, voters=6, prompts=10, each=5)
    every = Estimator(answers).share([True] * len(answers))
    assert (every.share, every.high) == (1, 1) and 0.7 < every.low < 1
    assert Estimator(answers).share([None] * len(answers)) is None
    assert Estimator([]).share([]) is None
