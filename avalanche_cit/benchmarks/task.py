"""A task: data, and how its text is asked for and scored.

Prompt and score belong to the task, so one stream can mix captions, open questions, multiple choice and reading.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import datasets

from avalanche_cit.errors import UserError

_FIELDS = (["question", "", None], ["options", "", None], [None, None, None])  # as string.Formatter parses them


@dataclass(frozen=True, eq=False)
class Task:
    """One vision-language task of a stream.

    Attributes:
        name: Unique within its benchmark; names the matrix column.
        train: Training samples, with the columns of `instruction_data.FEATURES`.
        validation: Held-out samples for choosing hyper-parameters.
        test: Samples that fill the forgetting matrix.
        prompt: Format string of the text input; may use ``{question}`` (the sample's instruction) and
            ``{options}`` (its choices as ``(a) cat (b) dog``).
        score: Name of a score in `avalanche_cit.evaluation.scores`.
        max_new_tokens: Decoding length of generated answers, in tokens.

    Raises:
        UserError: The prompt uses a field that does not exist.

    Example:
        >>> task = Task("vqa", train, validation, test, prompt="Question: {question} Short answer:",
        ...             score="vqa_accuracy", max_new_tokens=5)
        >>> task.render({"instruction": "what colour?", "choices": None})
        'Question: what colour? Short answer:'
    """

    name: str
    train: datasets.Dataset = field(repr=False)
    validation: datasets.Dataset = field(repr=False)
    test: datasets.Dataset = field(repr=False)
    prompt: str
    score: str
    max_new_tokens: int

    def __post_init__(self) -> None:
        check_prompt(self.prompt, f"task '{self.name}'")

    def render(self, sample: dict[str, Any]) -> str:
        """Return the text input of one row of the data."""
        return render(self.prompt, sample)


def without_samples(
    task: Task, bad: Callable[[str, datasets.Dataset], Mapping[int, str]], none_left: str
) -> tuple[Task, dict[str, int]]:
    """Leave samples of a task out of all its splits.

    Args:
        task: The task.
        bad: Called with the name and the data of each split; returns the places of the samples to leave out, each
            with its reason.
        none_left: Format string of the error where no sample of a split is left; may use ``{task}``, ``{split}`` and
            ``{reason}``.

    Returns:
        The task without them, and how many samples of each split were left out.

    Raises:
        UserError: No sample of a split is left.

    Example:
        >>> without_samples(task, lambda split, data: {0: "the first one"}, "'{split}' has no other sample")[1]
        {'train': 1, 'validation': 1, 'test': 1}
    """
    kept, left_out = {}, {}
    for split, data in {"train": task.train, "validation": task.validation, "test": task.test}.items():
        reasons = bad(split, data)
        if reasons and len(reasons) == len(data):
            raise UserError(none_left.format(task=task.name, split=split, reason=next(iter(reasons.values()))))
        left_out[split] = len(reasons)
        kept[split] = data.select([i for i in range(len(data)) if i not in reasons]) if reasons else data
    return replace(task, **kept), left_out


def render(prompt: str, sample: dict[str, Any]) -> str:
    """Return the text input that a prompt makes of one row of the data."""
    choices = sample["choices"] or []
    options = " ".join(f"({chr(ord('a') + i)}) {choice}" for i, choice in enumerate(choices))
    return prompt.format(question=sample["instruction"], options=options)


def check_prompt(prompt: str, where: str) -> None:
    """Check that a prompt can be filled.

    Raises:
        UserError: It has an unpaired brace, or fields other than ``{question}`` and ``{options}`` as they stand.
    """
    try:
        plain = all(field in _FIELDS for _, *field in string.Formatter().parse(prompt))
    except ValueError:
        plain = False
    if not plain:
        raise UserError(f"{where}: the prompt {prompt!r} cannot be filled; use {{question}} and {{options}} alone")
