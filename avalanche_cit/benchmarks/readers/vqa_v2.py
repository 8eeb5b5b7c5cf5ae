"""VQA v2 and OK-VQA: one file of questions, one of annotations with ten answers each.

Format: https://visualqa.org/download.html ("Input Questions Format", "Annotation Format"). OK-VQA
(https://okvqa.allenai.org/download.html) has the same, less ``multiple_choice_answer``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build, most_frequent
from avalanche_cit.benchmarks.readers._records import Record, load_object

VERSION = 1

_OF_VQA_V1 = "This is v1.0 of the VQA dataset."

_PATTERNS = {
    "train2014": "COCO_train2014_{image_id:012d}.jpg",
    "val2014": "COCO_val2014_{image_id:012d}.jpg",
    "test2015": "COCO_test2015_{image_id:012d}.jpg",
    "test-dev2015": "COCO_test2015_{image_id:012d}.jpg",
}


def read_vqa_v2(
    *,
    task: str,
    images: Path,
    questions: Path,
    annotations: Path,
    cache_dir: Path,
    image_pattern: str | None = None,
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read questions and answers in the format of VQA v2.

    One row per question. The target is ``multiple_choice_answer`` where the annotations have it (VQA v2: the
    most frequent answer), else the most frequent of the answers (OK-VQA; of several, the first). The
    references are all the answers, repeated ones included, as the soft VQA accuracy needs them.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder of the images, such as COCO's ``train2014``.
        questions: The questions file, such as ``v2_OpenEnded_mscoco_train2014_questions.json``.
        annotations: The annotations file, such as ``v2_mscoco_train2014_annotations.json``.
        cache_dir: The folder for Arrow files.
        image_pattern: Format string of image file names, with the field ``{image_id}``. By default COCO's
            names, by the questions' ``data_subtype``.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: A file or an image is missing, a file is of VQA v1, a question has no annotation, or a record is
            malformed.

    Example:
        >>> len(read_vqa_v2(task="vqa", images=Path("val2014"), cache_dir=Path("cache"),
        ...                 questions=Path("v2_OpenEnded_mscoco_val2014_questions.json"),
        ...                 annotations=Path("v2_mscoco_val2014_annotations.json")))
        214354
    """
    folder = ImageFolder(images, "{image_id}" if image_pattern is None else image_pattern, image_roots)
    return build(
        partial(_samples, task, folder, questions, annotations, image_pattern),
        reader="vqa_v2",
        version=VERSION,
        task=task,
        images=folder,
        image_pattern=image_pattern,
        sources=[questions, annotations],
        cache_dir=cache_dir,
    )


def _samples(
    task: str, folder: ImageFolder, questions: Path, annotations: Path, image_pattern: str | None
) -> Iterator[Sample]:
    annotation_of = _annotations_by_question(annotations)
    document = load_object(questions)
    _check_version(document)
    if image_pattern is None:
        folder = ImageFolder(folder.root, _default_pattern(document), folder.image_roots)
    for question in document.records("questions", label="question_id"):
        question_id = question.identity("question_id")
        annotation = annotation_of.get(question_id)
        if annotation is None:
            raise question.error(f"has no annotation in {annotations}; give the annotations of these questions")
        answers = annotation.texts_within("answers", "answer")
        has_target = "multiple_choice_answer" in annotation.fields
        yield Sample(
            id=str(question_id),
            image=folder.path(question.identity("image_id"), question),
            instruction=question.text("question"),
            target=annotation.text("multiple_choice_answer") if has_target else most_frequent(answers),
            references=answers,
            task=task,
            choices=None,
        )


def _annotations_by_question(path: Path) -> dict[int | str, Record]:
    by_question: dict[int | str, Record] = {}
    document = load_object(path)
    _check_version(document)
    for annotation in document.records("annotations", label="question_id"):
        question_id = annotation.identity("question_id")
        if question_id in by_question:
            raise annotation.error("is the second annotation of its question; remove one of them")
        by_question[question_id] = annotation
    return by_question


def _check_version(document: Record) -> None:
    """Refuse VQA v1, whose files have the same format. OK-VQA's version is 1.0 too, but not of VQA."""
    info = document.fields.get("info")
    if isinstance(info, dict) and info.get("description") == _OF_VQA_V1:
        raise document.error(
            f"the field 'info' says {_OF_VQA_V1!r}; get version 2.0 from https://visualqa.org/download.html"
        )


def _default_pattern(document: Record) -> str:
    subtype = document.text("data_subtype")
    if subtype not in _PATTERNS:
        raise document.error(f"no image names are known for the data_subtype {subtype!r}; give an image pattern")
    return _PATTERNS[subtype]
