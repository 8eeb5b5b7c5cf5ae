"""Avalanche's loss metrics of training, for strategies whose steps do not wait for the device.

Avalanche's own ask the device for the loss after every step. These leave it there, and take it when the strategy
fetches the numbers of many steps together; names, values and steps are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name
from avalanche.evaluation.metrics import loss
from avalanche.evaluation.metrics.mean import Mean


class MinibatchLoss(loss.MinibatchLoss):  # type: ignore[misc]
    """The loss of every mini-batch, ``Loss_MB``; emitted when it is fetched, at the step that it was computed in."""

    def after_training_iteration(self, strategy: Any) -> None:
        """Leave the loss of the step to be emitted."""
        name = get_metric_name(self, strategy, add_experience=False, add_task=True)
        step, samples = strategy.clock.train_iterations, strategy.step_samples

        def emit(value: float) -> None:
            self.reset()
            _mean(self).update(value, samples)
            strategy.evaluator.publish_metric_value(MetricValue(self, name, self.result(), step))

        strategy.pending.add(emit, strategy.loss.mean())


class EpochLoss(loss.EpochLoss):  # type: ignore[misc]
    """The mean loss over the samples of an epoch, ``Loss_Epoch``."""

    def update(self, strategy: Any) -> None:
        """Leave the loss of the step to be added."""
        samples = strategy.step_samples
        strategy.pending.add(lambda value: _mean(self).update(value, samples), strategy.loss.mean())


def loss_metrics(*, minibatch: bool = False, epoch: bool = False) -> list[loss.LossPluginMetric]:
    """Return the loss metrics asked for, as Avalanche's function of this name does.

    Args:
        minibatch: The loss of every mini-batch.
        epoch: The mean loss of every epoch.

    Example:
        >>> evaluator = EvaluationPlugin(matrix, loss_metrics(minibatch=True), loggers=[logger])
    """
    return [MinibatchLoss()] * minibatch + [EpochLoss()] * epoch


def asks_every_step(metrics: Iterable[Any]) -> bool:
    """Return whether one of the metrics is of Avalanche's own that emit the loss of training after every step.

    What else a step logs is fetched with it then: it costs no further wait, and lines keep their order.
    """
    own = (loss.MinibatchLoss, loss.RunningEpochLoss)
    return any(isinstance(metric, own) and not isinstance(metric, MinibatchLoss) for metric in metrics)


def _mean(metric: loss.LossPluginMetric) -> Mean:
    return metric._loss._mean_loss
