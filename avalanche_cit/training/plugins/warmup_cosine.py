"""Learning-rate schedule per experience: linear warm-up, then a cosine to zero.

(std; warm-up of 3% as in the group's code.)
"""

from __future__ import annotations

import math
from typing import Any

from avalanche.core import SupervisedPlugin

from avalanche_cit.errors import UserError


class WarmupCosinePlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg,misc]
    """Starts every experience with a warm-up and ends it at a learning rate of zero.

    With S steps in the experience and w = `warmup` * S, step s (counted from 0) runs at the optimizer's own rate times
    (s + 1) / w while s + 1 <= w, and times (1 + cos(pi (s - w) / (S - w))) / 2 from s = w on.

    Args:
        warmup: Share of the experience's steps that warm up, in [0, 1).

    Raises:
        UserError: `warmup` is out of its range.

    Example:
        >>> strategy = SeqFT(model=model, plugins=[WarmupCosinePlugin(warmup=0.05)])
    """

    def __init__(self, warmup: float = 0.03) -> None:
        super().__init__()
        if not 0 <= warmup < 1:
            raise UserError(f"warmup is {warmup}: it must be at least 0 and below 1")
        self.warmup = warmup
        self._peaks: list[float] = []
        self._steps = 0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Remember the optimizer's own rates."""
        if not self._peaks:
            self._peaks = [group["lr"] for group in strategy.optimizer.param_groups]
        self._steps = 0

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Set the rates of this step."""
        if self._steps == 0:  # other plugins may have replaced the loader until now
            self._steps = len(strategy.dataloader) * strategy.train_epochs
        factor = warmup_cosine(strategy.clock.train_exp_iterations, self._steps, self.warmup)
        for group, peak in zip(strategy.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's own rates."""
        return {"peaks": self._peaks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`."""
        self._peaks = state["peaks"]


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Return the factor of the learning rate at a step, counted from 0; the first step's is above 0."""
    rising = warmup * steps
    if step + 1 <= rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) if step >= rising else 1.0
