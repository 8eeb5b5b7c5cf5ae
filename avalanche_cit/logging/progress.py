"""One progress bar over a whole run, training and evaluation together, with the time left."""

from __future__ import annotations

import sys
from typing import Any

from avalanche.core import SupervisedPlugin
from tqdm import tqdm


class ProgressPlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg,misc]
    """Shows how far a run is, and counts the samples that it has trained on.

    Args:
        total: Mini-batches of the whole run, of training and evaluation.
        title: What stands before the bar.

    Attributes:
        samples_seen: Samples trained on so far, replayed ones included.
    """

    def __init__(self, total: int, title: str) -> None:
        super().__init__()
        self.samples_seen = 0
        # shown after a second: what goes wrong while a run is set up stands on a line of its own
        every = 0.1 if sys.stderr.isatty() else 30.0  # seconds: a log keeps every line
        self._bar = tqdm(total=total, desc=title, unit="batch", dynamic_ncols=True, delay=1, mininterval=every)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count a training batch."""
        self.samples_seen += strategy.step_samples
        self._advance(strategy)

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count an evaluated batch."""
        self._advance(strategy)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Name the task at hand."""
        self._bar.set_postfix_str(f"task {strategy.clock.train_exp_counter + 1}", refresh=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of samples seen."""
        return {"samples_seen": self.samples_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`."""
        self.samples_seen = state["samples_seen"]

    def _advance(self, strategy: Any) -> None:
        done = strategy.clock.total_iterations  # all but the one at hand
        if self._bar.n < done:  # by an earlier process, whose speed says nothing about this one's
            self._bar.initial = self._bar.n = done
        self._bar.update()

    def close(self) -> None:
        """Finish the bar."""
        self._bar.close()
