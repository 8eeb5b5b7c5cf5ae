"""The plain strategies: sequential tuning, and the two reference points that every table shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import JointTraining

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


class JointFT(SeqFT, JointTraining):  # type: ignore[misc]
    """Joint fine-tuning: all tasks shuffled together, as many updates in total as SeqFT (std).

    Call ``train`` once, with the whole stream. The upper reference, out of competition.
    """
