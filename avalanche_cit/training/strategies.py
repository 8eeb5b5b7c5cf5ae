"""The strategies: sequential tuning, its two reference points, and replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.storage_policy import ExperienceBalancedBuffer
from avalanche.training.supervised import JointTraining

from avalanche_cit.errors import UserError
from avalanche_cit.models.lmm import LMM
from avalanche_cit.training.plugins.warmup_cosine import WarmupCosinePlugin
from avalanche_cit.training.templates import InstructionTuning


class SeqFT(InstructionTuning):
    """Sequential fine-tuning: task after task with nothing against forgetting (paper: SeqFT; Avalanche: Naive).

    Args:
        warmup: Share of warm-up steps of the cosine schedule; None keeps the learning rate constant.
        kwargs: See `InstructionTuning`.
    """

    def __init__(
        self, *, warmup: float | None = 0.03, plugins: Sequence[SupervisedPlugin] | None = None, **kwargs: Any
    ) -> None:
        schedule = [] if warmup is None else [WarmupCosinePlugin(warmup)]
        super().__init__(plugins=[*(plugins or []), *schedule], **kwargs)


class DirectFT(SeqFT):
    """Direct fine-tuning: every task is tuned alone from the same start (paper: DirectFT; meaning std).

    The reference for what a task can reach; its "matrix" has a defined diagonal only.
    """

    def __init__(self, *, model: LMM, **kwargs: Any) -> None:
        super().__init__(model=model, **kwargs)
        self._start = {name: weight.clone() for name, weight in model.trainable_state().items()}

    def _before_training_exp(self, **kwargs: Any) -> None:
        self.model.load_trainable_state(self._start)
        super()._before_training_exp(**kwargs)


class Replay(SeqFT):
    """Replay of stored samples by Avalanche's own `ReplayPlugin`, unmodified (group).

    A memory of fixed size is shared out evenly among the tasks seen; from the second task on, every batch of
    `train_mb_size` new samples is joined by `memory_batch_size` samples of the memory.

    Args:
        memory_size: Samples in the memory, for the whole stream; see `memory_size_of`.
        memory_batch_size: Memory samples per batch; None for a quarter of `train_mb_size`.
        kwargs: See `SeqFT`.

    Raises:
        UserError: The memory holds nothing.

    Example:
        >>> Replay(model=model, memory_size=memory_size_of(benchmark.train_stream, 0.01))
    """

    def __init__(
        self,
        *,
        memory_size: int,
        memory_batch_size: int | None = None,
        train_mb_size: int = 64,
        plugins: Sequence[SupervisedPlugin] | None = None,
        **kwargs: Any,
    ) -> None:
        if memory_size < 1:
            raise UserError(f"memory_size is {memory_size}: a replay memory holds at least one sample")
        replay = ReplayPlugin(
            mem_size=memory_size,
            batch_size_mem=max(1, train_mb_size // 4) if memory_batch_size is None else memory_batch_size,
            storage_policy=_BalancedMemory(max_size=memory_size, adaptive_size=True),
        )
        # first, so that the draws of its memory come before those of other plugins' passes over the data
        super().__init__(train_mb_size=train_mb_size, plugins=[replay, *(plugins or [])], **kwargs)


class _BalancedMemory(ExperienceBalancedBuffer):  # type: ignore[misc]
    """Avalanche's buffer of fixed size, filled without the notice that its old way of filling prints every time."""

    def update(self, strategy: Any, **kwargs: Any) -> None:
        self.post_adapt(strategy, strategy.experience)


class JointFT(SeqFT, JointTraining):  # type: ignore[misc]
    """Joint fine-tuning: all tasks shuffled together, as many updates in total as SeqFT (std).

    Call ``train`` once, with the whole stream. The upper reference, out of competition.
    """


def memory_size_of(train_stream: Any, fraction: float) -> int:
    """Return the size of a memory that holds a fraction of all training samples of a stream, at least one.

    Raises:
        UserError: The fraction is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"the memory fraction is {fraction}: it must be above 0 and at most 1")
    return max(1, round(fraction * sum(len(experience.dataset) for experience in train_stream)))
