"""How much each trainable weight matters to a task: the importance Omega of the regularization methods.

EWC (std; Kirkpatrick et al. 2017, arXiv 1612.00796), the diagonal of the empirical Fisher information:

    per sample    Omega_i = E_x[(d L(x) / d theta_i)^2],   L(x) = the sum of the loss over the answer tokens of x
    per batch     Omega_i = E_B[(d L(B) / d theta_i)^2],   L(B) = its mean over the answer tokens of the batch B

MAS (std; Aljundi et al. 2018, arXiv 1711.09601), with g = the mean over answer positions of the squared L2 norm of
the logits over the vocabulary:

    per sample    Omega_i = E_x[|d g(x) / d theta_i|]
    per batch     Omega_i = E_B[|d g(B) / d theta_i|]

The per-batch estimates cost one pass of training; they differ from the per-sample ones in more than scale, so results
name the estimator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from avalanche_cit.benchmarks.batch import IGNORED
from avalanche_cit.benchmarks.scenario import strided_indices
from avalanche_cit.errors import UserError
from avalanche_cit.training.templates import InstructionTuning
from avalanche_cit.training.update import micro_batches


class Importance(ABC):
    """An estimate of how much each trainable weight matters to a task.

    Args:
        per_sample: Take the gradient of every sample alone (slow), or of whole batches of ``train_mb_size``.
        samples: Samples of the task to use, evenly strided; None for all.

    Raises:
        UserError: `samples` is below 1.
    """

    def __init__(self, *, per_sample: bool = False, samples: int | None = None) -> None:
        if samples is not None and samples < 1:
            raise UserError(f"importance samples are {samples}: the importance of a weight needs at least one")
        self.per_sample = per_sample
        self.samples = samples

    @abstractmethod
    def objective(self, strategy: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar whose gradient tells importance, given logits (B, V, L) and labels (B, L)."""

    @abstractmethod
    def accumulate(self, total: list[Tensor], gradients: list[Tensor], share: float) -> None:
        """Add one gradient's contribution to the running mean; the gradients may be overwritten."""

    def estimate(self, strategy: InstructionTuning, dataset: Any) -> list[Tensor]:
        """Estimate the importance of every trainable weight from a task's data, in evaluation mode.

        No weight changes and nothing is drawn at random.

        Args:
            strategy: Gives the model, the loss, the size of batches and micro-batches, and the precision.
            dataset: The Avalanche data set of the task.

        Returns:
            One tensor per trainable weight, in the order of ``model.parameters()``, float32 or better.
        """
        model = strategy.model
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        total = [torch.zeros_like(w, dtype=torch.promote_types(w.dtype, torch.float32)) for w in weights]
        dataset.collate_fn = model.collator
        model.prepare(dataset)
        if self.samples is not None and self.samples < len(dataset):
            dataset = dataset.subset(strided_indices(len(dataset), self.samples))
        samples, processes = len(dataset), strategy.processes
        if self.per_sample:  # each process has samples of its own, or its share of every batch
            dataset = dataset.subset(processes.share(range(samples)))
            loader = strategy.plain_loader(dataset, 1)
        else:
            loader = strategy.plain_loader(dataset, strategy.train_mb_size, shared=True)
        gradients_of = samples if self.per_sample else len(loader)
        training = model.training
        model.eval()
        strategy.optimizer.zero_grad()
        for x, y, task_ids in tqdm(loader, desc="importance", leave=False, mininterval=1):
            batch = [x.to(strategy.device), y.to(strategy.device), task_ids]
            tokens = x.tokens if self.per_sample else processes.total(x.tokens)[0]
            for (part, labels, _), share in micro_batches(batch, strategy.micro_batch_size, tokens):
                with torch.autocast(strategy.device.type, torch.bfloat16, enabled=strategy.bf16):
                    logits = model(part)
                logits = logits if logits.dtype == torch.float64 else logits.float()
                torch.autograd.backward(self.objective(strategy, logits, labels) * share)
            reached = [i for i, weight in enumerate(weights) if weight.grad is not None]
            gradients = [_as(weights[i].grad, total[i].dtype) for i in reached]
            if not self.per_sample:
                processes.sum(gradients)
            self.accumulate([total[i] for i in reached], gradients, 1 / gradients_of)
            strategy.optimizer.zero_grad()
        if self.per_sample:
            processes.sum(total)
        model.train(training)
        return total


class EWCImportance(Importance):
    """The diagonal of the empirical Fisher information (std).

    Example:
        >>> plugin = RegularizationPlugin(EWCImportance(per_sample=True, samples=500), lambda_=100.0)
    """

    def objective(self, strategy: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss: the strategy's own mean over a batch, or the sum over the tokens of a sample."""
        if self.per_sample:
            return nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        loss: Tensor = strategy._criterion(logits, labels)
        return loss

    def accumulate(self, total: list[Tensor], gradients: list[Tensor], share: float) -> None:
        """Add squared gradients."""
        torch._foreach_addcmul_(total, gradients, gradients, value=share)


class MASImportance(Importance):
    """The sensitivity of the squared norm of the logits (std).

    Example:
        >>> plugin = RegularizationPlugin(MASImportance(), lambda_=10.0)
    """

    def objective(self, strategy: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over answer positions of the squared L2 norm of the logits."""
        norms = logits.square().sum(dim=1)
        return norms[labels != IGNORED].mean()

    def accumulate(self, total: list[Tensor], gradients: list[Tensor], share: float) -> None:
        """Add magnitudes of gradients."""
        torch._foreach_abs_(gradients)
        torch._foreach_add_(total, gradients, alpha=share)


def _as(gradient: Tensor | None, dtype: torch.dtype) -> Tensor:
    assert gradient is not None
    return gradient.to(dtype)


def normalise(importance: Sequence[Tensor]) -> None:
    """Scale an importance in place so that it sums to 1 over all weights; all zeros stay as they are (group)."""
    total = torch.stack([part.sum() for part in importance]).sum()
    torch._foreach_div_(list(importance), torch.where(total > 0, total, torch.ones_like(total)))
