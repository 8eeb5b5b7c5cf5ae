"""The order of an epoch depends on its seed alone, from wherever it is read."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.benchmarks.utils.data_loader import ReplayDataLoader, SingleDatasetDataLoader
from torch.utils.data import DataLoader, Dataset

from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM
from avalanche_cit.training.batches import batches
from avalanche_cit.training.randomness import random_state

MakeLoader = Callable[..., Any]


@pytest.fixture(params=["single", "replay", "torch"])
def loader(request: pytest.FixtureRequest, benchmark: CLScenario, load: Callable[..., LMM]) -> MakeLoader:
    """Make a shuffling loader: our strategies' own, the one that Avalanche's ReplayPlugin puts there, torch's."""
    model = load("llama")
    new, old = (experience.dataset for experience in benchmark.train_stream[:2])
    for dataset in (new, old):
        dataset.collate_fn = model.collator

    def make(num_workers: int = 0) -> Any:
        options: dict[str, Any] = {"num_workers": num_workers, "shuffle": True}
        if request.param == "single":
            return SingleDatasetDataLoader(new, batch_size=3, collate_fn=model.collator, **options)
        if request.param == "torch":
            return DataLoader(new, batch_size=3, collate_fn=model.collator, **options)
        # the memory is gone through several times, and shuffled anew each time
        memory = old.subset([0, 3, 5, 7, 8])
        return ReplayDataLoader(
            new, memory, batch_size=3, batch_size_mem=2, oversample_small_tasks=True, task_balanced_dataloader=False,
            **options,
        )  # fmt: skip

    return make


def ids(read: Iterator[Any]) -> list[list[str]]:
    return [[row["id"] for row in x.rows] for x, _, _ in read]


def seed_everything(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def test_the_order_depends_on_the_seed_alone(loader: MakeLoader) -> None:
    seed_everything(1)
    order = ids(batches(loader(), (0, 1, 2)))
    seed_everything(2)

    def drawing(read: Iterator[Any]) -> Iterator[Any]:
        for batch in read:
            torch.rand(3), np.random.rand(3), random.random()
            yield batch

    assert ids(drawing(batches(loader(), (0, 1, 2)))) == order
    for seed in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert ids(batches(loader(), seed)) != order
    new = {name for batch in order for name in batch if name.startswith("colour")}
    assert len(new) == 16


def test_worker_processes_change_nothing(loader: MakeLoader) -> None:
    assert ids(batches(loader(num_workers=2), (4,))) == ids(batches(loader(), (4,)))


@pytest.mark.parametrize("skip", range(1, 7))
def test_what_is_left_is_what_would_have_come(loader: MakeLoader, skip: int) -> None:
    whole = ids(batches(loader(), (4,)))
    assert len(whole) == 6

    assert ids(batches(loader(), (4,), skip=skip)) == whole[skip:]


def test_worker_processes_change_nothing_in_what_is_left(loader: MakeLoader) -> None:
    assert ids(batches(loader(num_workers=2), (4,), skip=4)) == ids(batches(loader(), (4,)))[4:]


def test_nothing_is_drawn_from_the_global_states(loader: MakeLoader) -> None:
    seed_everything(1)
    before = str(plain(random_state()))

    read = batches(loader(), (4,), skip=2)
    for _ in read:
        assert str(plain(random_state())) == before

    assert str(plain(random_state())) == before


def test_what_the_training_draws_stays(loader: MakeLoader) -> None:
    seed_everything(1)
    expected = [float(torch.rand(())) for _ in range(6)]
    seed_everything(1)

    assert [float(torch.rand(())) for _ in batches(loader(), (4,))] == expected


class Counted(Dataset[int]):
    """Counts the samples that are read, and fails on the one that is told."""

    def __init__(self, fails: Callable[[], object] | None = None) -> None:
        self.read = 0
        self.fails = fails

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> int:
        self.read += 1
        if self.fails is not None and i == 7:
            self.fails()
        return i


def test_avalanche_loaders_do_not_read_what_is_skipped(benchmark: CLScenario) -> None:
    read = []

    def collate(samples: list[Any]) -> list[Any]:
        read.extend(samples)
        return samples

    dataset = benchmark.train_stream[0].dataset
    dataset.collate_fn = collate
    loader = SingleDatasetDataLoader(dataset, batch_size=4, shuffle=True, collate_fn=collate)

    assert len(list(batches(loader, (1,), skip=3))) == 1
    assert len(read) == 4


def unreadable() -> None:
    raise UserError("image x.png cannot be read")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_sample_is_told_in_one_line(workers: int) -> None:
    loader = DataLoader(Counted(unreadable), batch_size=4, num_workers=workers)

    with pytest.raises(UserError) as raised:
        list(batches(loader, (0,)))

    assert str(raised.value) == "image x.png cannot be read"


def test_a_killed_worker_is_told_in_one_line() -> None:
    loader = DataLoader(Counted(lambda: os.kill(os.getpid(), signal.SIGKILL)), batch_size=4, num_workers=1)

    with pytest.raises(UserError, match=r"a process that loads data died, .*: try fewer --data-workers") as raised:
        list(batches(loader, (0,)))

    assert "\n" not in str(raised.value)


def test_other_errors_stay_what_they_are() -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(batches(DataLoader(Counted(fail), batch_size=4), (0,)))


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return {key: plain(part) for key, part in value.items()} if isinstance(value, dict) else value
