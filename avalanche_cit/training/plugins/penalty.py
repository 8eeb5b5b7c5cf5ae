"""How a method that adds a term to the loss logs it: the metric ``penalty``, once per optimizer step."""

from __future__ import annotations

from typing import Any

from avalanche.evaluation.metric_results import MetricValue
from torch import Tensor


def log_penalty(plugin: Any, strategy: Any, total: Tensor, count: int = 1) -> None:
    """Hand a loss term of the present step, its factor lambda included, to the strategy's loggers.

    They get it when the numbers of this step are fetched from the device.

    Args:
        plugin: The plugin that adds the term.
        strategy: The strategy that trains.
        total: The term of the whole batch, of one element; where it is a mean, the sum before the division.
        count: What it is divided by.
    """
    step = strategy.clock.train_iterations

    def publish(number: float) -> None:
        strategy.evaluator.publish_metric_value(MetricValue(plugin, "penalty", number / count, step))

    strategy.pending.add(publish, total)
