"""How plugins, metrics and loggers take part in checkpoints: by two methods.

    class Temperature(SupervisedPlugin):
        def state_dict(self) -> dict[str, Any]:
            return {"value": self.value}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.value = state["value"]

A state is made of mappings with texts as keys, lists, texts, numbers, truth values, None, and tensors; metrics and
loggers hold no tensors in theirs. A plugin's state is taken when an optimizer step is over, and after each experience.
It is loaded before the training goes on; where that is inside an experience, once more after the callbacks that begin
experience and epoch. So `load_state_dict` may be called twice, and what those callbacks reset is set again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from avalanche.evaluation.metrics.loss import LossPluginMetric
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin, ReplayPlugin
from avalanche.training.plugins.clock import Clock
from avalanche.training.templates.base_sgd import PeriodicEval

_WITHOUT_STATE = (EvaluationPlugin, PeriodicEval, BaseLogger)


@runtime_checkable
class Resumable(Protocol):
    """What takes part in checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        """Return what would be lost with the process."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class _ClockState:
    """Avalanche's clock: a handful of counters."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self.clock))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self.clock).update(state)


class _LossState:
    """Avalanche's loss metrics: a running mean."""

    def __init__(self, metric: LossPluginMetric) -> None:
        self.mean = metric._loss._mean_loss

    def state_dict(self) -> dict[str, Any]:
        return {"summed": self.mean.summed, "weight": self.mean.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean.summed, self.mean.weight = state["summed"], state["weight"]


def resumable_parts(parts: Iterable[Any]) -> tuple[dict[str, Resumable], list[str]]:
    """Tell the parts that take part in checkpoints from those that would have to.

    Args:
        parts: Plugins, metrics or loggers.

    Returns:
        Those that do, under the names of their classes, numbered where a class comes more than once; and the names of
        the classes whose state would be lost. Parts of Avalanche that hold nothing are in neither.
    """
    found: dict[str, Resumable] = {}
    lost: list[str] = []
    for part in parts:
        own = _as_resumable(part)
        name = type(part).__name__
        if own is not None:
            same = sum(key.partition(" ")[0] == name for key in found)
            found[f"{name} {same + 1}" if same else name] = own
        elif not isinstance(part, _WITHOUT_STATE):
            lost.append(name)
    return found, lost


def _as_resumable(part: Any) -> Resumable | None:
    if isinstance(part, Clock):
        return _ClockState(part)
    if isinstance(part, LossPluginMetric):
        return _LossState(part)
    inner = part
    if isinstance(part, ReplayPlugin):
        inner = part.storage_policy
    if isinstance(part, LRSchedulerPlugin):
        inner = part.scheduler
    return inner if isinstance(inner, Resumable) else None
