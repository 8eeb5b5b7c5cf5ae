"""A-OKVQA 1.0: multiple-choice questions that need knowledge, four choices each.

Format: https://github.com/allenai/aokvqa ("Downloading the dataset": ``aokvqa_v1p0_{train,val}.json``; the test
file has no answers and cannot be scored).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build, letter
from avalanche_cit.benchmarks.readers._published import check_answered
from avalanche_cit.benchmarks.readers._records import load_list

VERSION = 1


def read_a_okvqa(
    *,
    task: str,
    images: Path,
    annotations: Path,
    cache_dir: Path,
    image_pattern: str = "{image_id:012d}.jpg",
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read multiple-choice questions in the format of A-OKVQA 1.0.

    One row per question. ``choices`` holds the options; the target and the only reference are the letter of
    the right one, ``"a"`` to ``"d"``.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder of the images, such as COCO's ``train2017``.
        annotations: The annotations file, such as ``aokvqa_v1p0_train.json``.
        cache_dir: The folder for Arrow files.
        image_pattern: Format string of image file names, with the field ``{image_id}``.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: A file or an image is missing, or a record is malformed or has no answer.

    Example:
        >>> data = read_a_okvqa(task="a_okvqa", images=Path("train2017"), annotations=Path("aokvqa_v1p0_train.json"),
        ...                     cache_dir=Path("cache"))
        >>> len(data), sorted(set(data["target"]))
        (17056, ['a', 'b', 'c', 'd'])
    """
    folder = ImageFolder(images, image_pattern, image_roots)
    return build(
        partial(_samples, task, folder, annotations),
        reader="a_okvqa",
        version=VERSION,
        task=task,
        images=folder,
        sources=[annotations],
        cache_dir=cache_dir,
    )


def _samples(task: str, folder: ImageFolder, annotations: Path) -> Iterator[Sample]:
    for question in load_list(annotations, label="question_id"):
        choices = question.texts("choices")
        check_answered(question, "correct_choice_idx")
        right = letter(question.integer("correct_choice_idx"), choices, question)
        yield Sample(
            id=str(question.identity("question_id")),
            image=folder.path(question.identity("image_id"), question),
            instruction=question.text("question"),
            target=right,
            references=[right],
            task=task,
            choices=choices,
        )
