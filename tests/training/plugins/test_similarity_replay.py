"""The memory of replay: even shares as it is kept, shares by dissimilarity as it is replayed."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario

from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM
from avalanche_cit.training import Replay, SimilarityReplay
from avalanche_cit.training.plugins.similarity_replay import MemorySharingPlugin, quotas

OPTIONS = {"train_mb_size": 8, "lr": 1e-2, "seed": 3}


class Similar:
    """Stands for the similarity of tasks, which has tests of its own."""

    def __init__(self, pairs: dict[tuple[str, str], float]) -> None:
        self.pairs = pairs
        self.embeddings: dict[str, int] = {}

    def see(self, task: str, dataset: Any) -> None:
        self.embeddings.setdefault(task, len(dataset))

    def similarity(self, task: str, others: list[str]) -> torch.Tensor:
        return torch.tensor([self.pairs[(task, other)] for other in others])


def ids(dataset: Any) -> list[str]:
    return [dataset[i][0].row["id"] for i in range(len(dataset))]


@pytest.mark.parametrize(
    ("similarity", "size", "expected"),
    [
        ([0.75, 0.0, 0.25], 10, [1, 5, 4]),
        ([0.5, 0.5], 8, [4, 4]),
        ([1.0, 0.0], 6, [0, 6]),
        ([1.0, 1.0], 6, [3, 3]),
        ([0.2], 5, [5]),
        ([0.0, 0.0, 0.0], 10, [4, 3, 3]),
    ],
)
def test_shares_by_hand(similarity: list[float], size: int, expected: list[int]) -> None:
    assert quotas(torch.tensor(similarity), size) == expected


def test_dissimilar_tasks_are_replayed_more(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    seen: Any = Similar({("shape", "colour"): 0.5, ("caption", "colour"): 0.75, ("caption", "shape"): 0.25})
    strategy = SimilarityReplay(model=load(), memory_size=8, memory_batch_size=8, seen_tasks=seen, **OPTIONS)
    shown = []

    def note(task: int) -> None:
        strategy.train(benchmark.train_stream[task])

    original = strategy.memory.__class__.buffer.fget

    class Watch(type(strategy.memory)):  # type: ignore[misc]
        @property
        def buffer(self) -> Any:
            data = original(self)
            shown.append((self.quotas, ids(data)))
            return data

        @buffer.setter
        def buffer(self, new: Any) -> None: ...

    note(0)
    kept_colour = ids(strategy.memory.buffer_groups[0].buffer)
    note(1)
    kept = {
        name: ids(group.buffer)
        for name, group in zip(strategy.memory.names, strategy.memory.buffer_groups.values(), strict=True)
    }
    strategy.memory.__class__ = Watch
    note(2)

    assert len(kept_colour) == 8
    assert {name: len(held) for name, held in kept.items()} == {"colour": 4, "shape": 4}
    during = [held for quota, held in shown if quota is not None]
    assert during
    for held in during:
        assert Counter(name.split("-")[0] for name in held) == {"colour": 2, "shape": 6}
        assert set(held) <= {*kept["colour"], *kept["shape"]}  # nothing but what the memory holds
        assert set(kept["shape"]) <= set(held)
    assert strategy.memory.quotas is None


def test_equal_similarities_are_plain_replay_bit_for_bit(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    pairs = {("shape", "colour"): 0.5, ("caption", "colour"): 0.5, ("caption", "shape"): 0.5}
    seen: Any = Similar(pairs)
    plain = Replay(model=load(), memory_size=8, **OPTIONS)
    shared = SimilarityReplay(model=load(), memory_size=8, seen_tasks=seen, **OPTIONS)
    for strategy in (plain, shared):
        for experience in benchmark.train_stream:
            strategy.train(experience)

    own, other = shared.model.trainable_state(), plain.model.trainable_state()
    assert all(torch.equal(own[name], other[name]) for name in own)


@pytest.mark.parametrize("method", [Replay, SimilarityReplay])
def test_task_0_is_in_the_memory_from_the_start(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any, method: Any
) -> None:
    strategy = method(
        model=load(),
        memory_size=4,
        memory_batch_size=4,
        task0=benchmark.task0_train_stream,
        plugins=[record],
        **OPTIONS,
    )
    state = torch.get_rng_state()
    again = method(model=load(), memory_size=4, task0=benchmark.task0_train_stream, **OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)

    strategy.train(benchmark.train_stream[0])

    assert all(sum(name.startswith("old-") for name in step) == 4 for step in record.ids)
    assert strategy.memory.names == ["old", "colour"]
    assert again.memory.names == ["old"]


def test_real_similarities_are_used_by_default(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    strategy = SimilarityReplay(model=load(), memory_size=8, **OPTIONS)
    for experience in benchmark.train_stream:
        strategy.train(experience)

    plugin = next(plugin for plugin in strategy.plugins if isinstance(plugin, MemorySharingPlugin))
    assert list(plugin.seen_tasks.embeddings) == ["colour", "shape", "caption"]
    similarity = plugin.seen_tasks.similarity("caption", ["colour", "shape"])
    assert similarity.shape == (2,)
    assert float(similarity.min()) >= 0
    assert float(similarity.max()) <= 1


def test_a_memory_smaller_than_task_0(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    with pytest.raises(UserError, match="memory_size is 0"):
        Replay(model=load(), memory_size=0, **OPTIONS)
    with pytest.raises(UserError, match="each of the 2 members"):
        Replay(model=load(), memory_size=1, task0=[*benchmark.task0_train_stream] * 2, **OPTIONS)
