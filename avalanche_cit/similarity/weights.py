"""A checksum that tells one frozen model from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def checksum(weights: Mapping[str, Tensor], settings: Sequence[str] = ()) -> str:
    """Sum up all weights and buffers of a module, and what else decides its output.

    Reads every byte, a few seconds per gigabyte. Does not depend on the device.

    Args:
        weights: The module's weights and buffers by name.
        settings: What its weights do not tell, such as its activation functions.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256("\n".join(settings).encode())
    for name, weight in weights.items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
