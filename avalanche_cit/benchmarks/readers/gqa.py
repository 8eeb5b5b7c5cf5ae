"""GQA: compositional questions on scenes, one JSON object keyed by question id.

Format: https://cs.stanford.edu/people/dorarad/gqa/download.html ("Questions").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build
from avalanche_cit.benchmarks.readers._published import check_answered
from avalanche_cit.benchmarks.readers._records import load_mapping

VERSION = 1


def read_gqa(
    *,
    task: str,
    images: Path,
    annotations: Path,
    cache_dir: Path,
    image_pattern: str = "{image_id}.jpg",
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read questions and answers in the format of GQA.

    One row per question of the file; give a balanced file for the balanced split. The target and the only
    reference are the short ``answer``.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder of the images.
        annotations: The annotations file, such as ``testdev_balanced_questions.json``.
        cache_dir: The folder for Arrow files.
        image_pattern: Format string of image file names, with the field ``{image_id}``.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: A file or an image is missing, or a record is malformed or has no answer.

    Example:
        >>> len(read_gqa(task="gqa", images=Path("images"), annotations=Path("testdev_balanced_questions.json"),
        ...              cache_dir=Path("cache")))
        12578
    """
    folder = ImageFolder(images, image_pattern, image_roots)
    return build(
        partial(_samples, task, folder, annotations),
        reader="gqa",
        version=VERSION,
        task=task,
        images=folder,
        sources=[annotations],
        cache_dir=cache_dir,
    )


def _samples(task: str, folder: ImageFolder, annotations: Path) -> Iterator[Sample]:
    for question_id, question in load_mapping(annotations):
        check_answered(question, "answer")
        answer = question.text("answer")
        yield Sample(
            id=question_id,
            image=folder.path(question.identity("imageId"), question),
            instruction=question.text("question"),
            target=answer,
            references=[answer],
            task=task,
            choices=None,
        )
