"""EProj, the paper's expandable projection: a copy of the projection per task, found again without a task id.

(paper; this form: group, where not marked.) Each task is learned in two stages. Stage 1 draws the task's keys to its
samples' queries; its loss is least at the direction of the mean normalised query, so the keys are set there (ours; the
group's code takes gradient steps towards it). Stage 2 trains the task's expert on the task's loss, everything else
being frozen. A task that is similar enough to an earlier one, max_k s(t, k) >= threshold, goes on training that one's
expert (paper: reuse; this rule: ours); its own keys then point there too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor
from tqdm import tqdm

from avalanche_cit.benchmarks.scenario import single_task, strided_indices, task_name
from avalanche_cit.errors import UserError
from avalanche_cit.models.expandable_projection import ORIGINAL, EncodeText, Router, best_key
from avalanche_cit.models.lmm import LMM
from avalanche_cit.similarity.seen_tasks import SeenTasks
from avalanche_cit.training.plugins.agem import AGEMPlugin
from avalanche_cit.training.plugins.lwf import LwFPlugin
from avalanche_cit.training.plugins.regularization import RegularizationPlugin

_NOT_WITH = (ReplayPlugin, AGEMPlugin, LwFPlugin, RegularizationPlugin)


class EProjPlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg,misc]
    """Trains an expert projection per task, or goes on with the expert of a similar one.

    Methods that hold old tasks' weights or samples do not combine with it and are refused: the experts of old tasks are
    frozen, so a penalty would be zero, and replayed samples would train the new task's expert only.

    Args:
        model: A model loaded with ``trainable="projection"``.
        encode_text: Turns instructions into queries, such as `TokenEmbedding`.
        threshold: Similarity in [0, 1] from which on the most similar task's expert is trained further; None makes a
            new expert for every task.
        seen_tasks: Tells the similarity of tasks; needed with a threshold.
        samples: Training samples per task that its keys are made from, evenly strided.
        task0: Experiences that count as learned: their keys point to the original projection.

    Raises:
        UserError: The threshold is out of its range or has nothing to compare with; the model's trainable part is not
            the projection; the strategy has a plugin that does not combine.

    Example:
        >>> model = LMM.from_pretrained("tiny-base", trainable="projection")
        >>> strategy = SeqFT(model=model, plugins=[EProjPlugin(model, TokenEmbedding(model))])
    """

    def __init__(
        self,
        model: LMM,
        encode_text: EncodeText,
        *,
        threshold: float | None = None,
        seen_tasks: SeenTasks | None = None,
        samples: int = 1000,
        task0: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        if threshold is not None and not 0 <= threshold <= 1:
            raise UserError(f"threshold is {threshold}: a similarity lies between 0 and 1")
        if threshold is not None and seen_tasks is None:
            raise UserError("a threshold needs seen_tasks, which tell how similar two tasks are")
        self.router = Router(model, encode_text)
        self.projection = self.router.projection
        self.threshold = threshold
        self.seen_tasks = seen_tasks
        self.samples = samples
        self.task0 = task0
        self.tasks: list[str] = []

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse plugins that do not combine."""
        for plugin in strategy.plugins:
            if isinstance(plugin, _NOT_WITH):
                raise UserError(
                    f"EProj does not combine with {type(plugin).__name__}: it freezes the experts of old tasks, "
                    "so there is nothing for that plugin to protect"
                )

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Choose the expert of the task that begins, before the model and the optimizer are adapted to it."""
        if not self.tasks and not self.projection.key_tasks:
            for member in self.task0:
                self._learn_keys(strategy, member, ORIGINAL)
                if self.seen_tasks is not None:
                    self.seen_tasks.see(str(task_name(member.dataset)), member.dataset)
        task = single_task(strategy.experience, "EProj")
        if task in self.tasks:
            self.router.learning = self.projection.plan(task, self.projection.expert_of[task])
            return
        expert = self.projection.plan(task, self._similar(task, strategy.experience.dataset))
        self._learn_keys(strategy, strategy.experience, expert)
        self.router.learning = expert
        self.tasks.append(task)

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """An expert may be chosen from its first step on."""
        assert self.router.learning is not None
        self.projection.trained.add(self.router.learning)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Leave the choice to the keys again."""
        self.router.learning = None

    def state_dict(self) -> dict[str, Any]:
        """Return the experts and their keys, and the tasks seen."""
        seen = {} if self.seen_tasks is None else self.seen_tasks.state_dict()
        return {"tasks": self.tasks, "projection": self.projection.state(), "seen": seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`."""
        self.tasks = list(state["tasks"])
        self.projection.load_state(state["projection"])
        if self.seen_tasks is not None:
            self.seen_tasks.load_state_dict(state["seen"])

    def _similar(self, task: str, dataset: Any) -> int | None:
        """The expert of the most similar earlier task of the sequence, if similar enough."""
        if self.seen_tasks is None:
            return None
        self.seen_tasks.see(task, dataset)
        if self.threshold is None or not self.tasks:
            return None
        similarity = self.seen_tasks.similarity(task, self.tasks)
        best = int(similarity.argmax())
        return self.projection.expert_of[self.tasks[best]] if float(similarity[best]) >= self.threshold else None

    def _learn_keys(self, strategy: Any, experience: Any, expert: int) -> None:
        """Stage 1."""
        dataset = experience.dataset
        if self.samples < len(dataset):
            dataset = dataset.subset(strided_indices(len(dataset), self.samples))
        dataset.collate_fn = strategy.model.collator
        if experience is not strategy.experience:  # whose vision features are there already
            strategy.model.prepare(dataset)
        dataset = dataset.subset(strategy.processes.share(range(len(dataset))))
        images: list[Tensor] = []
        texts: list[Tensor] = []
        loader = strategy.plain_loader(dataset, strategy.train_mb_size)
        for batch, _, _ in tqdm(loader, desc="keys", leave=False, mininterval=1):
            image, text = self.router.queries(batch.to(strategy.device))
            images.append(image)
            texts.append(text)
        name = task_name(experience.dataset)
        assert name is not None
        own = [[torch.cat(parts).cpu() for parts in (images, texts)]] if images else []
        image_queries, text_queries = zip(*itertools.chain(*strategy.processes.gathered(own)), strict=True)
        keys = best_key(torch.cat(image_queries)), best_key(torch.cat(text_queries))
        self.projection.add_keys(name, *keys, expert)
