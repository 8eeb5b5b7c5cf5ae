"""Leaving out samples that a model does not take because they are too long. Nothing is ever truncated instead."""

from __future__ import annotations

import datasets
from tqdm import tqdm

from avalanche_cit.benchmarks.collator import InstructionCollator, SampleTooLongError
from avalanche_cit.benchmarks.scenario import ExampleData
from avalanche_cit.benchmarks.task import Task, without_samples


def without_too_long(task: Task, collator: InstructionCollator) -> tuple[Task, dict[str, int]]:
    """Leave out the samples of a task that have more tokens than the model takes.

    Returns:
        The task without them, and how many samples of each split were left out.

    Raises:
        UserError: No sample of a split is left.

    Example:
        >>> task, left_out = without_too_long(task, model.collator)
        >>> left_out
        {'train': 2, 'validation': 0, 'test': 1}
    """

    def too_long(split: str, data: datasets.Dataset) -> dict[int, str]:
        examples = ExampleData(task, data)
        found = {}
        for i in tqdm(range(len(data)), desc=f"lengths of {task.name}, {split}", leave=False, mininterval=1):
            try:
                collator.check(examples[i][0])
            except SampleTooLongError as error:
                found[i] = str(error)
        return found

    return without_samples(task, too_long, "split '{split}': every sample is too long, such as {reason}")
