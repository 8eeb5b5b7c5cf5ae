"""A-GEM, averaged gradient episodic memory: no step may raise the loss on a sample of the memory.

Chaudhry et al., "Efficient Lifelong Learning with A-GEM", arXiv 1812.00420 (std). With g the gradient of a step and
g_ref that of a batch drawn from a memory of earlier tasks,

    if g . g_ref < 0:    g <- g - (g . g_ref / g_ref . g_ref) g_ref

over the trainable weights, after the micro-batches are added up and before clipping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_cit.benchmarks.batch import MiniBatch
from avalanche_cit.benchmarks.scenario import experience_name, subset_at, training_data
from avalanche_cit.errors import UserError
from avalanche_cit.training.update import micro_batches


class AGEMPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Projects every step's gradient so that it does not work against the memory's.

    The memory is shared out as replay's: a fixed number of samples, evenly among the tasks seen; a task that has fewer
    than its share is kept whole. What it holds are indices into the tasks' data. All draws come from a generator of
    the plugin's own.

    From the start of a step to its projection one more gradient is held; the projection itself, when no activations
    are left, takes room for two more.

    Args:
        memory_size: Samples in the memory, for the whole stream.
        sample_size: Memory samples per step, drawn without replacement; None for as many as the strategy's
            `train_mb_size`. A memory that holds fewer is taken whole.
        seed: Of the generator.
        task0: Experiences that count as already learned: their samples are in the memory from the start.

    Raises:
        UserError: A size is below 1, or the memory is too small to hold a sample of every task; the latter at the
            latest when the training of the task that is too many begins.

    Example:
        >>> memory_size = memory_size_of(benchmark.train_stream, 0.01)
        >>> strategy = SeqFT(model=model, plugins=[AGEMPlugin(memory_size)])
    """

    def __init__(
        self, memory_size: int, *, sample_size: int | None = None, seed: int = 0, task0: Sequence[Any] = ()
    ) -> None:
        super().__init__()
        if memory_size < 1:
            raise UserError(f"memory_size is {memory_size}: A-GEM's memory holds at least one sample")
        if sample_size is not None and sample_size < 1:
            raise UserError(f"sample_size is {sample_size}: A-GEM draws at least one memory sample a step")
        self.memory_size = memory_size
        self.sample_size = sample_size
        self.buffer = concat_datasets([])
        self._generator = torch.Generator().manual_seed(seed)
        self._data: dict[str, Any] = {}
        self._indices: dict[str, Tensor] = {}
        self._saved: dict[str, Any] = {}
        self._reference: list[tuple[nn.Parameter, Tensor]] = []
        for experience in task0:
            self._check_room_for(experience)
            self._remember(experience)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Hold what a checkpoint names, and fill the model's cache of vision features with the memory's images."""
        self._find_samples(strategy.experience)
        self._check_room_for(strategy.experience)
        strategy.model.prepare(self.buffer)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Compute the memory's gradient as the strategy computes that of its own batch."""
        if not self._indices:
            return
        batch = strategy.mbatch
        strategy.optimizer.zero_grad(set_to_none=True)
        for part, share in micro_batches(self._draw(strategy), strategy.micro_batch_size):
            strategy.mbatch = part
            strategy.mb_output = strategy.forward()
            (strategy.criterion() * share).backward()
        strategy.mbatch, strategy.mb_output = batch, None
        weights = strategy.model.parameters()
        self._reference = [(weight, weight.grad) for weight in weights if weight.grad is not None]
        strategy.optimizer.zero_grad(set_to_none=True)  # lets go of the gradients, which are the reference now

    @torch.no_grad()
    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Project the gradient of the step.

        Weights without a gradient, in the step or in the reference, take no part: the step will not move them, or
        the memory's loss does not depend on them.
        """
        pairs = [(weight.grad, reference) for weight, reference in self._reference if weight.grad is not None]
        self._reference = []
        if pairs:
            project([gradient for gradient, _ in pairs], [reference for _, reference in pairs])

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Take samples of the finished task into the memory."""
        self._find_samples(strategy.experience)
        self._remember(strategy.experience)

    def state_dict(self) -> dict[str, Any]:
        """Return the samples kept of each task seen, as places in its training data, and the generator's state."""
        return {
            "places": self._saved.get("places", self._indices),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`; the samples are found when the next task begins, among its benchmark's."""
        self._saved = state
        self._generator.set_state(state["generator"])

    def _find_samples(self, experience: Any) -> None:
        """Hold the samples of a state that was taken over.

        Raises:
            UserError: The benchmark has no such task or samples.
        """
        if not self._saved:
            return
        places, self._saved = self._saved["places"], {}
        self._data = training_data(experience)
        self._keep(places)

    def _check_room_for(self, experience: Any) -> None:
        tasks = {*self._indices, experience_name(experience)}
        if len(tasks) > self.memory_size:
            raise UserError(
                f"memory_size is {self.memory_size}, but '{experience_name(experience)}' is task {len(tasks)}: "
                f"A-GEM's memory keeps at least one sample of each task, so make it {len(tasks)} or more"
            )

    def _remember(self, experience: Any) -> None:
        task, data = experience_name(experience), experience.dataset
        self._data[task] = data
        indices = self._indices | {task: torch.randperm(len(data), generator=self._generator)}
        shares = even_shares(self.memory_size, len(indices))
        self._keep({name: drawn[:share] for (name, drawn), share in zip(indices.items(), shares, strict=True)})

    def _keep(self, indices: dict[str, Tensor]) -> None:
        self._indices = {task: drawn.clone() for task, drawn in indices.items()}
        self.buffer = concat_datasets([subset_at(self._data, task, drawn) for task, drawn in self._indices.items()])

    def _draw(self, strategy: Any) -> MiniBatch:
        size = strategy.train_mb_size if self.sample_size is None else self.sample_size
        chosen = torch.randperm(len(self.buffer), generator=self._generator)[:size]
        batch = strategy.model.collator([self.buffer[i] for i in chosen.tolist()])
        return [part.to(strategy.device, non_blocking=True) for part in batch]


def project(gradient: list[Tensor], reference: list[Tensor]) -> None:
    """Project a gradient in place, where it conflicts with a reference; decided without leaving the device.

    Args:
        gradient: One tensor per weight.
        reference: As many, of the same shapes.

    Example:
        >>> gradient = [torch.tensor([-1.0, 1.0])]
        >>> project(gradient, [torch.tensor([2.0, 0.0])])
        >>> gradient
        [tensor([0., 1.])]
    """
    product, square = _dot(gradient, reference), _dot(reference, reference)
    conflict = (product < 0) & (square > 0)
    factor = torch.where(conflict, product / square, 0.0)
    torch._foreach_sub_(gradient, torch._foreach_mul(reference, factor))


def even_shares(size: int, tasks: int) -> list[int]:
    """Share a memory out evenly among tasks; what is left over goes to the first ones, one sample each."""
    return [size // tasks + (i < size % tasks) for i in range(tasks)]


def _dot(one: list[Tensor], other: list[Tensor]) -> Tensor:
    return torch.cat([product.flatten() for product in torch._foreach_mul(one, other)]).sum()
