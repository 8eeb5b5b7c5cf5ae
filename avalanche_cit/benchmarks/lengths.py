"""Leaving out samples that a model does not take because they are too long. Nothing is ever truncated instead."""

from __future__ import annotations

from dataclasses import replace

from tqdm import tqdm

from avalanche_cit.benchmarks.collator import InstructionCollator, SampleTooLongError
from avalanche_cit.benchmarks.scenario import ExampleData
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.errors import UserError


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
    kept, left_out = {}, {}
    for split, data in {"train": task.train, "validation": task.validation, "test": task.test}.items():
        examples = ExampleData(task, data)
        fitting = []
        reason = ""
        for i in tqdm(range(len(data)), desc=f"lengths of {task.name}, {split}", leave=False, mininterval=1):
            try:
                collator.check(examples[i][0])
                fitting.append(i)
            except SampleTooLongError as error:
                reason = str(error)
        if not fitting:
            raise UserError(f"split '{split}': every sample is too long, such as {reason}")
        left_out[split] = len(data) - len(fitting)
        kept[split] = data.select(fitting) if left_out[split] else data
    return replace(task, **kept), left_out
