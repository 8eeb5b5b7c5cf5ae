"""How a method that adds a term to the loss logs it: the metric ``penalty``, once per optimizer step."""

from __future__ import annotations

from typing import Any

from avalanche.evaluation.metric_results import MetricValue


def log_penalty(plugin: Any, strategy: Any, value: float) -> None:
    """Hand a loss term of the present step, its factor lambda included, to the strategy's loggers.

    Args:
        plugin: The plugin that adds the term.
        strategy: The strategy that trains.
        value: The term of the whole batch.
    """
    strategy.evaluator.publish_metric_value(MetricValue(plugin, "penalty", value, strategy.clock.train_iterations))
