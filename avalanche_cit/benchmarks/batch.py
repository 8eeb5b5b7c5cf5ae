"""What a mini-batch is made of: Avalanche's (x, y, t) with an `InstructionBatch` as x."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_cit.benchmarks.task import Task

IGNORED = -100
"""The label of positions that no loss is computed for: prompt, image tokens, padding."""

TextInputs = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class ImageInputs:
    """What an image processor makes of the images of B samples.

    Attributes:
        tensors: The stock model's image inputs by name, such as ``pixel_values``.
        rows: For each of them, how many rows of its first dimension belong to each sample: one per sample for most
            models, as many as there are patches for Qwen-VL, none for a sample without an image.
    """

    tensors: dict[str, Tensor]
    rows: dict[str, list[int]]

    @classmethod
    def joined(cls, samples: Sequence[dict[str, Tensor]]) -> ImageInputs:
        """Join the image inputs of single samples, padded with zeros where their trailing dimensions differ."""
        names = dict.fromkeys(name for sample in samples for name in sample)
        parts = {name: [sample[name] for sample in samples if name in sample] for name in names}
        rows = {name: [len(sample[name]) if name in sample else 0 for sample in samples] for name in names}
        return cls({name: _concatenated(tensors) for name, tensors in parts.items()}, rows)

    def select(self, samples: Sequence[int]) -> ImageInputs:
        """Return the inputs of some of the samples, in the order asked for."""
        tensors = {}
        for name, tensor in self.tensors.items():
            parts = torch.split(tensor, self.rows[name])
            tensors[name] = torch.cat([parts[i] for i in samples])
        kept = {name: [rows[i] for i in samples] for name, rows in self.rows.items()}
        return ImageInputs({name: tensor for name, tensor in tensors.items() if sum(kept[name])}, kept)

    def map(self, change: Callable[[Tensor], Tensor]) -> ImageInputs:
        """Return the inputs with every tensor changed."""
        return replace(self, tensors={name: change(tensor) for name, tensor in self.tensors.items()})


@dataclass(frozen=True, eq=False)
class InstructionBatch:
    """The x of a mini-batch of B samples.

    Attributes:
        tasks: Each sample's task.
        rows: Each sample's row (id, instruction, target, references, choices), images left out.
        prompts: Each sample's rendered text input.
        image_keys: Each sample's first image, named by its content or path; None where a sample has no image.
        images: Image inputs, or None where the features of every image are already known.
        inputs: Text tensors of the training forward pass, each (B, ...).
        prompt_inputs: Text tensors to generate from, each (B, ...).
        labels: (B, L) token ids, `IGNORED` everywhere but on answer and end tokens.
        answer_tokens: How many of the labels of each sample are not `IGNORED`, known without asking a device.
        counts: Whether the batch has a part in a loss; False for one that only keeps a process busy.
    """

    tasks: list[Task]
    rows: list[dict[str, Any]]
    prompts: list[str]
    image_keys: list[str | None]
    images: ImageInputs | None
    inputs: TextInputs
    prompt_inputs: TextInputs
    labels: Tensor
    answer_tokens: list[int]
    counts: bool = True

    @property
    def tokens(self) -> int:
        """How many answer tokens have a part in a loss."""
        return sum(self.answer_tokens) if self.counts else 0

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.rows)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> InstructionBatch:
        """Return the batch with its tensors on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> InstructionBatch:
        """Return the batch with its tensors in page-locked memory, as data loaders ask for."""
        return self._map(lambda tensor: tensor.pin_memory())

    def split(self, size: int) -> list[InstructionBatch]:
        """Cut the batch into micro-batches of at most `size` samples."""
        return [self.select(range(start, min(start + size, len(self)))) for start in range(0, len(self), size)]

    def select(self, samples: Sequence[int]) -> InstructionBatch:
        """Return the batch of some of its samples, in the order asked for; text stays padded as it is."""
        index = torch.tensor(list(samples)).to(self.labels.device, non_blocking=True)
        return InstructionBatch(
            tasks=[self.tasks[i] for i in samples],
            rows=[self.rows[i] for i in samples],
            prompts=[self.prompts[i] for i in samples],
            image_keys=[self.image_keys[i] for i in samples],
            images=None if self.images is None else self.images.select(samples),
            inputs={name: tensor.index_select(0, index) for name, tensor in self.inputs.items()},
            prompt_inputs={name: tensor.index_select(0, index) for name, tensor in self.prompt_inputs.items()},
            labels=self.labels.index_select(0, index),
            answer_tokens=[self.answer_tokens[i] for i in samples],
            counts=self.counts,
        )

    def _map(self, change: Callable[[Tensor], Tensor]) -> InstructionBatch:
        return replace(
            self,
            images=None if self.images is None else self.images.map(change),
            inputs={name: change(tensor) for name, tensor in self.inputs.items()},
            prompt_inputs={name: change(tensor) for name, tensor in self.prompt_inputs.items()},
            labels=change(self.labels),
        )


MiniBatch = list[Any]  # [InstructionBatch, labels, task_ids]


def padded(rows: Sequence[Sequence[int]], value: int, left: bool = False) -> Tensor:
    """Pad lists of token ids to a tensor (B, L).

    Example:
        >>> padded([[1, 2], [3]], 0, left=True)
        tensor([[1, 2],
                [0, 3]])
    """
    width = max(len(row) for row in rows)
    tensor = torch.full((len(rows), width), value, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        tensor[i, place] = torch.tensor(row, dtype=torch.long)
    return tensor


def _concatenated(tensors: Sequence[Tensor]) -> Tensor:
    widest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    return torch.cat([_widened(tensor, widest) for tensor in tensors])


def _widened(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """Pad all dimensions but the first with zeros at their ends."""
    missing = [side for now, then in zip(tensor.shape[:0:-1], sizes[::-1], strict=True) for side in (0, then - now)]
    return nn.functional.pad(tensor, missing) if any(missing) else tensor
