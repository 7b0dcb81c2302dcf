"""The statistics of studies against truths that are known: simulations with fixed seeds."""

import itertools
import math

import numpy as np
import pytest

from pipelines.study import statistics
from pipelines.study.statistics import (
    ALPHA,
    FEWEST_PROMPTS,
    compare,
    correlation_within,
    holm,
    needed_pairs,
    outlying,
    sequence_p,
    sequence_width,
    smallest_effect,
    told_apart,
    win_rate_of,
)

STUDIES = 1000


@pytest.fixture
def cheap(monkeypatch):
    """Fewer resamples, so that a thousand studies take a second."""
    monkeypatch.setattr(statistics, "RESAMPLES", 1499)


def a_a_studies(prompts, seed, methods=3):
    """Studies of methods that do not differ: skewed errors, alike within a prompt and for its
    seeds. Shape (studies, pairs of methods, prompts, 2 seeds)."""
    rng = np.random.default_rng(seed)
    errors = np.exp(rng.normal(0, 0.6, (STUDIES, 1, prompts, 1))
                    + rng.normal(0, 0.4, (STUDIES, methods, prompts, 1))
                    + rng.normal(0, 0.4, (STUDIES, methods, prompts, 2)))
    return np.stack([errors[:, a] - errors[:, b]
                     for a, b in itertools.combinations(range(methods), 2)], axis=1)


def verdicts(differences, **options):
    """For each study whether it tells any two methods apart."""
    studies, pairs = differences.shape[:2]
    estimates = compare(differences.reshape(-1, *differences.shape[2:]), **options)
    groups = [estimates[n * pairs:(n + 1) * pairs] for n in range(studies)]
    return np.array([any(map(told_apart, group, holm([e.p for e in group])))
                     for group in groups])


@pytest.mark.parametrize("prompts", [FEWEST_PROMPTS, 30])
def test_methods_that_do_not_differ_are_told_apart_in_5_of_100_studies_at_most(cheap, prompts):
    assert 0.002 < verdicts(a_a_studies(prompts, 1)).mean() <= ALPHA


def test_also_when_somebody_stops_as_soon_as_there_is_a_verdict():
    studies = a_a_studies(60, 2)
    stopped, naive = np.zeros(STUDIES, bool), np.zeros(STUDIES, bool)
    for prompts in range(FEWEST_PROMPTS, 61, 4):
        shown = studies[:, :, :prompts]
        stopped |= verdicts(shown, sequential=True)
        t = shown[:, 0].mean(axis=2)
        naive |= np.abs(t.mean(axis=1)) > 2 * t.std(axis=1) / math.sqrt(prompts)
    assert stopped.mean() <= ALPHA
    assert naive.mean() > 3 * ALPHA, "what an ordinary interval would have done"


def test_intervals_cover_the_truth_of_2000_prompts(cheap):
    rng = np.random.default_rng(3)
    alike = rng.normal(0, 0.5, (2000, 1))
    a, b = (np.exp(level + alike + rng.normal(0, 0.35, (2000, 1)) + rng.normal(0, 0.3, (2000, 2)))
            for level in (-2.5, -2.3))
    table = a - b
    samples = np.stack([table[rng.choice(2000, 40, replace=False)] for _ in range(STUDIES)])
    covered, always = ([e.low <= table.mean() <= e.high for e in compare(samples, sequential=s)]
                       for s in (False, True))
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(always) >= 0.97


@pytest.mark.parametrize(("prompts", "seeds", "correlation"), [(60, 2, 0.5), (20, 4, 0.2)])
def test_a_planted_effect_is_found_as_often_as_was_forecast(cheap, prompts, seeds, correlation):
    comparisons = 3
    effect = smallest_effect(prompts, seeds, correlation, comparisons)
    rng = np.random.default_rng(4)
    noise = (rng.normal(0, math.sqrt(correlation), (STUDIES, prompts, 1))
             + rng.normal(0, math.sqrt(1 - correlation), (STUDIES, prompts, seeds)))
    estimates = compare(effect + noise)
    found = [e.p <= ALPHA / comparisons for e in estimates]
    assert np.mean(found) == pytest.approx(statistics.POWER, abs=0.05)
    win_rates = [(e.wins + e.ties / 2) / e.pairs for e in estimates]
    assert np.mean(win_rates) == pytest.approx(win_rate_of(effect), abs=0.01)
    told = np.mean([correlation_within(study) for study in noise])
    assert told == pytest.approx(correlation, abs=0.05)
    one = max(estimates, key=lambda e: e.pairs / abs(e.difference))  # a study that saw little
    assert needed_pairs(one, comparisons) > one.pairs


