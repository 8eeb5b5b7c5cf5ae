"""LwF, learning without forgetting: a new task is learned while answering as the model did before it.

Li and Hoiem, arXiv 1606.09282; in the form of the paper's group (group):

    L = L_task + lambda * T^2 * mean over answer tokens of KL(softmax(z_teacher / T) || softmax(z / T))

z are the logits over the vocabulary, T is the temperature (1; the factor T^2 keeps the size of the gradients), and the
teacher is the model with the weights that it had after the previous task, in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_cit.benchmarks.batch import IGNORED
from avalanche_cit.errors import UserError
from avalanche_cit.training.plugins.penalty import log_penalty


class LwFPlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg,misc]
    """Distils the model as it was after the previous task, on the mini-batches of the new one.

    The teacher is a copy of the trainable weights, run through the strategy's own frozen model: there is no second
    model, and no frozen weight is copied. It holds the weights by name. If the trainable part has changed since, the
    teacher puts its weights where the model still has one of that name, and shares all others with the student.

    The penalty, lambda included, is logged as ``penalty``, once per optimizer step; where nothing is distilled,
    nothing is logged.

    Args:
        lambda_: Weight of the distillation.
        temperature: Of both softmaxes.
        from_start: The start model counts as having learned something (task 0), so it is the first task's teacher;
            otherwise nothing is distilled on the first task.

    Raises:
        UserError: `lambda_` is negative, or `temperature` not above 0.

    Example:
        >>> strategy = SeqFT(model=model, plugins=[LwFPlugin(1.0)])
    """

    def __init__(self, lambda_: float, *, temperature: float = 1.0, from_start: bool = False) -> None:
        super().__init__()
        if lambda_ < 0:
            raise UserError(f"lambda_ is {lambda_}: the weight of the distillation must be at least 0")
        if temperature <= 0:
            raise UserError(f"temperature is {temperature}: it must be above 0")
        self.lambda_ = lambda_
        self.temperature = temperature
        self.from_start = from_start
        self._teacher: dict[str, Tensor] = {}
        self._penalties: list[Tensor] = []  # of this step's micro-batches, each summed over its answer tokens

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Fit the teacher to the model as it is now."""
        if self.from_start and not self._teacher:
            self._copy(strategy.model)
        weights = dict(strategy.model.named_parameters())
        self._teacher = {name: copy.to(weights[name].device) for name, copy in self._teacher.items() if name in weights}

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Begin a new step."""
        self._penalties = []

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty of the micro-batch to the loss."""
        if not self._teacher:
            return
        tokens = sum(strategy.mb_x.answer_tokens)
        places = answer_places(strategy.mb_y, tokens)
        teacher, student = self._teacher_logits(strategy), strategy.mb_output
        divergence = distillation(
            teacher.transpose(1, 2)[places], student.transpose(1, 2)[places], temperature=self.temperature
        )
        penalty = self.lambda_ * divergence
        strategy.loss += penalty
        self._penalties.append(penalty.detach() * strategy.mb_x.tokens)

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Log the penalty of the whole batch."""
        if self._penalties:
            total = torch.stack(self._penalties).sum()
            strategy.processes.sum([total])
            log_penalty(self, strategy, total, strategy.step_tokens)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Make the model its own teacher."""
        self._copy(strategy.model)

    def state_dict(self) -> dict[str, Any]:
        """Return the teacher's weights by name."""
        return {"teacher": {name: copy.detach() for name, copy in self._teacher.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        devices = {name: weight.device for name, weight in self._teacher.items()}  # in the middle of a task
        self._teacher = {
            name: weight.to(devices.get(name, weight.device), copy=True).requires_grad_()
            for name, weight in state["teacher"].items()
        }

    def _copy(self, model: Any) -> None:
        self._teacher = {}  # never hold two teachers
        # they require gradients as the weights they stand in for do: models find their trainable part by it
        self._teacher = {name: weight.clone().requires_grad_() for name, weight in model.trainable_state().items()}

    @torch.no_grad()
    def _teacher_logits(self, strategy: Any) -> Tensor:
        """Logits (B, V, L) of the micro-batch, computed as the student's are, without anything drawn at random."""
        with (
            _evaluation_mode(strategy.model),
            torch.autocast(strategy.device.type, torch.bfloat16, enabled=strategy.bf16),
        ):
            logits = torch.func.functional_call(strategy.model, self._teacher, (strategy.mb_x,))
        copied: Tensor = logits.to(strategy.mb_output.dtype)
        return copied


def answer_places(labels: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the labels that are not `IGNORED`, each (N,), without waiting for the device.

    Args:
        labels: (B, L).
        tokens: N, how many there are.

    Example:
        >>> answer_places(torch.tensor([[IGNORED, 7], [5, IGNORED]]), 2)
        (tensor([0, 1]), tensor([1, 0]))
    """
    # a stable sort puts them first, in their order; to look for them would be to wait for their number
    flat = (labels != IGNORED).flatten().to(torch.int8).argsort(descending=True, stable=True)[:tokens]
    width = labels.shape[1]
    return flat // width, flat % width


def distillation(teacher: Tensor, student: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return ``T^2`` times the mean over tokens of KL(teacher || student).

    Args:
        teacher: Logits (N, V) of N tokens.
        student: Logits (N, V) of the same tokens.
        temperature: T.

    Example:
        >>> distillation(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 3.0]]).log1p())
        tensor(0.2231)
    """
    expected = torch.log_softmax(teacher / temperature, dim=-1)
    given = torch.log_softmax(student / temperature, dim=-1)
    return temperature**2 * nn.functional.kl_div(given, expected, log_target=True, reduction="batchmean")


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Turn off what is in training mode, and only that on again."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
