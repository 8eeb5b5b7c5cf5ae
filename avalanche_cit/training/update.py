"""One optimizer step of an Avalanche strategy: micro-batches, clipping, and a guard against NaN."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn

from avalanche_cit.benchmarks.batch import MiniBatch
from avalanche_cit.benchmarks.scenario import task_name
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.loss import asks_every_step
from avalanche_cit.models.out_of_memory import halving
from avalanche_cit.processes import Processes
from avalanche_cit.training.batches import batches
from avalanche_cit.training.pending import PendingNumbers

FETCH_EVERY = 50
"""Optimizer steps after which their numbers are fetched from the device, if nothing has asked for them before."""


class AccumulatedUpdate:
    """Update type: forward and backward per micro-batch, then one optimizer step.

    The loss of a micro-batch counts by its share of the batch's answer tokens, so cutting a batch into micro-batches,
    or into the shares of several processes, changes memory and time and nothing else. Whatever plugins add to the loss
    before ``backward`` is weighted alike; what they add after it is the same in every process. Where memory runs out,
    the step is begun anew with micro-batches of half the size, which are kept from then on; several processes, which
    would have to do so together, stop.

    No step waits for the device. Its numbers stay there until `catch_up`, which is called every `FETCH_EVERY` steps, at
    the end of every epoch, before an evaluation and before a checkpoint is written; after every step where one of
    Avalanche's own metrics asks for the loss then. A loss or gradient that is NaN or infinite ends the training there,
    and the error names the first step that it came up in. The weights may be lost by then, but no checkpoint was made
    of them: what the last one holds is finite.

    Attributes:
        micro_batch_size: Samples per forward pass; None for all at once.
        pending: The numbers of the steps since the last time.
        processes: Who trains together.
        parallel: The model, as one whose gradients are those of all processes.
        step_samples: Samples of the present step, over all processes.
        step_tokens: Their answer tokens.
    """

    micro_batch_size: int | None
    pending: PendingNumbers
    processes: Processes
    parallel: nn.Module
    step_samples: int
    step_tokens: int

    def training_epoch(self: Any, **kwargs: Any) -> None:
        """Train on every mini-batch of the data loader once; on those that are left, where an epoch is continued."""
        seed = (self.seed, self.experience.current_experience, self.clock.train_exp_epochs)
        eager = asks_every_step(self.evaluator.metrics)
        for batch in batches(self.dataloader, seed, skip=self.clock.train_epoch_iterations):
            if self._stop_training:
                break
            self.mbatch = batch
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            whole: MiniBatch = self.mbatch
            samples, tokens = self.processes.total(len(whole[0]) * whole[0].counts, whole[0].tokens)
            self.step_samples, self.step_tokens = int(samples), int(tokens)
            gradients = partial(self._gradients, whole, **kwargs)
            size = self.micro_batch_size or len(whole[0])
            total = halving(gradients, size) if self.processes.count == 1 else gradients(size)
            self.mbatch, self.loss = whole, self.processes.mean(total)
            self._after_backward(**kwargs)
            numbers = [self.loss]
            if self.max_grad_norm is not None:
                numbers.append(nn.utils.clip_grad_norm_(self._optimized_weights(), self.max_grad_norm))
            names = [row["id"] for row in whole[0].rows]
            self.pending.add(partial(self._stop_unless_finite, self.clock.train_iterations, names), *numbers)
            self._before_update(**kwargs)
            self.optimizer_step()
            self._after_update(**kwargs)
            if eager:
                self.catch_up()
            self._after_training_iteration(**kwargs)
            if self.clock.train_iterations % FETCH_EVERY == 0:
                self.catch_up()
        self.catch_up()

    def catch_up(self: Any) -> None:
        """Fetch the numbers of the steps so far: log them, and stop if one of them is no number.

        Raises:
            UserError: The loss of a step, or the norm of its gradients where they are clipped, is NaN or infinite.
        """
        if not self.pending:
            return
        try:
            self.pending.fetch()
        finally:
            self.evaluator.after_catching_up(self)  # a callback like any other: the loggers take what was published

    def _stop_unless_finite(self: Any, step: int, samples: list[str], loss: float, norm: float | None = None) -> None:
        if math.isfinite(loss) and (norm is None or math.isfinite(norm)):
            return
        task = task_name(self.adapted_dataset) or "joint"
        gradients = "" if norm is None else f", the norm of the gradients {norm}"
        raise UserError(
            f"task '{task}', training iteration {step}: the loss is {loss}{gradients}; lower the learning rate or a "
            f"penalty's lambda, or look at the samples of this mini-batch: {', '.join(samples)}"
        )

    def _gradients(self: Any, whole: MiniBatch, size: int, **kwargs: Any) -> Tensor:
        """Compute the gradients of a mini-batch, `size` samples at a time, and return its loss."""
        if size < (self.micro_batch_size or len(whole[0])):
            self.micro_batch_size = size  # memory ran out, and would again
        self.optimizer.zero_grad()
        total: Tensor = self._make_empty_loss()
        # the mean over the processes is what a step takes, so each counts for as many as there are
        parts = micro_batches(whole, size, self.step_tokens / self.processes.count)
        for number, (part, share) in enumerate(parts, start=1):
            self.mbatch = part
            self.loss = self._make_empty_loss()
            with self._apart_from_others(number < len(parts)):
                self._before_forward(**kwargs)
                self.mb_output = self.forward()
                self._after_forward(**kwargs)
                self.loss += self.criterion()
                self._before_backward(**kwargs)
                self.loss = self.loss * share
                self.backward()
            total += self.loss.detach()
        return total

    def _apart_from_others(self: Any, apart: bool) -> AbstractContextManager[None]:
        """Keep gradients to oneself: those of a step are sent to the other processes once, when they are complete."""
        together = self.parallel is self.model or not apart
        return nullcontext() if together else self.parallel.no_sync()


def micro_batches(batch: MiniBatch, size: int | None, tokens: float | None = None) -> list[tuple[MiniBatch, float]]:
    """Cut a mini-batch into parts of at most `size` samples, each with its share of the answer tokens.

    Args:
        batch: The mini-batch.
        size: None for a single part.
        tokens: The answer tokens that the shares are of; None for those of the mini-batch.
    """
    x, y, task_ids = batch
    total = x.tokens if tokens is None else tokens
    if size is None or len(x) <= size:
        return [(batch, x.tokens / total)]
    parts = zip(x.split(size), y.split(size), task_ids.split(size), strict=True)
    return [([px, py, pt], px.tokens / total) for px, py, pt in parts]
