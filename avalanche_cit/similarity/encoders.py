"""Frozen encoders of images and texts: the multimodal model's own parts, and external models by name.

Vectors are given as the encoder makes them, not normalised by us, in float32, on the encoder's device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.models.frozen_prefix import CHUNK
from avalanche_cit.models.lmm import LMM
from avalanche_cit.similarity.external_encoders import OpenClip, SentenceEncoder
from avalanche_cit.similarity.weights import checksum

__all__ = [
    "IMAGE_ENCODERS",
    "TEXT_ENCODERS",
    "ImageEncoder",
    "OpenClip",
    "SentenceEncoder",
    "TextEncoder",
    "TokenEmbedding",
    "VisionTower",
    "make_image_encoder",
    "make_text_encoder",
]

IMAGE_ENCODERS = ("vision_tower", "open_clip:NAME_OR_FOLDER[:PRETRAINED]")
"""How image encoders are written on command lines and in YAML files."""

TEXT_ENCODERS = ("token_embedding", "sentence_transformers:NAME_OR_FOLDER")
"""How text encoders are written on command lines and in YAML files."""


class ImageEncoder(Protocol):
    """Turns images into vectors."""

    @property
    def name(self) -> str:
        """Kind and weights of the encoder: two of one name give the same vectors."""

    def __call__(self, examples: Sequence[Example]) -> Tensor:
        """Return the vectors (N, D) of the images of N examples."""


class TextEncoder(Protocol):
    """Turns texts into vectors."""

    @property
    def name(self) -> str:
        """Kind and weights of the encoder: two of one name give the same vectors."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors (N, D) of N texts."""


class VisionTower:
    """What a multimodal model's own frozen vision tower makes of an image, see `LMM.embed_images`.

    Args:
        lmm: The model.

    Raises:
        UserError: The tower is trained, so that it would see every task differently.

    Example:
        >>> VisionTower(LMM.from_pretrained("tiny-base"))([example, another]).shape
        torch.Size([2, 128])
    """

    def __init__(self, lmm: LMM) -> None:
        _must_be_frozen(lmm.vision.weights().values(), "the model's vision tower", "open_clip:NAME_OR_FOLDER")
        self._lmm = lmm

    @cached_property
    def name(self) -> str:
        """``vision_tower`` and a checksum of its weights and settings."""
        lmm = self._lmm
        settings = [lmm.vision.tower.config.to_json_string(), lmm.processor.image_processor.to_json_string()]
        return f"vision_tower:{checksum(lmm.vision.weights(), settings)}"

    def __call__(self, examples: Sequence[Example]) -> Tensor:
        """Return the vectors (N, D) of the images of N examples."""
        vectors = []
        for start in range(0, len(examples), CHUNK):
            part = list(examples[start : start + CHUNK])
            filled = part + part[-1:] * (CHUNK - len(part))  # kept features have that shape's bits
            batch, _, _ = self._lmm.collator([(example, 0) for example in filled])
            vectors.append(self._lmm.embed_images(batch.to(self._lmm.device))[: len(part)].float())
        return torch.cat(vectors)


class TokenEmbedding:
    """The mean of a multimodal model's own frozen input embedding over the tokens of a text. Needs no other model.

    Without the special tokens that the tokenizer adds; the vector of a text without any token is zero.

    Args:
        lmm: The model.

    Raises:
        UserError: The embedding is trained, so that it would read every task differently.

    Example:
        >>> TokenEmbedding(LMM.from_pretrained("tiny-base"))(["a red circle", "park"]).shape
        torch.Size([2, 128])
    """

    def __init__(self, lmm: LMM) -> None:
        self._embedding: nn.Module = lmm.hf.get_input_embeddings()
        _must_be_frozen(
            self._embedding.parameters(), "the model's text embedding", "sentence_transformers:NAME_OR_FOLDER"
        )
        self._tokenizer = lmm.processor.tokenizer

    @cached_property
    def name(self) -> str:
        """``token_embedding`` and a checksum of its weights and vocabulary."""
        vocabulary = sorted(self._tokenizer.get_vocab().items())
        return f"token_embedding:{checksum(self._embedding.state_dict(), [repr(vocabulary)])}"

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return the mean embedding (N, D) of N texts."""
        rows: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        starts = torch.tensor([0, *(len(row) for row in rows[:-1])]).cumsum(0)
        device = next(self._embedding.parameters()).device
        tokens = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long, device=device)
        vectors = self._embedding(tokens).float()
        places = torch.arange(len(tokens), device=device)
        return nn.functional.embedding_bag(places, vectors, starts.to(device), mode="mean")


def make_image_encoder(spec: str, lmm: LMM) -> ImageEncoder:
    """Make the image encoder that a command line or a YAML file names.

    Args:
        spec: ``vision_tower`` or ``open_clip:NAME_OR_FOLDER[:PRETRAINED]``.
        lmm: The model whose vision tower may be meant.

    Raises:
        UserError: There is no such encoder, or it cannot be used; see its class.

    Example:
        >>> make_image_encoder("open_clip:ViT-B-32:laion2b_s34b_b79k", model)
    """
    kind, _, model = spec.partition(":")
    if spec == "vision_tower":
        return VisionTower(lmm)
    if kind == "open_clip" and model:
        if Path(model).is_dir():
            return OpenClip(model)
        name, _, pretrained = model.partition(":")
        return OpenClip(name, pretrained or None)
    raise unknown_name("image encoder", spec, IMAGE_ENCODERS)


def make_text_encoder(spec: str, lmm: LMM) -> TextEncoder:
    """Make the text encoder that a command line or a YAML file names.

    Args:
        spec: ``token_embedding`` or ``sentence_transformers:NAME_OR_FOLDER``.
        lmm: The model whose text embedding may be meant.

    Raises:
        UserError: There is no such encoder, or it cannot be used; see its class.

    Example:
        >>> make_text_encoder("sentence_transformers:all-MiniLM-L6-v2", model)
    """
    kind, _, model = spec.partition(":")
    if spec == "token_embedding":
        return TokenEmbedding(lmm)
    if kind == "sentence_transformers" and model:
        return SentenceEncoder(model)
    raise unknown_name("text encoder", spec, TEXT_ENCODERS)


def _must_be_frozen(weights: Iterable[Tensor], what: str, instead: str) -> None:
    if any(weight.requires_grad for weight in weights):
        raise UserError(
            f"{what} is trained, so its vectors of different tasks cannot be compared; freeze it, or take {instead}"
        )
