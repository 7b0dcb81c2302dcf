"""Many pictures in one process: whether memory, open files and threads stay as they are.

    python tests/soak.py --pictures 500

Jobs go through the dashboard's queue, each of a few pictures with a prompt of its own, every fifth
a comparison. A table line for each fifth of the pictures; exit code 1 where open files or threads
grew after the first fifth, or memory by more than GROWTH.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.environ |= {"HF_HUB_OFFLINE": "1", "CONTACT_SHEET_DEVICE": "cpu"}

import psutil

from pipelines import Comparison, Engine, RunRequest
from pipelines.jobs import open_queue, submit_comparison, submit_generation
from pipelines.queue import Job, JobQueue

BASE = RunRequest(prompt="", num_inference_steps=4)
SCHEDULERS = ("ddim", "euler", "dpmpp_2m", "unipc", "lms")
AT_ONCE = 5  # pictures of a job
STAGES = 5
GROWTH = 1.03  # of the memory after the first stage: the allocator takes some time to settle
PATIENCE = 600.0  # seconds for a job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=500)
    count = parser.parse_args().pictures
    if count < AT_ONCE * STAGES:
        parser.error(f"--pictures: received {count}, accepted at least {AT_ONCE * STAGES}")
    table: list[tuple[int, int, int]] = []
    with tempfile.TemporaryDirectory() as home:
        queue = open_queue(Engine(Path(home), device="cpu"))
        begin, jobs = time.monotonic(), count // AT_ONCE
        print("pictures   seconds   memory MB   open files   threads")
        for number in range(jobs):
            job = _submit(queue, number)
            if not job.wait(PATIENCE) or job.status != "done":
                sys.exit(f"job {number}: {job.status} {job.error or ''}")
            if (number + 1) % (jobs // STAGES) == 0:
                table.append(_measured())
                memory, files, threads = table[-1]
                print(f"{(number + 1) * AT_ONCE:8} {time.monotonic() - begin:9.0f} "
                      f"{memory / 2**20:11.0f} {files:12} {threads:9}", flush=True)
    first, last = table[0], table[-1]
    if last[0] > GROWTH * first[0] or last[1] > first[1] or last[2] > first[2]:
        sys.exit("it grows")


def _submit(queue: JobQueue, number: int) -> Job:
    request = BASE.changed(prompt=f"a red car on a road at night {number}")
    if number % 5 == 4:
        axes = [f"scheduler={','.join(SCHEDULERS)}"]
        return submit_comparison(queue, Comparison.parse(request, axes))
    return submit_generation(queue, [request.changed(seed=seed) for seed in range(AT_ONCE)])


def _measured() -> tuple[int, int, int]:
    """Bytes of memory, open files and threads of this process."""
    gc.collect()
    process = psutil.Process()
    return process.memory_info().rss, process.num_fds(), process.num_threads()


if __name__ == "__main__":
    main()
