"""The memory of replay: Avalanche's buffer of fixed size, shared out evenly among the tasks seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExperienceBalancedBuffer, ReservoirSamplingBuffer

from avalanche_cit.benchmarks.scenario import experience_name, subset_at, training_data
from avalanche_cit.errors import UserError


class BalancedMemory(ExperienceBalancedBuffer):  # type: ignore[misc]
    """Avalanche's buffer, which knows its tasks by name and may hold samples before the sequence starts.

    Args:
        max_size: Samples held at most.
    """

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size=max_size, adaptive_size=True)
        self.names: list[str] = []
        self._saved: dict[str, Any] = {}

    @property
    def buffer(self) -> Any:
        """The samples to replay.

        Raises:
            UserError: A state was taken over, and its samples have not been found.
        """
        if self._saved:
            raise UserError("the samples of a saved memory are not found by themselves: put a MemoryPlugin in front")
        return super().buffer

    @buffer.setter
    def buffer(self, new: Any) -> None:
        """Avalanche's constructor sets an empty one."""

    def hold(self, experiences: Sequence[Any], collate_fn: Any, seed: int) -> None:
        """Put samples of experiences into the memory, drawing from no generator but one of its own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for experience in experiences:
                experience.dataset.collate_fn = collate_fn
                self.post_adapt(None, experience)

    def update(self, strategy: Any, **kwargs: Any) -> None:
        """Take in the experience that has ended, without the notice that Avalanche's own way prints every time."""
        self.find_samples(strategy.experience, strategy.model.collator)
        self.post_adapt(strategy, strategy.experience)

    def post_adapt(self, agent: Any, exp: Any) -> None:
        """Take in an experience, and share the memory out anew."""
        super().post_adapt(agent, exp)
        self.names.append(experience_name(exp))

    def state_dict(self) -> dict[str, Any]:
        """Return which samples are held, by their places in the tasks' training data, and their draws."""
        if self._saved:
            return self._saved
        groups = zip(self.names, self.buffer_groups.values(), strict=True)
        return {
            "groups": [
                {"task": task, "places": torch.tensor(group.buffer.place[:]), "draws": group._buffer_weights}
                for task, group in groups
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`; `find_samples` holds its samples."""
        self._saved = state

    def find_samples(self, experience: Any, collate_fn: Any) -> None:
        """Hold the samples of the state that was taken over, if one was.

        Args:
            experience: Any experience of the benchmark.
            collate_fn: What makes batches of the samples.

        Raises:
            UserError: The benchmark has no such task or samples.
        """
        if not self._saved:
            return
        groups, self._saved = self._saved["groups"], {}
        data = training_data(experience)
        self.names = [group["task"] for group in groups]
        self.buffer_groups = {}
        for number, group in enumerate(groups):
            buffer = ReservoirSamplingBuffer(len(group["places"]))
            buffer.buffer = subset_at(data, group["task"], group["places"])
            buffer.buffer.collate_fn = collate_fn
            buffer._buffer_weights = group["draws"]
            self.buffer_groups[number] = buffer
        self._num_exps = len(groups)


class MemoryPlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg,misc]
    """Has a memory ready before a task begins; stands before the `ReplayPlugin` that replays it.

    Args:
        memory: The memory of the `ReplayPlugin`.
    """

    def __init__(self, memory: BalancedMemory) -> None:
        super().__init__()
        self.memory = memory

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Find the samples that a checkpoint names, and fill the cache of vision features with their images."""
        self.memory.find_samples(strategy.experience, strategy.model.collator)
        strategy.model.prepare(self.memory.buffer)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the memory's state is that of its `ReplayPlugin`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`."""
