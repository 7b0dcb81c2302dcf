"""How often studies find an effect that is there, against what was forecast:
python -m pipelines.bench.power PAIRS.csv --measure rms_latents

PAIRS.csv is what `study --csv` wrote of two methods. Its prompts stand for all prompts: studies are
drawn from them with replacement, with the effect as it is, and with the same spread around the
effect that a study of their size is forecast to find in 80 of 100 cases.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.study.statistics import (
    ALPHA,
    FEWEST_PROMPTS,
    NORMAL,
    Array,
    compare,
    correlation_within,
    smallest_effect,
    told_apart,
)

SIZES = (8, 12, 20, 40)
STUDIES = 500


def read_differences(path: Path, measure: str) -> Array:
    """Paired differences of one measure, shape (prompts, seeds). Raises ValueError."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == measure]
    pairs = {(row["a"], row["b"]) for row in rows}
    if len(pairs) != 1:
        raise ValueError(f"{path}: received {len(pairs)} pairs of methods in {measure}, accepted "
                         "one")
    by_prompt: dict[str, list[float]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt"], []).append(float(row["difference"]))
    seeds = max(map(len, by_prompt.values()))
    return np.array([values for values in by_prompt.values() if len(values) == seeds])


def found(table: Array, prompts: int, studies: int = STUDIES, seed: int = 0) -> float:
    """The share of studies of so many prompts, drawn from the table, that tell the methods
    apart."""
    chosen = np.random.default_rng(seed).integers(0, len(table), (studies, prompts))
    estimates = compare(table[chosen])
    return float(np.mean([told_apart(estimate, estimate.p) for estimate in estimates if estimate]))


def forecast(table: Array, prompts: int) -> float:
    """The probability that the outlook of a study gives to the table's effect."""
    seeds = table.shape[1]
    correlation = correlation_within(table) or 0.0
    effect = abs(table.mean()) / table.std(ddof=1)
    eighty = smallest_effect(prompts, seeds, correlation, 1)
    level = NORMAL.inv_cdf(1 - ALPHA / 2)
    return NORMAL.cdf(effect / eighty * (level + NORMAL.inv_cdf(0.8)) - level)


def planted(table: Array, prompts: int) -> Array:
    """The table's spread around the effect that is forecast to be found in 80 of 100 studies."""
    correlation = correlation_within(table) or 0.0
    effect = smallest_effect(prompts, table.shape[1], correlation, 1)
    return table - table.mean() + effect * table.std(ddof=1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.bench.power",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, help="what `study --csv` wrote of two methods")
    parser.add_argument("--measure", default="rms_latents")
    options = parser.parse_args(arguments)
    try:
        table = read_differences(options.pairs, options.measure)
    except (OSError, KeyError, ValueError) as error:
        parser.error(f"{options.pairs} cannot be used: {error}")
    spread = table.std(ddof=1)
    print(f"{options.measure}: {len(table)} prompts x {table.shape[1]} seeds, difference "
          f"{table.mean():.4g}, standard deviation {spread:.4g}, "
          f"{math.fabs(table.mean()) / spread:.2f} of it; {STUDIES} studies of each size")
    print("prompts   effect as it is: found, forecast   planted for 80 %: found")
    for prompts in SIZES:
        print(f"{prompts:7} {found(table, prompts):25.1%} {forecast(table, prompts):9.1%} "
              f"{found(planted(table, prompts), prompts):25.1%}")
    print(f"below {FEWEST_PROMPTS} prompts nothing is told apart")


if __name__ == "__main__":
    main()
