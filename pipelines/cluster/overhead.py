"""`python -m pipelines.cluster.overhead`: what handing out costs, and how much faster a cluster is.

A grid of the bundled model is made on one device of a running cluster, then on all. Handing out
costs a device the time between the end of one batch and the beginning of the next, by its own
clock, while there is work. Nothing is logged in the data folder (docs/cluster.md has figures).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.cluster.driver import Batch, Cluster
from pipelines.comparison import Comparison
from pipelines.engine import Engine
from pipelines.request import RunRequest

PROMPT = "a red car on a road at night"


def waits_ms(batches: Sequence[Batch]) -> list[float]:
    """How long devices waited for each of their batches but the first, in milliseconds per
    picture."""
    waits = []
    for label in {batch.label for batch in batches}:
        mine = sorted((batch for batch in batches if batch.label == label),
                      key=lambda batch: batch.begun)
        waits += [1000 * (batch.begun - before.ended) / max(1, batch.pictures)
                  for before, batch in zip(mine, mine[1:], strict=False)]
    return waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cluster", default="auto", metavar="auto|ray://HOST:10001")
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--num-inference-steps", type=int, default=10)
    options = parser.parse_args()
    cluster = Cluster(options.cluster)
    cluster.wait_for_devices()
    base = RunRequest(prompt=PROMPT, num_inference_steps=options.num_inference_steps)
    comparison = Comparison.parse(base, [f"seed=0..{options.cells - 1}"])
    links = cluster.ready()
    print(f"{len(links)} devices, {cluster.machine['device_name']}, {options.cells} cells of "
          f"{options.num_inference_steps} steps")
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder), cluster=cluster)
        engine.compare(comparison, shared=True, fresh=True)  # all have the model loaded then
        for apart in (False, True):
            seconds = {}
            for count in sorted({1, len(links)}):
                for place, link in enumerate(links):
                    link.ready = place < count
                begun = time.perf_counter()
                engine.compare(comparison, shared=not apart, fresh=True)
                seconds[count] = time.perf_counter() - begun
                waits = waits_ms(cluster.batches)
                print(f"{'one at a time' if apart else 'in batches'}, {count} devices: "
                      f"{seconds[count]:.2f} s, {seconds[1] / seconds[count]:.2f} times one "
                      f"device; {len(cluster.batches)} batches, a device waited "
                      f"{statistics.median(waits):.1f} ms per picture (median; least "
                      f"{min(waits):.1f}, most {max(waits):.1f})")


if __name__ == "__main__":
    main()
