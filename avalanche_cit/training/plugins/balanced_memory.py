"""The memory of replay: Avalanche's buffer of fixed size, shared out evenly among the tasks seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.training.storage_policy import ExperienceBalancedBuffer

from avalanche_cit.benchmarks.scenario import task_name


class BalancedMemory(ExperienceBalancedBuffer):  # type: ignore[misc]
    """Avalanche's buffer, which knows its tasks by name and may hold samples before the sequence starts.

    Args:
        max_size: Samples held at most.
    """

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size=max_size, adaptive_size=True)
        self.names: list[str] = []

    def hold(self, experiences: Sequence[Any], collate_fn: Any, seed: int) -> None:
        """Put samples of experiences into the memory, drawing from no generator but one of its own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for experience in experiences:
                experience.dataset.collate_fn = collate_fn
                self.post_adapt(None, experience)

    def update(self, strategy: Any, **kwargs: Any) -> None:
        """Take in the experience that has ended, without the notice that Avalanche's own way prints every time."""
        self.post_adapt(strategy, strategy.experience)

    def post_adapt(self, agent: Any, exp: Any) -> None:
        """Take in an experience, and share the memory out anew."""
        super().post_adapt(agent, exp)
        self.names.append(str(task_name(exp.dataset)))
