"""The work that all sides of a comparison do: which model, on which tasks, with which options."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks import CLScenario
from benchmark_plugins import now
from torch import Tensor
from torch.utils.data import Dataset

from avalanche_cit.benchmarks.batch import InstructionBatch
from avalanche_cit.benchmarks.scenario import Example, ExampleData, instruction_benchmark
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.models.lmm import LMM
from avalanche_cit.run_config import RunConfig
from avalanche_cit.runner import run

_FOLDER = tempfile.TemporaryDirectory()  # as long as the process


@dataclass(frozen=True)
class Job:
    """A stream of tasks to tune a model on.

    Attributes:
        model: The start, by name or folder.
        tasks: The stream, with as many training samples each.
        batch_size: Samples per update.
        epochs: Epochs per task.
        device: Where to compute, in single precision.
        warmup: Share of a task's updates that warm the learning rate up; a cosine follows.
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW, for matrices.
        max_grad_norm: To which gradients are clipped.
        features: What the frozen part makes of images, kept from one use of the job to the next.
    """

    model: str
    tasks: Sequence[Task]
    batch_size: int
    epochs: int
    device: torch.device
    warmup: float = 0.03
    lr: float = 1e-3
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    features: VisionFeatures = field(default_factory=lambda: VisionFeatures(Path(tempfile.mkdtemp(dir=_FOLDER.name))))

    @property
    def samples(self) -> int:
        """How many samples are trained on."""
        return self.epochs * sum(len(task.train) for task in self.tasks)

    def benchmark(self) -> CLScenario:
        """Return the stream as Avalanche takes it."""
        return instruction_benchmark(self.tasks)

    def load(self, *, trainable: str = "bridge", cached: bool) -> LMM:
        """Load the start, with what its frozen part makes of images cached or computed every time."""
        features = self.features if cached else None
        return LMM.from_pretrained(self.model, trainable=trainable, vision_features=features).to(self.device)

    def fill(self, trainable: str = "bridge") -> float:
        """Put all that the frozen part makes of the samples into the cache, and return the seconds that it took."""
        model, benchmark = self.load(trainable=trainable, cached=True), self.benchmark()
        begin = now(self.device)
        for experience in [*benchmark.train_stream, *benchmark.test_stream]:
            model.prepare(experience.dataset)
        return now(self.device) - begin

    def run(self, config: RunConfig, folder: Path) -> None:
        """Carry out a whole run of the same start, with the same cache."""
        run(config, folder, vision_features=self.features)

    def groups(self, model: LMM) -> list[dict[str, Any]]:
        """Return the trainable weights in two groups for an optimizer: matrices, which decay, and vectors."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        return [
            {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
        ]


class Samples(Dataset[tuple[Example, int]]):
    """The training samples of a task, as a plain PyTorch data set that a model's collator makes batches of."""

    def __init__(self, task: Task) -> None:
        self._data = ExampleData(task, task.train)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Example, int]:
        """Return a sample, its image still encoded."""
        return self._data[index][0], 0


def stock_inputs(model: LMM, batch: InstructionBatch) -> dict[str, Tensor]:
    """Return what the stock model's own forward pass takes, labels included."""
    return {**model.vision.inputs(batch, batch.labels.device), **batch.inputs, "labels": batch.labels}
