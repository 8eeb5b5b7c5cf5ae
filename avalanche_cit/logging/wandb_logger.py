"""Weights & Biases: Avalanche's logger, for the releases of wandb that exist now."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from avalanche.evaluation.metric_results import AlternativeValues
from avalanche.logging import WandBLogger as AvalancheWandBLogger
from matplotlib.figure import Figure
from PIL.Image import Image


class WandBLogger(AvalancheWandBLogger):  # type: ignore[misc]
    """Log every number, figure and image to a run of Weights & Biases.

    Avalanche 0.6's own logger calls ``wandb.util.generate_id`` and ``wandb.viz``, which wandb has dropped since; this
    one does without them and is used in the same way.

    Args:
        project_name: Name of the W&B project.
        run_name: Name of the W&B run.
        dir: Folder of W&B's own files.
        config: Values to show with the run, such as its hyper-parameters.
        params: Further arguments of ``wandb.init``, such as ``{"mode": "offline"}``; the ``id`` of a run makes W&B
            go on with it.

    Example:
        >>> logger = WandBLogger("forgetting", "seqft-seed0", params={"mode": "offline"})
        >>> evaluator = EvaluationPlugin(matrix, loggers=[logger])
    """

    def __init__(
        self,
        project_name: str = "avalanche_cit",
        run_name: str | None = None,
        *,
        dir: Path | str | None = None,  # wandb's own name
        config: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
    ) -> None:
        params = {"id": uuid.uuid4().hex[:8], **(params or {})}
        super().__init__(project_name, run_name, save_code=False, config=config, dir=dir, params=params)

    def log_single_metric(self, name: str, value: object, x_plot: int) -> None:
        """Log a number, a figure or an image; other values are left to other loggers."""
        if isinstance(value, AlternativeValues):
            value = value.best_supported_value(Figure, Image, float, int)
        self.step = x_plot  # Avalanche's own after_training_exp uses it
        if isinstance(value, (Figure, Image)):
            value = self.wandb.Image(value)  # a bare figure would need plotly
        elif not isinstance(value, (float, int)):
            return
        self.wandb.log({name: value}, step=x_plot)
