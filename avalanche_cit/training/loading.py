"""How a strategy loads its data: mini-batches of instructions to train on, questions to evaluate, data for plugins."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks.utils.data_loader import SingleDatasetDataLoader
from transformers.trainer_pt_utils import LengthGroupedSampler

from avalanche_cit.benchmarks.questions import Questions, text_lengths


class InstructionLoading:
    """Part of a strategy: its collator and vision features, and its data loaders."""

    def train_dataset_adaptation(self: Any, **kwargs: Any) -> None:
        """Hand the model's collator to the data, which plugins load too, and fill the cache of vision features."""
        self.experience.dataset.collate_fn = self.processes.sharing(self.model.collator)
        super().train_dataset_adaptation(**kwargs)  # type: ignore[misc]
        self._prepare(self.adapted_dataset)

    def eval_dataset_adaptation(self: Any, **kwargs: Any) -> None:
        """Hand the model's collator to the data, and fill the cache of vision features."""
        self.experience.dataset.collate_fn = self.model.collator
        super().eval_dataset_adaptation(**kwargs)  # type: ignore[misc]
        self._prepare(self.adapted_dataset)

    def _prepare(self: Any, dataset: Any) -> None:
        """Fill the cache of vision features, each process with its share."""
        if self.processes.count > 1:
            self.model.prepare(dataset.subset(self.processes.share(range(len(dataset)))))
            self.processes.wait()
        self.model.prepare(dataset)

    def make_train_dataloader(
        self: Any, num_workers: int = 0, shuffle: bool = True, drop_last: bool = False, **kwargs: Any
    ) -> None:
        """Build a plain shuffled loader: tasks keep their natural shares, nothing is oversampled."""
        order: dict[str, Any] = {"shuffle": shuffle}
        if self.group_by_length and shuffle:
            lengths = text_lengths(self.adapted_dataset)
            order = {"sampler": LengthGroupedSampler(self.train_mb_size, lengths=lengths)}
        self.dataloader = self._loader(
            self.adapted_dataset,
            self.train_mb_size,
            num_workers,
            drop_last=drop_last,
            collate_fn=self.processes.sharing(self.model.collator),
            **order,
        )

    def make_eval_dataloader(self: Any, num_workers: int = 0, **kwargs: Any) -> None:
        """Build a loader in the order of `questions`.

        It draws nothing from the global random state: evaluating changes no training.
        """
        self.questions = self._read_questions()
        self.dataloader = self._loader(
            self.adapted_dataset,
            self.eval_mb_size,
            num_workers,
            sampler=self.questions.order,
            generator=torch.Generator(),
            collate_fn=self.model.collator,
        )

    def _read_questions(self: Any) -> Questions:
        """Read the questions of the experience, once for all evaluations."""
        dataset = self.experience.dataset
        known, questions = self._questions_of.get(id(dataset), (None, None))
        if known is not dataset or questions is None:
            questions = Questions.of(self.adapted_dataset, self.processes)
            self._questions_of[id(dataset)] = dataset, questions
        assert isinstance(questions, Questions)
        return questions

    def plain_loader(self: Any, dataset: Any, batch_size: int, *, shared: bool = False) -> SingleDatasetDataLoader:
        """Return a loader for a plugin's own pass over data: in order, and drawing nothing at random.

        Args:
            dataset: The data.
            batch_size: Samples per mini-batch.
            shared: Whether this process gets its share of every mini-batch, or, as all others, the whole.
        """
        collate = self.processes.sharing(self.model.collator) if shared else self.model.collator
        return self._loader(dataset, batch_size, 0, shuffle=False, generator=torch.Generator(), collate_fn=collate)

    def _loader(self: Any, dataset: Any, batch_size: int, num_workers: int, **kwargs: Any) -> SingleDatasetDataLoader:
        return SingleDatasetDataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=num_workers,
            distributed_sampling=False,
            pin_memory=self.device.type == "cuda",
            **kwargs,
        )
