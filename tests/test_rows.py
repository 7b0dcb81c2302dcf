"""Calls taken apart into rows, joined, and put together again."""

import pytest
import torch

from pipelines.painting.rows import NotRows, Rows, join, largest_difference


def rows_of(*args, **kwargs):
    return Rows.of_call(args, kwargs)


def test_calls_are_joined_and_cut_into_what_they_were():
    """A scalar timestep, a text, a dict, and a tensor that all rows share."""
    ids = torch.arange(6).reshape(3, 2)
    calls = [rows_of(torch.full((count, 4), float(count)), torch.tensor(timestep),
                     added={"text": torch.ones(count, 2)}, ids=ids, flag=False)
             for count, timestep in ((1, 7), (2, 9.5))]
    assert calls[0].key() == calls[1].key()
    (sample, timestep), kwargs = join(calls).value()
    assert sample.shape == (3, 4)
    assert timestep.tolist() == [7, 9.5, 9.5]
    assert kwargs["added"]["text"].shape == (3, 2)
    assert kwargs["ids"] is ids
    assert kwargs["flag"] is False
    parts = join(calls).split([1, 2])
    assert torch.equal(parts[1].value()[0][0], torch.full((2, 4), 2.0))


def test_different_settings_shapes_and_dtypes_are_no_batch():
    base = rows_of(torch.ones(2, 4), scale=1.0)
    for other in (rows_of(torch.ones(2, 4), scale=2.0), rows_of(torch.ones(2, 5), scale=1.0),
                  rows_of(torch.ones(2, 4).half(), scale=1.0), rows_of(torch.ones(2, 4))):
        assert other.key() != base.key()


def test_lists_with_an_entry_per_row_and_residuals_with_all_rows():
    listed = rows_of([torch.ones(4, 3), torch.zeros(4, 3)], torch.ones(2))
    (samples, _), _ = join([listed, listed]).value()
    assert [sample.sum().item() for sample in samples] == [12, 0, 12, 0]
    residuals = rows_of(torch.ones(2, 4), [torch.ones(2, 8), torch.ones(2, 16)])
    (_, (first, second)), _ = join([residuals, residuals]).value()
    assert (first.shape, second.shape) == ((4, 8), (4, 16))
    shapes = rows_of(torch.ones(2, 4), [[(1, 4, 4)]] * 2)
    assert join([shapes, shapes]).value()[0][1] == [[(1, 4, 4)]] * 4


def test_outputs_of_several_tensors_and_objects_are_split():
    class Distribution:
        def __init__(self):
            self.mean, self.deterministic = torch.arange(3.0).reshape(3, 1), False

    call = rows_of(torch.ones(3, 4))
    first, second = call.of_output((Distribution(), [torch.ones(3, 2)])).split([1, 2])
    distribution, (residual,) = second.value()
    assert distribution.mean.flatten().tolist() == [1, 2]
    assert residual.shape == (2, 2)
    assert first.value()[0].mean.tolist() == [[0]]
    with pytest.raises(NotRows):
        call.of_output(torch.ones(7, 2))


def test_what_has_no_rows_runs_as_it_is():
    for args in ((), (1, 2), (torch.ones(2, 2), object())):
        with pytest.raises(NotRows):
            rows_of(*args)


def test_equal_rows_have_equal_names():
    call = rows_of(torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 2.0]]), torch.tensor(5))
    first, second, third = call.digests()
    assert first == second != third
    assert rows_of(torch.tensor([[1.0, 2.0]]), torch.tensor(5.0)).digests() == [first]
    assert rows_of(torch.tensor([[1.0, 2.0]]), torch.tensor(6)).digests() != [first]
    assert rows_of(torch.ones(1).expand(1), torch.ones(1, dtype=torch.bfloat16)).digests()


def test_the_largest_difference_is_a_share_of_the_largest_value():
    call = rows_of(torch.ones(2, 2))
    plain = call.of_output(torch.tensor([[4.0, 0.0], [1.0, 1.0]]))
    assert largest_difference(plain, call.of_output(plain.value() + 0.4)) == pytest.approx(0.1)
    broken = call.of_output(torch.tensor([[4.0, float("nan")], [1.0, 1.0]]))
    assert largest_difference(plain, broken) == float("inf")
    assert largest_difference(broken, broken) == 0
