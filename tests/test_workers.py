"""How a call is spread over the cores."""

import torch

from pipelines.models.registry import Registry
from pipelines.painting.workers import Pace, Plan, compute, plans

ROWS, LAYERS = Plan(2, 1), Plan(1, 2)


def pace(rows, layers):
    measured = Pace([ROWS, LAYERS])
    for _ in range(Pace.SAMPLES):
        measured.took(LAYERS, layers)
        measured.took(ROWS, rows)
    return measured


def test_the_ways_to_spread_a_call(two_cores):
    assert plans(1) == [Plan(1, 2), Plan(1, 1)]
    assert plans(2) == [Plan(2, 1), Plan(1, 1), Plan(1, 2)]
    assert plans(64) == [Plan(2, 1), Plan(1, 2)]


def test_parts_run_side_by_side_with_the_threads_they_were_given(two_cores):
    threads = []

    def work(part):
        threads.append(torch.get_num_threads())
        return part, torch.is_grad_enabled()

    assert compute(work, ["a", "b", "c"], 1) == [(part, False) for part in "abc"]
    assert threads == [1, 1, 1]
    assert torch.get_num_threads() == 2


def test_the_faster_way_is_taken():
    assert pace(rows=1, layers=2).next == ROWS
    assert pace(rows=1, layers=0.98).next == ROWS  # as good as equal, and no waits
    assert pace(rows=2, layers=1).next == LAYERS


def test_each_way_is_tried_a_few_times_unless_it_is_far_slower():
    measured, ways = Pace([ROWS, LAYERS]), []
    for _ in range(2 * Pace.SAMPLES):
        ways.append(measured.next)
        measured.took(ways[-1], 1)
    assert ways.count(ROWS) == ways.count(LAYERS) == Pace.SAMPLES
    measured = Pace([ROWS, LAYERS])
    measured.took(ROWS, 1)
    measured.took(LAYERS, 3)
    measured.took(ROWS, 1)
    assert measured.next == ROWS


def test_a_way_that_became_slow_is_left_and_tried_again_later():
    measured = pace(rows=1.1, layers=1)
    measured.took(LAYERS, 4)  # another program has begun
    assert measured.next == ROWS
    ways = []
    for _ in range(200):
        ways.append(measured.next)
        measured.took(measured.next, 4 if measured.next == LAYERS else 1.1)
    assert 1 <= ways.count(LAYERS) <= 10
    for _ in range(200):  # it has ended
        measured.took(measured.next, 1 if measured.next == LAYERS else 1.1)
    assert measured.next == LAYERS


def test_a_batch_on_two_cores_runs_in_parts_and_is_what_one_part_gives(two_cores):
    with Registry("cpu").borrow("postcards") as (model, _):
        network = model.pipe.unet
        channels, width = network.config.in_channels, network.config.sample_size
        torch.manual_seed(0)
        latents = torch.randn(6, channels, width, width)
        text = torch.randn(6, 8, network.config.cross_attention_dim)
        whole = compute(lambda rows: network(latents[rows], 10, text[rows]).sample,
                        [slice(0, 6)], 2)
        parts = compute(lambda rows: network(latents[rows], 10, text[rows]).sample,
                        [slice(0, 3), slice(3, 6)], 1)
    assert torch.allclose(torch.cat(parts), whole[0], atol=1e-4)
