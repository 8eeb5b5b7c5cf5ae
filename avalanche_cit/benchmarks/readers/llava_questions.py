"""Questions and answers as CoIN, UCIT and MLLM-CL publish their test sets, beside training files in LLaVA JSON.

Format: the ``test.json`` of https://huggingface.co/datasets/Zacks-Chen/CoIN, ``test_3000.json`` of
https://huggingface.co/datasets/HaiyangGuo/UCIT and https://huggingface.co/datasets/MLLM-CL/MLLM-CL: a list of
``{"question_id", "image", "text", "answer"}``. UCIT's captions stand beside it in COCO's caption format
(https://cocodataset.org/#format-data), ``val_coco_type_3000.json``. CoIN's boxes are in ``answer_bbox`` instead of
``answer``, and the ten answers to its TextVQA questions in TextVQA's own file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build
from avalanche_cit.benchmarks.readers._llava import load_records, without_image_token
from avalanche_cit.benchmarks.readers._records import load_object
from avalanche_cit.benchmarks.readers.textvqa import load_textvqa
from avalanche_cit.errors import UserError

VERSION = 1


def read_llava_questions(
    *,
    task: str,
    images: Path,
    annotations: Path,
    cache_dir: Path,
    answer_field: str = "answer",
    captions: Path | None = None,
    answers: Path | None = None,
    skip_text_only: bool = False,
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read questions and answers in the format of CoIN's and UCIT's test files.

    One row per record. The target is its ``answer``, and so is the only reference, unless captions or answers are
    given: then the references are all captions of the image, or all answers to the question. Ids are those of
    `read_llava_json`.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder that ``image`` is relative to; it may lead through any folders below.
        annotations: The annotations file, such as ``test_3000.json``.
        cache_dir: The folder for Arrow files.
        answer_field: The field of the answer (CoIN's boxes: ``answer_bbox``).
        captions: Captions in COCO's format, such as ``val_coco_type_3000.json``, met by the images' file names.
        answers: Annotations of TextVQA, such as ``TextVQA_0.5.1_val.json``, met by the questions' ids.
        skip_text_only: Leave out records without an image (CoIN's ScienceQA has some), which are an error otherwise.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: A file or an image is missing, an image has no captions, a question no answers, captions and answers
            are both given, or a record is malformed.

    Example:
        >>> data = read_llava_questions(task="flickr30k", images=Path("datasets"), cache_dir=Path("cache"),
        ...                             annotations=Path("test_3000.json"), captions=Path("val_coco_type_3000.json"))
        >>> len(data), len(data["references"][0])
        (3000, 5)
    """
    if captions is not None and answers is not None:
        raise UserError(f"{annotations}: has references in both 'captions' and 'answers'; leave one of them out")
    folder = ImageFolder(images, image_roots=image_roots)
    return build(
        partial(_samples, task, folder, annotations, answer_field, captions, answers, skip_text_only),
        reader="llava_questions",
        version=VERSION,
        task=task,
        images=folder,
        answer_field=answer_field,
        captions=captions is not None,
        answers=answers is not None,
        skip_text_only=skip_text_only,
        sources=[file for file in (annotations, captions, answers) if file is not None],
        cache_dir=cache_dir,
    )


def _samples(
    task: str,
    folder: ImageFolder,
    annotations: Path,
    answer_field: str,
    captions: Path | None,
    answers: Path | None,
    skip_text_only: bool,
) -> Iterator[Sample]:
    captions_of = None if captions is None else _captions_by_file_name(captions)
    answers_of = None if answers is None else _answers_by_question(answers)
    for name, record in load_records(annotations, label="question_id"):
        if record.fields.get("image") is None and skip_text_only:
            continue
        if record.fields.get("image") is None:
            raise record.error("has no image; leave such records out with 'skip_text_only: true'")
        image, answer = record.text("image"), record.text(answer_field)
        references = [answer]
        if captions_of is not None:
            references = captions_of.get(PurePosixPath(image).name, [])
            if not references:
                raise record.error(f"its image {image!r} has no captions in {captions}; give those of these images")
        if answers_of is not None:
            references = answers_of.get(str(record.identity("question_id")), [])
            if not references:
                raise record.error(f"has no answers in {answers}; give the answers to these questions")
        yield Sample(
            id=name,
            image=folder.path(image, record),
            instruction=without_image_token(record.text("text")),
            target=answer,
            references=references,
            task=task,
            choices=None,
        )


def _answers_by_question(path: Path) -> dict[str, list[str]]:
    return {str(question.identity("question_id")): question.texts("answers") for question in load_textvqa(path)}


def _captions_by_file_name(path: Path) -> dict[str, list[str]]:
    document = load_object(path)
    name_of = {image.identity("id"): image.text("file_name") for image in document.records("images", label="id")}
    captions: dict[str, list[str]] = defaultdict(list)
    for annotation in document.records("annotations", label="id"):
        image_id = annotation.identity("image_id")
        if image_id not in name_of:
            raise annotation.error(f"is of the image {image_id!r}, which is not among the file's 'images'")
        captions[name_of[image_id]].append(annotation.text("caption"))
    return dict(captions)
