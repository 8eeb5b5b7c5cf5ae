"""Turns tasks into an Avalanche scenario whose streams line up position by position.

train_stream, validation_stream, test_stream     the sequence
task0_train_stream, task0_test_stream            members that count as already learned, numbered on from T
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from avalanche.benchmarks import CLScenario, DatasetExperience, with_task_labels
from avalanche.benchmarks.scenarios.generic_scenario import EagerCLStream
from avalanche.benchmarks.utils import DataAttribute, TaskAwareClassificationDataset
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from torch import Tensor

from avalanche_cit.benchmarks.task import Task
from avalanche_cit.errors import UserError


@dataclass(frozen=True, eq=False)
class Example:
    """One sample as batches are made from it: its task, and its row with the images still encoded."""

    task: Task
    row: dict[str, Any]


class ExampleData:
    """The samples of one split of one task, read from disk one at a time.

    Items are 1-tuples, because Avalanche appends the task label to what a data set returns.
    """

    def __init__(self, task: Task, rows: datasets.Dataset) -> None:
        self.task = task
        self._rows = rows.with_format("arrow")  # which decodes no image

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Example]:
        """Return one sample."""
        return (Example(self.task, self._rows[index].to_pylist()[0]),)


def instruction_benchmark(tasks: Sequence[Task], task0: Sequence[Task] = ()) -> CLScenario:
    """Build the Avalanche scenario of a sequence of tasks.

    Every experience holds one task. Task labels count from 0 along the sequence and on through task 0's members;
    the name of the task is the data attribute ``task_name``, and where a sample stands in its split is ``place``; both
    go with the samples into subsets and memories.

    Args:
        tasks: The sequence, in training order.
        task0: Members of task 0, which the start model is taken to have learned jointly.

    Raises:
        UserError: There is no task, two share a name, or a split is empty.

    Example:
        >>> benchmark = instruction_benchmark([captions, questions])
        >>> [experience.task_label for experience in benchmark.train_stream]
        [0, 1]
    """
    if not tasks:
        raise UserError("a benchmark needs at least one task")
    names = [task.name for task in (*tasks, *task0)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two tasks are named '{name}': give each task of a benchmark its own name")
    streams = [
        _stream("train", [(task, task.train) for task in tasks], 0),
        _stream("validation", [(task, task.validation) for task in tasks], 0),
        _stream("test", [(task, task.test) for task in tasks], 0),
    ]
    if task0:
        streams += [
            _stream("task0_train", [(task, task.train) for task in task0], len(tasks)),
            _stream("task0_test", [(task, task.test) for task in task0], len(tasks)),
        ]
    benchmark = with_task_labels(CLScenario(streams))
    for stream in benchmark.streams.values():
        stream.benchmark = benchmark  # EvaluationPlugin's strict checks read it
        for experience in stream:
            experience.current_experience = experience.task_label  # a stream counts from 0 by itself
    return benchmark


def task_name(dataset: Any) -> str | None:
    """Return the name of the task that all samples of an Avalanche data set belong to, or None where they differ."""
    names = list(dataset.task_name.uniques)
    return names[0] if len(names) == 1 else None


def single_task(experience: Any, method: str) -> str:
    """Return the name of an experience's task.

    Raises:
        UserError: It holds several tasks, and the method that asks learns one at a time.
    """
    name = task_name(experience.dataset)
    if name is None:
        raise UserError(f"{method} learns one task at a time: train on experiences of a single task each")
    return name


def experience_name(experience: Any) -> str:
    """Return the name of an experience's task, or its number where it holds several."""
    return task_name(experience.dataset) or f"experience {experience.current_experience}"


def training_data(experience: Any) -> dict[str, Any]:
    """Return all training data, task 0's members included, of the benchmark that an experience is of, by name."""
    streams = experience.origin_stream.benchmark.streams
    found = [other for name in ("train", "task0_train") for other in streams.get(name, [])]
    return {experience_name(other): other.dataset for other in found}


def subset_at(data: Mapping[str, Any], task: str, places: Tensor) -> Any:
    """Return the samples of a task that a memory held.

    Raises:
        UserError: There is no such task, or it has fewer samples than it had.
    """
    if task not in data:
        raise UserError(f"the saved memory holds samples of task '{task}', which this benchmark lacks")
    if len(places) and int(places.max()) >= len(data[task]):
        raise UserError(
            f"the saved memory was drawn from more samples of task '{task}' than the {len(data[task])} there are: "
            "give the task the data that it had"
        )
    return data[task].subset(places.tolist())


def strided_indices(count: int, samples: int) -> list[int]:
    """Return the places of at most `samples` items at even strides over `count` of them.

    Example:
        >>> strided_indices(16, 5)
        [0, 3, 6, 9, 12]
    """
    taken = min(samples, count)
    return [i * count // taken for i in range(taken)]


def _stream(name: str, parts: list[tuple[Task, datasets.Dataset]], first: int) -> Any:
    experiences = []
    for label, (task, rows) in enumerate(parts, start=first):
        if len(rows) == 0:
            raise UserError(f"task '{task.name}' has no {name} samples")
        dataset: Any = TaskAwareClassificationDataset(
            [ExampleData(task, rows)],
            data_attributes=[
                DataAttribute(ConstantSequence(task.name, len(rows)), "task_name"),
                DataAttribute(ConstantSequence(label, len(rows)), "targets_task_labels", use_in_getitem=True),
                DataAttribute(range(len(rows)), "place"),
            ],
        )
        experiences.append(DatasetExperience(dataset=dataset))
    return EagerCLStream(name, experiences)
