"""Numbers that stay on the device: they come in order, as they were, and all at once."""

import pytest
import torch

from avalanche_cit.training.pending import PendingNumbers


def test_numbers_come_in_the_order_in_which_they_were_left() -> None:
    pending, seen = PendingNumbers(), []

    for i in range(3):
        pending.add(lambda one, other: seen.append((one, other)), torch.tensor(float(i)), torch.tensor([10.0 + i]))
    pending.add(seen.append, torch.tensor(7, dtype=torch.int64))

    assert (seen, len(pending)) == ([], 4)
    pending.fetch()
    assert (seen, len(pending)) == ([(0.0, 10.0), (1.0, 11.0), (2.0, 12.0), 7], 0)
    pending.fetch()
    assert len(seen) == 4


def test_every_number_keeps_its_bits_whatever_is_left_beside_it() -> None:
    pending, seen = PendingNumbers(), []
    numbers = [torch.tensor(1 / 3, dtype=dtype) for dtype in (torch.float32, torch.float64, torch.bfloat16)]

    for number in [*numbers, *numbers]:
        pending.add(seen.append, number)
    pending.fetch()

    assert seen == [number.item() for number in numbers] * 2
    assert len(set(seen)) == 3


def test_what_becomes_of_a_tensor_later_does_not_matter() -> None:
    pending, seen = PendingNumbers(), []
    weight = torch.tensor([2.0], requires_grad=True)
    loss = weight * 3
    kept = loss.detach()

    pending.add(seen.append, loss)
    kept += 1
    pending.fetch()

    assert seen == [6.0]


def test_what_comes_after_an_error_is_dropped() -> None:
    pending, seen = PendingNumbers(), []
    pending.add(seen.append, torch.tensor(1.0))
    pending.add(lambda number: 1 / number, torch.tensor(0.0))
    pending.add(seen.append, torch.tensor(2.0))

    with pytest.raises(ZeroDivisionError):
        pending.fetch()
    pending.fetch()

    assert seen == [1.0]


def test_one_wait_per_data_type(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: (waits.append(len(tensor)), tolist(tensor))[1])
    pending = PendingNumbers()
    for i in range(100):
        pending.add(lambda one, other: None, torch.tensor(float(i)), torch.tensor(0.0, dtype=torch.float64))

    pending.fetch()

    assert waits == [100, 100]
