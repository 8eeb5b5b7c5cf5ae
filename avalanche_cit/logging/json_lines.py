"""Every number that a strategy logs, one JSON object a line: the run directory's metrics.jsonl."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metric_results import AlternativeValues
from avalanche.logging import BaseLogger
from torch import Tensor

from avalanche_cit.errors import UserError


class JSONLinesLogger(BaseLogger, SupervisedPlugin):  # type: ignore[misc]
    """Append each logged number to a file as one line ``{"step", "task", "phase", "name", "value"}``.

    ``step`` is the position that the metric gives, in Avalanche the count of training iterations so far.
    ``task`` is the experience being trained or trained last: its name, its index where it has no name, null
    before any. ``phase`` is ``"train"`` or ``"eval"``. Numbers that are not finite become null; figures,
    images, texts and tensors of more than one number are left to other loggers.

    The file is line-buffered: a process that is killed loses no finished line. A line cut off by an earlier
    kill is removed when the file is opened again.

    Args:
        path: The file to append to; its folder is made where it is missing.
        task_names: Names of the experiences, by index.

    Example:
        >>> logger = JSONLinesLogger(path=Path("run/metrics.jsonl"), task_names=["captions", "vqa"])
        >>> evaluator = EvaluationPlugin(loss_metrics(minibatch=True), loggers=[logger])
        >>> # {"step": 0, "task": "captions", "phase": "train", "name": "Loss_MB/train_phase/...", "value": 2.31}
    """

    def __init__(self, *, path: Path, task_names: Sequence[str] = ()) -> None:
        super().__init__()
        self.path = path
        self._task_names = list(task_names)
        self._task: str | int | None = None
        self._phase = "train"
        self._open()

    def log_single_metric(self, name: str, value: object, x_plot: int) -> None:
        """Write one line, unless the value is not a number."""
        number = _as_number(value)
        if number is None:
            return
        line = {
            "step": x_plot,
            "task": self._task,
            "phase": self._phase,
            "name": name,
            "value": number if math.isfinite(number) else None,
        }
        self._file.write(json.dumps(line) + "\n")

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note which experience the next lines belong to."""
        index = strategy.experience.current_experience
        self._task = self._task_names[index] if index < len(self._task_names) else index

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Mark the next lines as evaluation."""
        self._phase = "eval"

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Mark the next lines as training; an evaluation's own last values are written by then."""
        self._phase = "train"

    def state_dict(self) -> dict[str, Any]:
        """Return how long the file is, what was written so far being on the disk, and what the lines are about."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return {"bytes": self._file.tell(), "task": self._task, "phase": self._phase}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut the file back to where it was, so that no line is written twice.

        Raises:
            UserError: The file has become shorter.
        """
        size = self.path.stat().st_size
        if size < state["bytes"]:
            raise UserError(f"{self.path} has lost lines: {size} bytes of {state['bytes']} are left; restore the file")
        os.truncate(self.path, state["bytes"])
        self._task, self._phase = state["task"], state["phase"]

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            with self.path.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        self._file = self.path.open("a", buffering=1, encoding="utf-8")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file out, so that Avalanche's own checkpoints can hold the logger."""
        return {name: value for name, value in self.__dict__.items() if name != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file again, to append."""
        self.__dict__.update(state)
        self._open()


def _as_number(value: object) -> float | int | None:
    if isinstance(value, AlternativeValues):
        value = value.best_supported_value(float, int)
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return value if isinstance(value, int) else float(value)
