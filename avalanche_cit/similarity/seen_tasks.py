"""The embeddings of the tasks seen so far, and how similar a new task is to each of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.similarity.encoders import ImageEncoder, TextEncoder
from avalanche_cit.similarity.fusion import FUSIONS, task_similarity
from avalanche_cit.similarity.task_embedding import TaskEmbedding, embed_task


class SeenTasks:
    """Embeds tasks as they come and compares them (paper; this form: group).

    Plugins of one strategy may share an instance: a task is embedded once.

    Args:
        image_encoder: Embeds images.
        text_encoder: Embeds text inputs and outputs.
        fusion: How the three similarities become one, ``"product"`` or ``"mean"``.
        samples: Training samples per task to embed, evenly strided.
        cache: Folder of embeddings on disk; None keeps none.

    Raises:
        UserError: There is no such fusion, or `samples` is below 1.

    Example:
        >>> seen = SeenTasks(VisionTower(model), TokenEmbedding(model))
        >>> for experience in benchmark.train_stream:
        ...     seen.see(task_name(experience.dataset), experience.dataset)
        >>> seen.similarity("gqa", ["flickr30k", "vqav2"])
        tensor([0.0312, 0.4270])
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        *,
        fusion: str = "product",
        samples: int = 1000,
        cache: Path | None = None,
    ) -> None:
        if fusion not in FUSIONS:
            raise unknown_name("fusion", fusion, FUSIONS)
        if samples < 1:
            raise UserError(f"similarity samples are {samples}: the embedding of a task needs at least one")
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.fusion = fusion
        self.samples = samples
        self.cache = cache
        self.embeddings: dict[str, TaskEmbedding] = {}

    def see(self, task: str, dataset: Any) -> None:
        """Embed a task from its Avalanche data set, unless it has been."""
        if task in self.embeddings:
            return
        self.embeddings[task] = embed_task(
            dataset,
            image_encoder=self.image_encoder,
            text_encoder=self.text_encoder,
            samples=self.samples,
            cache=self.cache,
        )

    def similarity(self, task: str, others: list[str]) -> Tensor:
        """Return s(task, k) for each of the others, (K,), standardised over all pairs of tasks seen so far."""
        names = list(self.embeddings)
        row = task_similarity(list(self.embeddings.values()), self.fusion)[names.index(task)]
        return row[torch.tensor([names.index(other) for other in others], dtype=torch.long)]

    def state_dict(self) -> dict[str, Any]:
        """Return the embeddings as tensors named ``<task>/<part>``."""
        return {
            f"{task}/{part}": tensor
            for task, embedding in self.embeddings.items()
            for part, tensor in embedding.as_tensors().items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the embeddings of a `state_dict`, in its order."""
        tasks: dict[str, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            task, _, part = key.rpartition("/")
            tasks.setdefault(task, {})[part] = tensor
        self.embeddings = {task: TaskEmbedding.from_tensors(parts) for task, parts in tasks.items()}
