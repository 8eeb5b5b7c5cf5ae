"""The vision tower inside a stock model: its features kept between uses, and what it makes of a sample's images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from avalanche_cit.benchmarks.batch import InstructionBatch
from avalanche_cit.models.families import Family
from avalanche_cit.models.frozen_prefix import FeaturesOrPixels, VisionFeatures


class VisionPart:
    """The vision tower of a stock model whose family is known.

    Args:
        hf: The stock model, its trainable part chosen.
        family: Its family.
        features: Where to keep the tower's features; used by models with a Q-Former whose tower is frozen, whose
            tower is then wrapped so that it lets features pass.

    Attributes:
        features: The cache, or None where it is not used.
    """

    def __init__(self, hf: Any, family: Family, features: VisionFeatures | None) -> None:
        self.hf = hf
        self.family = family
        usable = family.prompt == "qformer" and not any(weight.requires_grad for weight in self.tower.parameters())
        self.features = features if usable else None
        if self.features is not None:
            hf.set_submodule(family.vision, FeaturesOrPixels(self.tower))

    @property
    def tower(self) -> Any:
        """The stock tower."""
        tower = self.hf.get_submodule(self.family.vision)
        return tower.tower if isinstance(tower, FeaturesOrPixels) else tower

    def weights(self) -> dict[str, Tensor]:
        """Return the weights and buffers that the tower's output depends on, by name.

        Without the parts of the bridge that lie within it (Qwen-VL's mergers).
        """
        prefix = f"{self.family.vision}."
        within = tuple(f"{name[len(prefix) :]}." for name in self.family.bridge if name.startswith(prefix))
        tower = dict(chain(self.tower.named_parameters(), self.tower.named_buffers()))
        return {name: weight for name, weight in tower.items() if not name.startswith(within)}

    def features_or_pixels(self, batch: InstructionBatch, device: torch.device) -> Tensor:
        """Return features (B, N, D) where all are cached, else pixels (B, C, H, W); one image a sample."""
        if batch.images is not None:
            return batch.images.tensors["pixel_values"].to(self.hf.dtype)
        if self.features is None:
            raise ValueError("this batch holds no pixels: it was collated for a model with cached vision features")
        return self.features.get([key for key in batch.image_keys if key is not None], device)

    def embed(self, batch: InstructionBatch, device: torch.device) -> Tensor:
        """Return what the tower makes of each sample's images, (B, D); see `LMM.embed_images`."""
        if self.family.prompt == "qformer":
            features = self.features_or_pixels(batch, device)
            if features.ndim == 4:
                features = self.tower(pixel_values=features).last_hidden_state
            return features[:, 0]
        assert batch.images is not None
        # one by one, so that a sample's vector does not depend on the others of its batch
        images = [batch.images.select([i]).tensors for i in range(len(batch))]
        return torch.stack([self._mean(tensors) if tensors else self._nothing(device) for tensors in images])

    @contextmanager
    def stock(self) -> Iterator[None]:
        """Have the stock tower in its place, without what lets cached features pass."""
        name = self.family.vision
        wrapped = self.hf.get_submodule(name)
        self.hf.set_submodule(name, self.tower)
        try:
            yield
        finally:
            self.hf.set_submodule(name, wrapped)

    def _mean(self, images: Mapping[str, Tensor]) -> Tensor:
        """Mean over the tower's tokens, (D,)."""
        features = self.hf.model.get_image_features(**cast(images, self.hf.dtype), return_dict=True).last_hidden_state
        mean: Tensor = features.flatten(0, -2).mean(0)
        return mean

    def _nothing(self, device: torch.device) -> Tensor:
        """Zeros in the place of such a mean, for a sample without an image, (D,)."""
        width: int = self.hf.config.vision_config.to_dict()[self.family.vision_width]
        return torch.zeros(width, dtype=self.hf.dtype, device=device)


def cast(images: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return image inputs with pixels in the model's data type."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in images.items()}
