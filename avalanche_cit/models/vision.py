"""The vision tower inside a stock model, what of its features is kept, and what it makes of a sample's images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from avalanche_cit.benchmarks.batch import InstructionBatch
from avalanche_cit.benchmarks.collator import InstructionCollator
from avalanche_cit.benchmarks.qformer_collator import QFormerCollator
from avalanche_cit.models.families import Family
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.models.frozen_prefix import FrozenPrefix, why_not
from avalanche_cit.models.kept_features import KeptFeatures


class VisionPart:
    """The vision tower of a stock model whose family is known.

    Args:
        hf: The stock model.
        family: Its family.
        kept: What is kept of its frozen part's outputs, see `kept_features`.
    """

    def __init__(self, hf: Any, family: Family, kept: KeptFeatures | None = None) -> None:
        self.hf = hf
        self.family = family
        self.kept = kept

    @property
    def tower(self) -> Any:
        """The stock tower."""
        return self.hf.get_submodule(self.family.vision) if self.kept is None else self.kept.prefix.tower

    def weights(self) -> dict[str, Tensor]:
        """Return the weights and buffers that the tower's output depends on, by name.

        Without the parts of the bridge that lie within it (Qwen-VL's mergers).
        """
        prefix = f"{self.family.vision}."
        within = tuple(f"{name[len(prefix) :]}." for name in self.family.bridge if name.startswith(prefix))
        tower = dict(chain(self.tower.named_parameters(), self.tower.named_buffers()))
        return {name: weight for name, weight in tower.items() if not name.startswith(within)}

    def inputs(self, batch: InstructionBatch, device: torch.device) -> dict[str, Tensor]:
        """Return the model's image inputs: kept features where there are some, else what the stock model takes.

        Raises:
            ValueError: Images are left out of the batch, because it was made for a model that keeps features.
        """
        if self.kept is not None:
            return {"pixel_values": self.kept.inputs(batch, device)}
        if self.family.prompt == "qformer" and (batch.images is None or 0 in batch.images.rows["pixel_values"]):
            raise ValueError("this batch lacks pixels: it was collated for a model that keeps vision features")
        assert batch.images is not None
        return cast(batch.images.tensors, self.hf.dtype)

    def embed(self, batch: InstructionBatch, device: torch.device) -> Tensor:
        """Return what the tower makes of each sample's images, (B, D); see `LMM.embed_images`."""
        if self.kept is not None:
            return self.kept.class_tokens(batch, device)
        if self.family.prompt == "qformer":
            class_tokens: Tensor = self.tower(**self.inputs(batch, device)).last_hidden_state[:, 0]
            return class_tokens
        assert batch.images is not None
        # one by one, so that a sample's vector does not depend on the others of its batch
        images = [batch.images.select([i]).tensors for i in range(len(batch))]
        return torch.stack([self._mean(tensors) if tensors else self._nothing(device) for tensors in images])

    @contextmanager
    def stock(self) -> Iterator[None]:
        """Have stock modules in the places of the wrappers that let kept features pass."""
        stock = {} if self.kept is None else self.kept.prefix.stock
        wrappers = {name: self.hf.get_submodule(name) for name in stock}
        for name, module in stock.items():
            self.hf.set_submodule(name, module)
        try:
            yield
        finally:
            for name, wrapper in wrappers.items():
                self.hf.set_submodule(name, wrapper)

    def _mean(self, images: Mapping[str, Tensor]) -> Tensor:
        """Mean over the tower's tokens, (D,)."""
        features = self.hf.model.get_image_features(**cast(images, self.hf.dtype), return_dict=True).last_hidden_state
        mean: Tensor = features.flatten(0, -2).mean(0)
        return mean

    def _nothing(self, device: torch.device) -> Tensor:
        """Zeros in the place of such a mean, for a sample without an image, (D,)."""
        width: int = self.hf.config.vision_config.to_dict()[self.family.vision_width]
        return torch.zeros(width, dtype=self.hf.dtype, device=device)


def kept_features(
    hf: Any, family: Family | None, collator: InstructionCollator, cache: VisionFeatures
) -> KeptFeatures | None:
    """Prepare a stock model for features that are kept; None, and a note that says why, where they cannot be.

    Args:
        hf: The stock model, its trainable part chosen.
        family: Its family, if it is known.
        collator: Makes its batches.
        cache: Where to keep them.
    """
    reason = why_not(hf, family)
    if reason is not None:
        print(f"note: no vision features are kept: {reason}")
        return None
    assert family is not None
    assert isinstance(collator, QFormerCollator)
    return KeptFeatures(FrozenPrefix(hf, family, collator), collator, cache)


def cast(images: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return image inputs with pixels in the model's data type."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in images.items()}
