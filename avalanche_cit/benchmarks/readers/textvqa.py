"""TextVQA 0.5.1: questions that need the text in the image, ten answers each.

Format: https://textvqa.org/dataset/ (``TextVQA_0.5.1_{train,val}.json``; the test file has no answers and cannot be
scored).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build, most_frequent
from avalanche_cit.benchmarks.readers._records import load_object

VERSION = 1


def read_textvqa(
    *, task: str, images: Path, annotations: Path, cache_dir: Path, image_pattern: str = "{image_id}.jpg"
) -> datasets.Dataset:
    """Read questions and answers in the format of TextVQA 0.5.1.

    One row per question. The target is the most frequent answer (of several, the first); the references are
    all the answers.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder of the images, such as ``train_images``.
        annotations: The annotations file, such as ``TextVQA_0.5.1_val.json``.
        cache_dir: The folder for Arrow files.
        image_pattern: Format string of image file names, with the field ``{image_id}``.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: A file or an image is missing, or a record is malformed.

    Example:
        >>> len(read_textvqa(task="textvqa", images=Path("train_images"), annotations=Path("TextVQA_0.5.1_val.json"),
        ...                  cache_dir=Path("cache")))
        5000
    """
    folder = ImageFolder(images, image_pattern)
    return build(
        partial(_samples, task, folder, annotations),
        reader="textvqa",
        version=VERSION,
        task=task,
        images=folder,
        sources=[annotations],
        cache_dir=cache_dir,
    )


def _samples(task: str, folder: ImageFolder, annotations: Path) -> Iterator[Sample]:
    for question in load_object(annotations).records("data", label="question_id"):
        answers = question.texts("answers")
        yield Sample(
            id=str(question.identity("question_id")),
            image=folder.path(question.identity("image_id"), question),
            instruction=question.text("question"),
            target=most_frequent(answers),
            references=answers,
            task=task,
            choices=None,
        )
