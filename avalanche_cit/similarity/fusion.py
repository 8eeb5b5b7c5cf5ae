"""Similarity of tasks from their embeddings, as pure functions.

Of tasks j and k, in each modality m (image, text input, text output):

    c_m(j, k) = <e_m_j, e_m_k>
    s_m(t, k) = sigmoid((c_m(t, k) - mu_m) / sd_m)     mu_m, sd_m over all pairs of tasks seen so far   [group]
    s(t, k)   = s_image(t, k) * s_text_input(t, k) * s_text_output(t, k)                                [group]

Paper: Figure 3 of He et al., "Continual Instruction Tuning for Large Multimodal Models" (arXiv 2311.16206), which fuses
image, text input and text output. The equations are those of the same group's later code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avalanche_cit.errors import unknown_name
from avalanche_cit.similarity.task_embedding import TaskEmbedding

FUSIONS = ("product", "mean")
"""Ways to make one similarity of three."""

_EQUAL = 1e-8  # a spread below this is rounding


def task_similarity(embeddings: Sequence[TaskEmbedding], fusion: str = "product") -> Tensor:
    """Return how similar each pair of tasks is, (K, K) in [0, 1], float32.

    The last row, without its last entry, is s(t, k) of the newest task t to all before it.

    Args:
        embeddings: Of the K tasks seen so far, in the order in which they came. What a pair gets depends on all of
            them, because cosines are standardised over all pairs.
        fusion: See `fuse`.

    Raises:
        UserError: There is no such fusion.

    Example:
        >>> task_similarity([first, second, third])[-1, :-1]  # of the third task to the first and the second
        tensor([0.3103, 0.0416])
    """
    modalities = zip(*(embedding.as_tensors().values() for embedding in embeddings), strict=True)
    return fuse([standardise(cosines(torch.stack(vectors))) for vectors in modalities], fusion).float()


def cosines(vectors: Tensor) -> Tensor:
    """Return the cosine of each pair of rows, (K, D) -> (K, K), in double precision.

    Rows need not have unit norm. Equal pairs must come out equal, or `standardise` would blow their rounding up:
    hence the precision.
    """
    unit = nn.functional.normalize(vectors.double(), dim=1)
    return (unit @ unit.T).clamp(-1, 1)


def standardise(cosine: Tensor) -> Tensor:
    """Return sigmoid((c - mean) / sd) of the cosines of K tasks, (K, K) -> (K, K).

    Mean and sd (unbiased) are taken over all unordered pairs of different tasks [group]; where all cosines are equal
    every pair gets 1/2. Of two tasks alone there is one pair and nothing to standardise by: it gets its raw cosine
    [group], clamped to [0, 1] [ours]. A task is similar to itself by 1 [ours].

    Example:
        >>> standardise(torch.tensor([[1.0, 0.2, 0.4], [0.2, 1.0, 0.6], [0.4, 0.6, 1.0]]))
        tensor([[1.0000, 0.2689, 0.5000],
                [0.2689, 1.0000, 0.7311],
                [0.5000, 0.7311, 1.0000]])
    """
    tasks = len(cosine)
    exact = cosine.double()
    if tasks <= 2:
        similarity = exact.clamp(0, 1)
    else:
        row, column = torch.triu_indices(tasks, tasks, offset=1, device=cosine.device)
        pairs = exact[row, column]
        sd = pairs.std()
        z = torch.where(sd < _EQUAL, torch.zeros_like(exact), (exact - pairs.mean()) / sd)
        similarity = torch.sigmoid(z)
    itself = torch.eye(tasks, dtype=torch.bool, device=cosine.device)
    return similarity.masked_fill(itself, 1.0).to(cosine.dtype)


def fuse(per_modality: Sequence[Tensor], fusion: str = "product") -> Tensor:
    """Make one matrix (K, K) of those of the modalities.

    Args:
        per_modality: Matrices in [0, 1].
        fusion: ``"product"`` [group], or ``"mean"`` [ours], under which one dissimilar modality counts less.

    Raises:
        UserError: There is no such fusion.
    """
    stacked = torch.stack(list(per_modality))
    match fusion:
        case "product":
            return stacked.prod(dim=0)
        case "mean":
            return stacked.mean(dim=0)
        case _:
            raise unknown_name("fusion", fusion, FUSIONS)
