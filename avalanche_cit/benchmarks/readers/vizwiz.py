"""VizWiz-VQA: photographs and spoken questions of blind people, ten answers each, some unanswerable.

Format: https://vizwiz.org/tasks-and-datasets/vqa/ (``train.json``, ``val.json``; the test file has no answers and
cannot be scored).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build, most_frequent
from avalanche_cit.benchmarks.readers._published import check_answered
from avalanche_cit.benchmarks.readers._records import load_list

VERSION = 1


def read_vizwiz(
    *,
    task: str,
    images: Path,
    annotations: Path,
    cache_dir: Path,
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read questions and answers in the format of VizWiz-VQA.

    One row per question, with the image's file name as id. The target is the most frequent answer (of several,
    the first); the references are all the answers, ``"unanswerable"`` included.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder of the images.
        annotations: The annotations file, such as ``val.json``.
        cache_dir: The folder for Arrow files.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: A file or an image is missing, or a record is malformed or has no answers.

    Example:
        >>> read_vizwiz(task="vizwiz", images=Path("val"), annotations=Path("val.json"),
        ...             cache_dir=Path("cache"))["id"][0]
        'VizWiz_val_00000000.jpg'
    """
    folder = ImageFolder(images, image_roots=image_roots)
    return build(
        partial(_samples, task, folder, annotations),
        reader="vizwiz",
        version=VERSION,
        task=task,
        images=folder,
        sources=[annotations],
        cache_dir=cache_dir,
    )


def _samples(task: str, folder: ImageFolder, annotations: Path) -> Iterator[Sample]:
    for question in load_list(annotations, label="image"):
        image = question.text("image")
        check_answered(question, "answers")
        answers = question.texts_within("answers", "answer")
        yield Sample(
            id=image,
            image=folder.path(image, question),
            instruction=question.text("question"),
            target=most_frequent(answers),
            references=answers,
            task=task,
            choices=None,
        )
