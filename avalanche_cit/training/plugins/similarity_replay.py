"""Replay of one fixed memory, shared out among the old tasks by their similarity to the new one (ours).

Before task t begins, the old task k gets a share of the memory in proportion to 1 - s(t, k): dissimilar tasks, which
learning t will hurt most, are replayed more. The memory itself holds equally many samples of every task. A task whose
share is larger than what is held of it has some of its samples twice, one whose share is smaller only some of them: as
many entries are replayed as the memory holds, whatever the shares. Everything else is Avalanche's `ReplayPlugin`.
"""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks.utils import concat_datasets
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_cit.benchmarks.scenario import single_task
from avalanche_cit.similarity.seen_tasks import SeenTasks
from avalanche_cit.training.plugins.balanced_memory import BalancedMemory


class SharedMemory(BalancedMemory):
    """A balanced memory that is shown with other shares than it is kept with."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size=max_size)
        self.quotas: list[int] | None = None

    @property
    def buffer(self) -> Any:
        """The samples to replay."""
        if self.quotas is None:
            return super().buffer
        pairs = zip(self.buffer_datasets, self.quotas, strict=True)
        return concat_datasets([group.subset([i % len(group) for i in range(n)]) for group, n in pairs if n])

    @buffer.setter
    def buffer(self, new: Any) -> None:
        """Avalanche's constructor sets an empty one."""


class MemorySharingPlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg,misc]
    """Shares a memory out anew before every task; stands between its `MemoryPlugin` and its `ReplayPlugin`.

    Args:
        memory: The memory of the `ReplayPlugin`.
        seen_tasks: Tells the similarity of tasks.
    """

    def __init__(self, memory: SharedMemory, seen_tasks: SeenTasks) -> None:
        super().__init__()
        self.memory = memory
        self.seen_tasks = seen_tasks

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Set the shares for the task that begins."""
        for name, group in zip(self.memory.names, self.memory.buffer_groups.values(), strict=True):
            self.seen_tasks.see(name, group.buffer)
        task = single_task(strategy.experience, "replay by similarity")
        self.seen_tasks.see(task, strategy.experience.dataset)
        if self.memory.names:
            held = sum(len(group.buffer) for group in self.memory.buffer_groups.values())
            self.memory.quotas = quotas(self.seen_tasks.similarity(task, self.memory.names), held)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Show the memory as it is kept."""
        self.memory.quotas = None

    def state_dict(self) -> dict[str, Any]:
        """Return the tasks seen; the shares are those of the task at hand, and are made anew."""
        return self.seen_tasks.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`."""
        self.seen_tasks.load_state_dict(state)


def quotas(similarity: Tensor, size: int) -> list[int]:
    """Share out a memory of `size` samples in proportion to 1 - s, rounded by largest remainder.

    Where every old task is as similar as can be, they share equally.

    Example:
        >>> quotas(torch.tensor([0.75, 0.0, 0.25]), 10)
        [1, 5, 4]
    """
    weight = (1 - similarity).double()
    weight = weight if float(weight.sum()) > 0 else torch.ones_like(weight)
    exact = weight / weight.sum() * size
    whole = exact.floor()
    missing = size - int(whole.sum())
    order = torch.argsort(exact - whole, descending=True, stable=True)
    whole[order[:missing]] += 1
    return [int(number) for number in whole]
