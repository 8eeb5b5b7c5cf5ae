"""What a data set asks: the questions of its samples, and how long they are, read without decoding an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from avalanche_cit.benchmarks.collator import image_key
from avalanche_cit.benchmarks.instruction_data import images_of
from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.processes import Processes

Question = tuple[str, tuple[str | None, ...]]
"""A prompt and the keys of its images. Samples of one task that ask the same question get the same answer."""


@dataclass(frozen=True)
class Questions:
    """The questions of a data set of N samples, and the order to ask them in.

    Attributes:
        asked: The N questions, in the data's order.
        order: The places in the data that this process asks about, by the length of their prompts, the longest first:
            batches waste little on padding, and memory that does not suffice runs out at once.

    Example:
        >>> questions = Questions.of(experience.dataset, Processes())
        >>> [questions.asked[place][0] for place in questions.order]
        ['what is to the left of the red cube?', 'what is red?']
    """

    asked: list[Question]
    order: list[int]

    @classmethod
    def of(cls, dataset: Any, processes: Processes) -> Questions:
        """Read the questions of an Avalanche data set of examples."""
        asked = [_question(dataset[place][0]) for place in _places(dataset)]
        order = sorted(range(len(asked)), key=lambda place: -len(asked[place][0]))
        return cls(asked, list(processes.share(order)))


def text_lengths(dataset: Any) -> list[int]:
    """Return the number of characters that each sample of an Avalanche data set is trained on, target included."""
    examples = (dataset[place][0] for place in _places(dataset))
    return [len(example.task.render(example.row)) + len(example.row["target"]) for example in examples]


def _question(example: Example) -> Question:
    return example.task.render(example.row), tuple(image_key(image) for image in images_of(example.row))


def _places(dataset: Any) -> Any:
    return tqdm(range(len(dataset)), desc="lengths", leave=False, delay=1)
