"""What a task looks like, sounds like and asks for: one vector each for its images, text inputs and text outputs.

    e_m = normalised mean of a frozen encoder's vectors over about 1,000 evenly strided training samples   [group]

Paper: Figure 3 of He et al., "Continual Instruction Tuning for Large Multimodal Models" (arXiv 2311.16206). The vectors
of the samples go into the mean as the encoder gives them, and the mean is normalised. A sample without an image has an
image vector of zeros, which does not change the direction of the mean (ours).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from avalanche_cit.benchmarks.catalogue import cache_dir
from avalanche_cit.benchmarks.collator import image_key
from avalanche_cit.benchmarks.images import image_state
from avalanche_cit.benchmarks.instruction_data import images_of
from avalanche_cit.benchmarks.scenario import Example, strided_indices
from avalanche_cit.errors import UserError
from avalanche_cit.similarity.encoders import ImageEncoder, TextEncoder
from avalanche_cit.whole_file import whole_file

_VERSION = 1  # raised whenever the same samples and encoders would give another embedding
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class TaskEmbedding:
    """The embedding of one task: three vectors of unit norm, float32, on the CPU.

    Attributes:
        image: Of its images, (D_image,).
        text_input: Of its rendered prompts, (D_text,).
        text_output: Of its targets, (D_text,).
    """

    image: Tensor
    text_input: Tensor
    text_output: Tensor

    def as_tensors(self) -> dict[str, Tensor]:
        """Return the vectors by name, as checkpoints hold them."""
        return {"image": self.image, "text_input": self.text_input, "text_output": self.text_output}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> TaskEmbedding:
        """Make an embedding of what `as_tensors` gave.

        Raises:
            KeyError: A vector is missing.
        """
        return cls(tensors["image"], tensors["text_input"], tensors["text_output"])


def embed_task(
    dataset: Any,
    *,
    image_encoder: ImageEncoder,
    text_encoder: TextEncoder,
    samples: int = 1000,
    cache: Path | None = None,
) -> TaskEmbedding:
    """Embed a task, or read its embedding where the cache holds that of the same samples by the same encoders.

    Nothing is drawn at random.

    Args:
        dataset: The Avalanche data set of an experience, items ``(Example, task_label)``.
        image_encoder: Encodes images.
        text_encoder: Encodes text inputs and text outputs.
        samples: Samples to take at most, at even strides over the data set.
        cache: The folder to keep embeddings in, such as `embedding_cache` names; None keeps none.

    Raises:
        UserError: ``samples`` is below 1, an image cannot be read, the vectors of a modality cancel out, or the
            folder cannot be written.

    Example:
        >>> encoders = {"image_encoder": VisionTower(model), "text_encoder": TokenEmbedding(model)}
        >>> embed_task(benchmark.train_stream[0].dataset, **encoders, cache=embedding_cache()).image.shape
        torch.Size([128])
    """
    if samples < 1:
        raise UserError(f"a task is embedded by {samples} samples: it takes at least 1")
    chosen = _Strided(dataset, samples)
    if cache is None:
        return _embed(chosen, image_encoder, text_encoder)
    file = cache / f"{_key(chosen, image_encoder, text_encoder)}.safetensors"
    kept = _read(file)
    if kept is not None:
        return kept
    embedding = _embed(chosen, image_encoder, text_encoder)
    _write(embedding, file)
    return embedding


def embedding_cache() -> Path:
    """Return the folder in the package's cache where task embeddings are kept from run to run."""
    return cache_dir() / "task_embeddings"


class _Strided:
    """Examples of a data set at even strides, read when they are asked for."""

    def __init__(self, dataset: Any, samples: int) -> None:
        self._dataset = dataset
        self._indices = strided_indices(len(dataset), samples)

    def __iter__(self) -> Iterator[Example]:
        return (self._dataset[i][0] for i in self._indices)

    def chunks(self) -> Iterator[list[Example]]:
        starts = range(0, len(self._indices), _CHUNK)
        for start in tqdm(starts, desc="task embedding", leave=False, disable=len(starts) == 1):
            yield [self._dataset[i][0] for i in self._indices[start : start + _CHUNK]]


def _embed(chosen: _Strided, image_encoder: ImageEncoder, text_encoder: TextEncoder) -> TaskEmbedding:
    images, inputs, outputs = [], [], []
    task = ""
    for examples in chosen.chunks():
        task = examples[0].task.name
        images.append(image_encoder(examples).cpu())
        inputs.append(text_encoder([example.task.render(example.row) for example in examples]).cpu())
        outputs.append(text_encoder([example.row["target"] for example in examples]).cpu())
    return TaskEmbedding(
        image=_direction(images, f"task '{task}': the vectors of its images"),
        text_input=_direction(inputs, f"task '{task}': the vectors of its text inputs"),
        text_output=_direction(outputs, f"task '{task}': the vectors of its text outputs"),
    )


def _direction(parts: Sequence[Tensor], what: str) -> Tensor:
    """Return the normalised mean of all rows, (D,)."""
    mean = torch.cat(list(parts)).double().mean(dim=0)
    norm = mean.norm()
    if not norm > 0:
        raise UserError(f"{what} have no mean direction (are there any, and not all empty?); take another encoder")
    direction: Tensor = (mean / norm).float()
    return direction


# --- Kept on disk -----------------------------------------------------------------------------------------------------


def _key(chosen: _Strided, image_encoder: ImageEncoder, text_encoder: TextEncoder) -> str:
    """Name an embedding by all that decides it: the samples that it is made of, and the encoders."""
    digest = hashlib.sha256(json.dumps([_VERSION, image_encoder.name, text_encoder.name]).encode())
    for example in chosen:
        row = example.row
        images = [(image_key(image), image_state(image)) for image in images_of(row)]
        about = [row["id"], example.task.render(row), row["target"], images]
        digest.update(json.dumps(about).encode())
    return digest.hexdigest()[:32]


def _read(file: Path) -> TaskEmbedding | None:
    """Read a kept embedding; None where there is none, or none that can be read."""
    try:
        return TaskEmbedding.from_tensors(load_file(file))
    except (OSError, SafetensorError, KeyError):
        return None


def _write(embedding: TaskEmbedding, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as unfinished:
            save_file(embedding.as_tensors(), unfinished)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be written ({error}); give another cache folder") from error
