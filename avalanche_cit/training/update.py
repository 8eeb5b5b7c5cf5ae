"""One optimizer step of an Avalanche strategy: micro-batches, clipping, and a guard against NaN."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from avalanche_cit.benchmarks.batch import IGNORED, MiniBatch
from avalanche_cit.benchmarks.scenario import task_name
from avalanche_cit.errors import UserError
from avalanche_cit.models.out_of_memory import halving
from avalanche_cit.training.batches import batches


class AccumulatedUpdate:
    """Update type: forward and backward per micro-batch, then one optimizer step.

    The loss of a micro-batch counts by its share of the batch's answer tokens, so cutting a batch into micro-batches
    changes memory and nothing else. Whatever plugins add to the loss before ``backward`` is weighted alike. Where
    memory runs out, the step is begun anew with micro-batches of half the size, which are kept from then on. A loss or
    gradient that is NaN or infinite ends the training before it reaches the weights.
    """

    micro_batch_size: int | None

    def training_epoch(self: Any, **kwargs: Any) -> None:
        """Train on every mini-batch of the data loader once; on those that are left, where an epoch is continued."""
        seed = (self.seed, self.experience.current_experience, self.clock.train_exp_epochs)
        for batch in batches(self.dataloader, seed, skip=self.clock.train_epoch_iterations):
            if self._stop_training:
                break
            self.mbatch = batch
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            whole: MiniBatch = self.mbatch
            gradients = partial(self._gradients, whole, **kwargs)
            total = halving(gradients, self.micro_batch_size or len(whole[0]))
            self.mbatch, self.loss = whole, total
            self._after_backward(**kwargs)
            norm = None
            if self.max_grad_norm is not None:
                norm = nn.utils.clip_grad_norm_(self._optimized_weights(), self.max_grad_norm)
            self._stop_unless_finite(whole, total, norm)
            self._before_update(**kwargs)
            self.optimizer_step()
            self._after_update(**kwargs)
            self._after_training_iteration(**kwargs)

    def _stop_unless_finite(self: Any, batch: MiniBatch, loss: Tensor, norm: Tensor | None) -> None:
        """Refuse a step that would put NaN into the weights, which no later step could mend.

        This waits for the device once per optimizer step, just before the update.

        Raises:
            UserError: The loss, or the norm of the gradients where they are clipped, is NaN or infinite.
        """
        finite = loss.isfinite().all()
        if norm is not None:
            finite &= norm.isfinite().to(finite.device)
        if finite.item():
            return
        task = task_name(self.adapted_dataset) or "joint"
        gradients = "" if norm is None else f", the norm of the gradients {norm.item()}"
        samples = ", ".join(str(row["id"]) for row in batch[0].rows)
        raise UserError(
            f"task '{task}', training iteration {self.clock.train_iterations}: the loss is {loss.item()}{gradients}; "
            f"lower the learning rate or a penalty's lambda, or look at the samples of this mini-batch: {samples}"
        )

    def _gradients(self: Any, whole: MiniBatch, size: int, **kwargs: Any) -> Tensor:
        """Compute the gradients of a mini-batch, `size` samples at a time, and return its loss."""
        if size < (self.micro_batch_size or len(whole[0])):
            self.micro_batch_size = size  # memory ran out, and would again
        self.optimizer.zero_grad()
        total: Tensor = self._make_empty_loss()
        for part, share in micro_batches(whole, size):
            self.mbatch = part
            self.loss = self._make_empty_loss()
            self._before_forward(**kwargs)
            self.mb_output = self.forward()
            self._after_forward(**kwargs)
            self.loss += self.criterion()
            self._before_backward(**kwargs)
            self.loss = self.loss * share
            self.backward()
            total += self.loss.detach()
        return total


def micro_batches(batch: MiniBatch, size: int | None) -> list[tuple[MiniBatch, float]]:
    """Cut a mini-batch into parts of at most `size` samples, each with its share of the answer tokens."""
    x, y, task_ids = batch
    if size is None or len(x) <= size:
        return [(batch, 1.0)]
    answer = y != IGNORED
    total = int(answer.sum())
    parts = zip(x.split(size), y.split(size), task_ids.split(size), answer.split(size), strict=True)
    return [([px, py, pt], int(pa.sum()) / total) for px, py, pt, pa in parts]
