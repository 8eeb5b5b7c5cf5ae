"""EProj's model part: one copy of the vision-to-language projection per task, chosen per sample by keys.

(paper; this form: group, where not marked.) Expert 0 is the original projection, which is never trained: it answers as
long as there is nothing else, and afterwards only as the module of task 0 (ours). Every further expert is a copy of
the original that one task, or several similar ones, trained. Each task has two keys of unit norm, one for images and
one for instructions, that point to its expert. A sample goes to the expert of the key pair with the largest

    cos(q_image, k_image) + cos(q_instruction, k_instruction)

over the keys of trained experts (ours), each sample of a batch for itself (ours). The samples of a batch pass through
the model in groups of one expert, so that any family's projection will do, whatever it makes of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from avalanche.models import DynamicModule
from torch import Tensor, nn

from avalanche_cit.benchmarks.batch import InstructionBatch
from avalanche_cit.errors import UserError

if TYPE_CHECKING:
    from avalanche_cit.models.lmm import LMM

EncodeText = Callable[[Sequence[str]], Tensor]
"""Turns N texts into vectors (N, E)."""

ORIGINAL = 0
"""The expert that is the start model's own projection."""


def pull_loss(keys: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss that draws a task's keys to its samples' queries (group).

        0.1 * sum over samples of [(1 - cos(q_image, k_image)) + (1 - cos(q_instruction, k_instruction))]

    Args:
        keys: Image key (D,) and instruction key (E,), of any norm but zero.
        queries: Image queries (N, D) and instruction queries (N, E).
    """
    terms = [1 - nn.functional.cosine_similarity(q, k[None], dim=1) for q, k in zip(queries, keys, strict=True)]
    return 0.1 * torch.stack([term.sum() for term in terms]).sum()


def best_key(queries: Tensor) -> Tensor:
    """Return the key that minimises the pull loss: the direction of the mean normalised query, (D,)."""
    return nn.functional.normalize(nn.functional.normalize(queries, dim=1).mean(dim=0), dim=0)


class ExpandableProjection(DynamicModule):  # type: ignore[misc]
    """Stands in the place of a model's projection, and applies the expert that is active.

    Args:
        original: The start model's projection; frozen from now on.

    Example:
        >>> projection = ExpandableProjection(model.hf.language_projection)
        >>> projection.plan("gqa")  # the next adaptation adds an expert for it
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.experts = nn.ModuleList([original.requires_grad_(False)])
        self.image_keys: list[Tensor] = []
        self.text_keys: list[Tensor] = []
        self.key_tasks: list[str] = []
        self.expert_of: dict[str, int] = {}
        self.trained = {ORIGINAL}
        self.active = ORIGINAL
        self._planned: str | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Project with the active expert, whatever the model's own projection takes and returns."""
        return self.experts[self.active](*args, **kwargs)

    def route(self, image: Tensor, text: Tensor) -> list[int]:
        """Choose an expert for each sample by its queries (B, D) and (B, E); no task id is needed."""
        open_keys = [i for i, task in enumerate(self.key_tasks) if self.expert_of[task] in self.trained]
        if not open_keys:
            return [ORIGINAL] * len(image)
        similarity = torch.zeros(len(image), len(open_keys), device=image.device)
        for queries, keys in ((image, self.image_keys), (text, self.text_keys)):
            stacked = torch.stack([keys[i] for i in open_keys]).to(image.device)
            similarity = similarity + nn.functional.normalize(queries.float(), dim=1) @ stacked.T
        best = similarity.argmax(dim=1).tolist()
        return [self.expert_of[self.key_tasks[open_keys[i]]] for i in best]

    def add_keys(self, task: str, image: Tensor, text: Tensor, expert: int) -> None:
        """Let a task's key pair, (D,) and (E,), point to an expert."""
        self.key_tasks.append(task)
        self.image_keys.append(image.float().cpu())
        self.text_keys.append(text.float().cpu())
        self.expert_of[task] = expert

    def plan(self, task: str, reuse: int | None = None) -> int:
        """Say which expert the next task will train, a new one or an old one; return its number."""
        self._planned = task
        self.expert_of[task] = len(self.experts) if reuse is None else reuse
        return self.expert_of[task]

    def adaptation(self, experience: Any) -> None:
        """Make the planned task's expert the only trainable one, adding it where it is new."""
        if self._planned is None:
            return
        expert = self.expert_of[self._planned]
        self._planned = None
        if expert == len(self.experts):
            self.experts.append(copy.deepcopy(self.experts[ORIGINAL]))
        for i, module in enumerate(self.experts):
            module.requires_grad_(i == expert)

    def state(self) -> dict[str, Any]:
        """Return the experts beside the original one, the keys, and which task has which; tensors and plain values."""
        return {
            "experts": [expert.state_dict() for expert in self.experts[1:]],
            "learning": [i for i, expert in enumerate(self.experts) if next(expert.parameters()).requires_grad],
            "keys": [
                {"task": task, "image": image, "text": text}
                for task, image, text in zip(self.key_tasks, self.image_keys, self.text_keys, strict=True)
            ],
            "expert_of": self.expert_of,
            "trained": sorted(self.trained),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a `state`: the experts that are missing are added."""
        for number, weights in enumerate(state["experts"], start=1):
            if number == len(self.experts):
                self.experts.append(copy.deepcopy(self.experts[ORIGINAL]))
            self.experts[number].load_state_dict(weights)
        for number, expert in enumerate(self.experts):
            expert.requires_grad_(number in state["learning"])
        self.key_tasks = [key["task"] for key in state["keys"]]
        self.image_keys = [key["image"] for key in state["keys"]]
        self.text_keys = [key["text"] for key in state["keys"]]
        self.expert_of = dict(state["expert_of"])
        self.trained = set(state["trained"])


class Router:
    """Puts an `ExpandableProjection` into a model, and chooses the experts of every batch before the model sees it.

    In training, all samples go to the expert that learns (`learning`); otherwise each goes where its own image and
    instruction lead.

    Args:
        model: A model of which exactly the projection is trainable.
        encode_text: Turns instructions into queries; frozen.

    Raises:
        UserError: Something else is trainable.
    """

    def __init__(self, model: LMM, encode_text: EncodeText) -> None:
        name = model.family.projection
        projection: nn.Module = model.hf.get_submodule(name)
        own = {f"hf.{name}.{key}" for key, _ in projection.named_parameters()}
        if set(model.trainable_state()) != own:
            raise UserError(
                "EProj tunes copies of the projection and nothing else: load the model with trainable='projection'"
            )
        self.model = model
        self.encode_text = encode_text
        self.projection = ExpandableProjection(projection)
        self.learning: int | None = None
        self.chosen: list[int] = []
        self._oracle = False
        self._told: list[int] | None = None
        model.hf.set_submodule(name, self.projection)
        model.router = self

    def tuned_state(self) -> dict[str, Tensor]:
        """Return the weights of all experts but the original one by name, and the keys as ``keys.<task>.<kind>``."""
        prefix = f"hf.{self.model.family.projection}"
        projection = self.projection
        original = {f"experts.{ORIGINAL}.{name}" for name, _ in projection.experts[ORIGINAL].named_parameters()}
        own = {name: weight.detach() for name, weight in projection.named_parameters() if name not in original}
        state = {f"{prefix}.{name}": weight for name, weight in own.items()}
        for kind, keys in (("image", projection.image_keys), ("text", projection.text_keys)):
            state |= {f"keys.{task}.{kind}": key for task, key in zip(projection.key_tasks, keys, strict=True)}
        return state

    def groups(self, batch: InstructionBatch) -> Iterator[tuple[list[int], InstructionBatch]]:
        """Cut a batch into a part per expert, each with its samples' places; the part's expert is active meanwhile."""
        chosen = self.choose(batch)
        for expert in sorted(set(chosen)):
            places = [place for place, other in enumerate(chosen) if other == expert]
            self.projection.active = expert
            yield places, batch if len(places) == len(batch) else batch.select(places)

    def choose(self, batch: InstructionBatch) -> list[int]:
        """Choose the expert of each sample, and keep the choice at `chosen`."""
        right = self.right(batch)
        if self._told is not None:
            chosen = self._told
        elif self.learning is not None and self.model.training:
            chosen = [self.learning] * len(batch)
        elif self._oracle and right is not None:
            chosen = right
        else:
            chosen = self.projection.route(*self.queries(batch))
        self.chosen = chosen
        return chosen

    def right(self, batch: InstructionBatch) -> list[int] | None:
        """Return the expert that each sample's own task has; None where a task has none yet."""
        known = self.projection.expert_of
        if any(task.name not in known for task in batch.tasks):
            return None
        return [known[task.name] for task in batch.tasks]

    @contextmanager
    def oracle(self) -> Iterator[None]:
        """Give every sample the expert of its own task, as if the task were told."""
        self._oracle = True
        try:
            yield
        finally:
            self._oracle = False

    @contextmanager
    def told(self, experts: Sequence[int]) -> Iterator[None]:
        """Give the samples of one batch these experts."""
        self._told = list(experts)
        try:
            yield
        finally:
            self._told = None

    @torch.no_grad()
    def queries(self, batch: InstructionBatch) -> tuple[Tensor, Tensor]:
        """Return what decides on a sample's expert: class tokens (B, D) and instruction vectors (B, E)."""
        image = self.model.embed_images(batch)
        return image, self.encode_text(batch.prompts).to(image.device)
