"""How the importance of old tasks counts while a new one is learned: TIR and its controls, as pure functions.

Task-similarity-informed regularization (paper; this form: group). Every weight is owned by the task k to which it
matters most. Before training task t, with s(t, k) the similarity of the two tasks in [0, 1],

    Omega~_i = (1 - s(t, owner_i)) * Omega_i

so weights that matter to a *similar* old task are released and those of dissimilar tasks stay protected. TIR also
lowers the penalty as a whole, so a comparison needs controls (ours): the same with s, with the owner drawn at random,
and with no weighting at all, each also rescaled to the same total importance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WEIGHTINGS = ("dissimilarity", "similarity", "random_owner", "ones")
"""TIR, its reversal, the same factors for random owners, and no weighting."""


def weighted(
    importance: Sequence[Tensor],
    owner: Sequence[Tensor],
    similarity: Tensor,
    *,
    weighting: str = "dissimilarity",
    rescale: bool = False,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Weight an importance by the similarity of the new task to the owner of each weight.

    Args:
        importance: Omega, one tensor per weight.
        owner: Index of the owning task, of the same shapes (int8 or int16).
        similarity: s(t, k) of the new task to each of the K old ones, (K,), in [0, 1].
        weighting: One of `WEIGHTINGS`.
        rescale: Scale the result so that it sums to what `importance` sums to.
        generator: Draws the random owners, on the CPU.

    Returns:
        Omega~, new tensors of the same shapes.

    Example:
        >>> weighted([torch.ones(2)], [torch.tensor([0, 1], dtype=torch.int8)], torch.tensor([0.25, 1.0]))
        [tensor([0.7500, 0.0000])]
    """
    if weighting == "ones":
        return [part.clone() for part in importance]
    factors = similarity if weighting == "similarity" else 1 - similarity
    result = []
    for part, owned in zip(importance, owner, strict=True):
        index = owned.int()
        if weighting == "random_owner":
            index = torch.randint(len(similarity), owned.shape, generator=generator, dtype=torch.int32).to(part.device)
        chosen = factors.to(part.device, part.dtype).index_select(0, index.flatten()).view_as(part)
        result.append(chosen.mul_(part))
    if rescale:
        before, after = (torch.stack([part.sum() for part in parts]).sum() for parts in (importance, result))
        torch._foreach_mul_(result, torch.where(after > 0, before / after, torch.ones_like(after)))
    return result