def test_what_a_study_can_show_before_it_begins():
    win_rate = win_rate_of(smallest_effect(60, 2, 0.5, 1))
    assert 0.62 < win_rate < 0.65
    assert win_rate > win_rate_of(smallest_effect(240, 2, 0.5, 1))
    assert win_rate < win_rate_of(smallest_effect(60, 2, 0.5, 66)), "more pairs, less power"
    assert smallest_effect(60, 4, 1, 1) == smallest_effect(60, 1, 0, 1), "seeds that say the same"


def test_an_estimate_by_hand():
    (one,) = compare([[[-1.0, -3.0], [-2.0, np.nan], [0.0, 0.0], [np.nan, np.nan]]])
    assert (one.difference, one.pairs, one.prompts) == (-1.2, 5, 3)
    assert (one.wins, one.ties, one.losses) == (0, 2, 3)
    assert one.low < -1.2 < one.high
    sums, counts = np.array([-4, -2, 0]), np.array([2, 1, 2])
    spread = math.sqrt(((sums + 1.2 * counts) ** 2).sum() * 3 / 2) / 5
    assert one.error == pytest.approx(spread)
    assert compare([[[np.nan]]]) == [None]
    assert not told_apart(one, 0.0), "three prompts are too few for any verdict"


def test_the_order_of_a_pair_is_only_a_sign():
    table = np.random.default_rng(5).normal(0.3, 1, (1, 20, 2))
    (one,), (other,) = compare(table), compare(-table)
    assert (one.difference, one.low, one.high, one.p) == pytest.approx(
        (-other.difference, -other.high, -other.low, other.p))
    assert compare(table) == [one], "the same table gives the same interval"
    (p_outside,) = (e.p for e in compare(table, smallest=abs(one.difference)))
    assert p_outside > 0.9, "a difference that is no larger than nothing"


@pytest.mark.parametrize("sequential", [False, True])
def test_tables_without_spread(cheap, sequential):
    equal, constant, rare = compare(
        [np.zeros((20, 2)), np.full((20, 2), 0.1), np.pad([[1.0, 0]], ((0, 19), (0, 0)))],
        sequential=sequential)
    assert (equal.difference, equal.low, equal.high, equal.p) == (0, 0, 0, 1)
    assert constant.low == constant.difference == constant.high == pytest.approx(0.1)
    assert constant.p < 0.001
    assert rare.low < 0 < rare.high and rare.p > 0.2
    assert needed_pairs(equal, 1) is None


def test_the_confidence_sequence():
    assert sequence_width(3) == math.inf
    for prompts in (20, 60):
        width = sequence_width(prompts)
        assert sequence_p(width, 1.0, prompts) == pytest.approx(ALPHA)
        assert 2.5 < width < 4.5
    assert sequence_p(0.0, 1.0, 30) == sequence_p(1.0, 1.0, 1) == 1


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert holm([]) == []


def test_prompts_that_stand_apart():
    table = np.random.default_rng(6).normal(0, 1, (40, 2))
    table[7], table[3], table[5] = 30, -20, np.nan
    assert outlying(table) == [7, 3]
    assert outlying(np.zeros((9, 2))) == []


def test_an_effect_in_real_pairs_is_found_as_often_as_was_forecast(cheap, tmp_path):
    from pipelines.bench import power

    rng = np.random.default_rng(7)
    lines = ["measure,a,b,prompt,difference"]
    lines += [f"rms_latents,A,B,p{n},{0.03 + 0.06 * rng.gamma(4) / 2 - 0.12}" for n in range(60)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    table = power.read_differences(tmp_path / "pairs.csv", "rms_latents")
    assert table.shape == (60, 1)
    for prompts in (20, 40):
        assert power.found(table, prompts, 300) == pytest.approx(
            power.forecast(table, prompts), abs=0.12)
        assert power.found(power.planted(table, prompts), prompts, 300) == pytest.approx(
            0.8, abs=0.1)
    with pytest.raises(ValueError, match="received 0 pairs"):
        power.read_differences(tmp_path / "pairs.csv", "flip")
