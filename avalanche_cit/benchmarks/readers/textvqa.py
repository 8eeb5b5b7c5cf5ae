"""TextVQA 0.5.1: questions that need the text in the image, ten answers each.

Format: https://textvqa.org/dataset/ (``TextVQA_0.5.1_{train,val}.json``; the test file has no answers and cannot be
scored; "Rosetta OCR tokens": ``TextVQA_Rosetta_OCR_v0.2_{train,val}.json``, one record an image).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build, most_frequent
from avalanche_cit.benchmarks.readers._published import check_answered, check_said
from avalanche_cit.benchmarks.readers._records import Record, load_object

VERSION = 1

_MEND = "get TextVQA 0.5.1 from https://textvqa.org/dataset/"


def read_textvqa(
    *,
    task: str,
    images: Path,
    annotations: Path,
    cache_dir: Path,
    image_pattern: str = "{image_id}.jpg",
    ocr: Path | None = None,
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read questions and answers in the format of TextVQA 0.5.1.

    One row per question. The target is the most frequent answer (of several, the first); the references are
    all the answers. With the OCR tokens given, the instruction is ``OCR tokens: a, b, c. Question: <question>``, in
    which an image without text has an empty list: ``OCR tokens: . Question: <question>``.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder of the images, such as ``train_images``.
        annotations: The annotations file, such as ``TextVQA_0.5.1_val.json``.
        cache_dir: The folder for Arrow files.
        image_pattern: Format string of image file names, with the field ``{image_id}``.
        ocr: The images' OCR tokens, such as ``TextVQA_Rosetta_OCR_v0.2_val.json``.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: A file or an image is missing, an image is not in the file of OCR tokens, the annotations say that
            they are of another version or data set, or a record is malformed or has no answers.

    Example:
        >>> len(read_textvqa(task="textvqa", images=Path("train_images"), annotations=Path("TextVQA_0.5.1_val.json"),
        ...                  cache_dir=Path("cache")))
        5000
    """
    folder = ImageFolder(images, image_pattern, image_roots)
    return build(
        partial(_samples, task, folder, annotations, ocr),
        reader="textvqa",
        version=VERSION,
        task=task,
        images=folder,
        sources=[annotations] if ocr is None else [annotations, ocr],
        cache_dir=cache_dir,
    )


def load_textvqa(annotations: Path) -> Iterator[Record]:
    """Read the records of TextVQA's annotations, each of which has its answers.

    Raises:
        UserError: The file is missing or malformed, is of another version or data set, or has no answers.
    """
    document = load_object(annotations)
    check_said(document, "dataset_name", "textvqa", _MEND)
    check_said(document, "dataset_version", "0.5.1", _MEND)
    for question in document.records("data", label="question_id"):
        check_answered(question, "answers")
        yield question


def _samples(task: str, folder: ImageFolder, annotations: Path, ocr: Path | None) -> Iterator[Sample]:
    tokens_of = None if ocr is None else _tokens_by_image(ocr)
    for question in load_textvqa(annotations):
        answers = question.texts("answers")
        instruction = question.text("question")
        if tokens_of is not None:
            tokens = tokens_of.get(question.identity("image_id"))
            if tokens is None:
                raise question.error(f"its image is not in {ocr}; give the OCR tokens of these images")
            instruction = f"OCR tokens: {', '.join(tokens)}. Question: {instruction}"
        yield Sample(
            id=str(question.identity("question_id")),
            image=folder.path(question.identity("image_id"), question),
            instruction=instruction,
            target=most_frequent(answers),
            references=answers,
            task=task,
            choices=None,
        )


def _tokens_by_image(ocr: Path) -> dict[int | str, list[str]]:
    images = load_object(ocr).records("data", label="image_id")
    return {image.identity("image_id"): image.texts("ocr_tokens", may_be_empty=True) for image in images}
