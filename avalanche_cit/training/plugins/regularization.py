"""Regularization methods: important weights are pulled back to where the old tasks left them.

    L = L_task + (lambda / 2) * sum_i Omega_i (theta_i - theta*_i)^2

theta* are the weights after the previous task; only trainable weights take part. A method is an estimate of Omega
(`importance`: EWC or MAS), a way to merge it over tasks, and a weighting of old tasks by their similarity to the new
one (`weighting`: TIR, the paper's). Avalanche's own EWC has no factor 1/2: its lambda is half of ours.

The gradient of the penalty, lambda * Omega * (theta - theta*), is added to that of the loss once per optimizer step,
which is what back-propagating the penalty in every micro-batch would give.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_cit.benchmarks.scenario import single_task
from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.similarity.seen_tasks import SeenTasks
from avalanche_cit.training.plugins.importance import Importance, normalise
from avalanche_cit.training.plugins.penalty import log_penalty
from avalanche_cit.training.plugins.weighting import WEIGHTINGS, weighted

_INT8_TASKS = 128  # that an owner of one byte tells apart
_CHUNK = 2**22  # weights whose differences are held at a time


class RegularizationPlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg,misc]
    """Penalises changes of weights that matter to earlier tasks.

    After every task the importance of each trainable weight is estimated in an extra pass over (a sample of) the
    task's training data. Held per trainable weight: importance and anchor, with a weighting also the owner (one byte;
    two from the 129th task on) and, while training, the weighted importance; nothing else grows with the tasks.

    Args:
        importance: How importance is estimated.
        lambda_: Weight of the penalty, at least 0.
        merge: How the importance of one more task joins that of the earlier ones: ``"sum"`` (std, online EWC) or
            ``"max"``, element by element (group).
        normalised: Scale the importance of each task to sum 1 over all trainable weights before it joins (group);
            useful lambdas then lie around 10^3 to 10^8.
        weighting: How an old task's importance counts while a new one is learned, by the similarity of the two: one
            of `WEIGHTINGS`, ``"dissimilarity"`` being TIR. None: in full, and owners are not kept.
        rescale: Scale the weighted importance back to the sum of the unweighted one ("at equal penalty").
        seen_tasks: Tells the similarity of tasks; needed by every weighting but ``"ones"``.
        task0: Experiences that count as learned before the sequence starts.
        seed: Fixes the draws of the weighting ``"random_owner"``.

    Raises:
        UserError: An argument is out of its range, or does not go with another.

    Example:
        >>> plugin = RegularizationPlugin(EWCImportance(), lambda_=100.0)
        >>> strategy = SeqFT(model=model, plugins=[plugin])
    """

    def __init__(
        self,
        importance: Importance,
        lambda_: float,
        *,
        merge: str = "sum",
        normalised: bool = False,
        weighting: str | None = None,
        rescale: bool = False,
        seen_tasks: SeenTasks | None = None,
        task0: Sequence[Any] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not lambda_ >= 0:
            raise UserError(f"lambda_ is {lambda_}: the weight of a penalty must be at least 0")
        if merge not in ("sum", "max"):
            raise unknown_name("merge of importances", merge, ("sum", "max"))
        if weighting is not None and weighting not in WEIGHTINGS:
            raise unknown_name("weighting", weighting, WEIGHTINGS)
        if weighting is not None and merge != "max":
            raise UserError(f"weighting '{weighting}' needs merge='max': in a sum no weight is owned by one task")
        if weighting not in (None, "ones") and seen_tasks is None:
            raise UserError(f"weighting '{weighting}' needs seen_tasks, which tell how similar two tasks are")
        self.importance = importance
        self.lambda_ = lambda_
        self.merge = merge
        self.normalised = normalised
        self.weighting = weighting
        self.rescale = rescale
        self.seen_tasks = seen_tasks
        self.task0 = task0
        self.seed = seed
        self.tasks: list[str] = []
        self.names: list[str] = []
        self.omega: list[Tensor] = []
        self.anchor: list[Tensor] = []
        self.owner: list[Tensor] = []
        self._weighted: list[Tensor] = []
        self._weights: list[nn.Parameter] = []  # looked up once per task

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Learn task 0 before the first task; weight the importance for the task that begins."""
        self._weights = []
        if self.tasks:  # which may have been loaded, and not to where the weights are
            weights = self._own_weights(strategy)
            self.omega, self.anchor, self.owner = (
                [tensor.to(weight.device) for tensor, weight in zip(tensors, weights, strict=False)]
                for tensors in (self.omega, self.anchor, self.owner)
            )
        if not self.tasks:
            for experience in self.task0:
                self._learn(strategy, experience)
        task = single_task(strategy.experience, "regularization")
        if self.seen_tasks is not None:
            self.seen_tasks.see(task, strategy.experience.dataset)
        self._weighted = self._weight(task)

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty to the loss and its gradient to the gradients."""
        if not self.tasks:
            return
        weights = self._weights = self._weights or self._own_weights(strategy)
        value = torch.zeros((), device=strategy.device, dtype=torch.float64 if _double(weights) else torch.float32)
        omega = self._weighted or self.omega
        for part in _chunks(weights):
            value += _pull(weights[part], self.anchor[part], omega[part], self.lambda_)
        strategy.loss += value.to(strategy.loss.dtype)
        log_penalty(self, strategy, value)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Estimate the importance of the weights to the task that has ended."""
        self._weighted, self._weights = [], []
        self._learn(strategy, strategy.experience)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values that a plugin of the same arguments can go on from."""
        state: dict[str, Any] = {"tasks": list(self.tasks)}
        for kind, tensors in (("omega", self.omega), ("anchor", self.anchor), ("owner", self.owner)):
            state |= {f"{kind}/{name}": tensor for name, tensor in zip(self.names, tensors, strict=False)}
        if self.seen_tasks is not None:
            state |= {f"seen/{key}": tensor for key, tensor in self.seen_tasks.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a `state_dict`."""

        def under(kind: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{kind}/"): value for key, value in state.items() if key.startswith(f"{kind}/")}

        loaded = [list(under(kind).values()) for kind in ("omega", "anchor", "owner")]
        if self.tasks and self.tasks == list(state["tasks"]):  # in the middle of a task, where they are in use
            for own, saved in zip(
                [*self.omega, *self.anchor, *self.owner], [tensor for part in loaded for tensor in part], strict=True
            ):
                own.copy_(saved)
        else:
            self.tasks, self.names = list(state["tasks"]), list(under("omega"))
            self.omega, self.anchor, self.owner = loaded
        if self.seen_tasks is not None:
            self.seen_tasks.load_state_dict(under("seen"))

    def _learn(self, strategy: Any, experience: Any) -> None:
        """Merge in the importance of one more task, and anchor the weights where they are."""
        task = single_task(experience, "regularization")
        if self.seen_tasks is not None:
            self.seen_tasks.see(task, experience.dataset)
        new = self.importance.estimate(strategy, experience.dataset)
        if self.normalised:
            normalise(new)
        first = not self.tasks
        if first:
            self.names = list(strategy.model.trainable_state())
        weights = self._own_weights(strategy)
        if first:
            self.omega = new
            self.owner = [] if self.weighting is None else [torch.zeros_like(w, dtype=torch.int8) for w in weights]
            self.anchor = [torch.empty_like(weight) for weight in weights]
        elif self.merge == "sum":
            torch._foreach_add_(self.omega, new)
        else:
            if len(self.tasks) == _INT8_TASKS:
                self.owner = [owner.to(torch.int16) for owner in self.owner]
            for owner, old, now in zip(self.owner, self.omega, new, strict=False):
                owner.masked_fill_(now > old, len(self.tasks))
            torch._foreach_maximum_(self.omega, new)
        torch._foreach_copy_(self.anchor, [weight.detach() for weight in weights])
        self.tasks.append(task)

    def _weight(self, task: str) -> list[Tensor]:
        if self.weighting in (None, "ones") or not self.tasks:
            return []
        assert self.seen_tasks is not None
        return weighted(
            self.omega,
            self.owner,
            self.seen_tasks.similarity(task, self.tasks),
            weighting=str(self.weighting),
            rescale=self.rescale,
            generator=torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {task}".encode())),
        )

    def _own_weights(self, strategy: Any) -> list[nn.Parameter]:
        """The trainable weights, as long as they are those that the importance is of."""
        weights = {name: weight for name, weight in strategy.model.named_parameters() if weight.requires_grad}
        if list(weights) != self.names:
            odd = min(set(weights) ^ set(self.names))
            raise UserError(
                f"regularization needs the same trainable weights for every task, but '{odd}' came or went: "
                "it does not combine with methods that add modules, such as EProj"
            )
        return list(weights.values())


@torch.no_grad()
def _pull(weights: list[nn.Parameter], anchor: list[Tensor], omega: list[Tensor], lambda_: float) -> Tensor:
    """Add the penalty's gradient to the weights' gradients, and return the penalty."""
    gradients = []
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        gradients.append(weight.grad)
    difference = torch._foreach_sub(list(weights), anchor)
    pull = torch._foreach_mul(omega, difference)
    torch._foreach_add_(gradients, pull, alpha=lambda_)
    torch._foreach_mul_(pull, difference)
    return torch.stack(torch._foreach_norm(pull, 1)).sum() * (lambda_ / 2)


def _chunks(weights: Sequence[Tensor]) -> Iterator[slice]:
    """Cut a list of weights so that a part holds few of them, but at least one tensor."""
    start, held = 0, 0
    for i, weight in enumerate(weights):
        if held and held + weight.numel() > _CHUNK:
            yield slice(start, i)
            start, held = i, 0
        held += weight.numel()
    yield slice(start, len(weights))


def _double(weights: Sequence[Tensor]) -> bool:
    return any(weight.dtype == torch.float64 for weight in weights)
