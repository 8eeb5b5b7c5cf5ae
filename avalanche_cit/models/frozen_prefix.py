"""Keeps what the frozen vision tower makes of each image, so that it is computed once per run.

The tower always runs on batches of one fixed shape, so a feature does not depend on the images that happened to be
computed with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

_CHUNK = 64


class VisionFeatures:
    """Vision features by image key, in memory.

    Args:
        max_bytes: Once this much is held nothing more is added, and further images run through the tower.

    One instance may serve several models only if their vision towers have the same weights.
    """

    def __init__(self, max_bytes: int = 4 * 2**30) -> None:
        self.max_bytes = max_bytes
        self._features: dict[str, Tensor] = {}
        self._bytes = 0

    def __contains__(self, key: object) -> bool:
        """Tell whether an image's features are held."""
        return key in self._features

    def __len__(self) -> int:
        """Return the number of images held."""
        return len(self._features)

    @property
    def full(self) -> bool:
        """Whether the memory allowed is used up."""
        return self._bytes >= self.max_bytes

    def get(self, keys: Sequence[str], device: torch.device) -> Tensor:
        """Return the features of images, (B, N, D)."""
        return torch.stack([self._features[key] for key in keys]).to(device, non_blocking=True)

    def put(self, keys: Sequence[str], features: Tensor) -> None:
        """Hold the features (B, N, D) of images."""
        for key, feature in zip(keys, features.cpu(), strict=True):
            if not self.full and key not in self._features:
                self._features[key] = feature.clone()
                self._bytes += feature.numel() * feature.element_size()


class FeaturesOrPixels(nn.Module):
    """A vision tower that lets features pass through in the place of pixels.

    Args:
        tower: The stock vision tower.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixel_values: Tensor, **kwargs: object) -> BaseModelOutputWithPooling:
        """Run the tower on pixels (B, C, H, W); return features (B, N, D) as they are."""
        if pixel_values.ndim == 3:
            return BaseModelOutputWithPooling(last_hidden_state=pixel_values)
        output: BaseModelOutputWithPooling = self.tower(pixel_values=pixel_values, **kwargs)
        return output


@torch.no_grad()
def tower_features(tower: nn.Module, pixel_values: Tensor) -> Tensor:
    """Return the tower's features (B, N, D) of pixels (B, C, H, W), computed in chunks of one fixed shape."""
    chunks = []
    for start in range(0, len(pixel_values), _CHUNK):
        chunk = pixel_values[start : start + _CHUNK]
        missing = _CHUNK - len(chunk)
        padded = torch.cat([chunk, chunk[-1:].expand(missing, -1, -1, -1)]) if missing else chunk
        chunks.append(tower(pixel_values=padded).last_hidden_state[: len(chunk)])
    return torch.cat(chunks)
