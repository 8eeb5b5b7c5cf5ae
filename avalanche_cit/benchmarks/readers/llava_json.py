"""LLaVA JSON: conversations about images, the format of LLaVA's own data, CoIN, UCIT, MLLM-CL and many users' data.

Format: https://github.com/haotian-liu/LLaVA/blob/main/docs/Finetune_Custom_Data.md. A record without ``image`` is text
alone, as in LLaVA's mixture for instruction tuning; a list of images is LLaVA-NeXT's form for several. UCIT's caption
tasks and MLLM-CL name a record by ``question_id`` in the place of ``id``, and repeat it for each caption of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build
from avalanche_cit.benchmarks.readers._llava import IMAGE_TOKEN, load_records, without_image_token
from avalanche_cit.benchmarks.readers._records import Record
from avalanche_cit.errors import UserError

VERSION = 1

_ROLES = ("human", "gpt")


def read_llava_json(
    *,
    task: str,
    images: Path,
    annotations: Path,
    cache_dir: Path,
    skip_text_only: bool = False,
    keep_text_only: bool = False,
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read conversations in the format of LLaVA.

    One row per answered turn: the instruction is the human's turn without its ``<image>``, the target and the only
    reference the answer to it. Before a later turn's instruction stand the earlier ones, as lines
    ``User: <turn>`` and ``Assistant: <answer>``; a last turn without an answer makes no row.

    ``image`` is one image, or a list of several, which all belong to every row of the record: models get them in the
    order of the list, before the text, wherever its ``<image>`` stand. The human's turns hold as many of these as
    there are images, all of them together or each turn for itself, or none. A record is text alone where ``image`` is
    missing, null or an empty list.

    The row's id is the record's ``id``, or ``question_id`` where it has none, or ``record_<place in the file>``. An
    id that several records share is numbered, ``<id>_<n>`` in the order of the file, and so are the turns of a
    conversation that has more than one.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder that ``image`` is relative to; it may lead through any folders below.
        annotations: The annotations file, such as ``llava_instruct_150k.json``.
        cache_dir: The folder for Arrow files.
        skip_text_only: Leave out records of text alone, which are an error otherwise.
        keep_text_only: Make them rows without an image.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: A file or an image is missing, a record of text alone is to be neither kept nor left out, or a
            record is malformed: turns that do not alternate between ``human`` and ``gpt``, the human first, no
            answered turn, or more or fewer ``<image>`` than images.

    Example:
        >>> data = read_llava_json(task="mine", images=Path("images"), annotations=Path("mine.json"),
        ...                        cache_dir=Path("cache"))
        >>> data["id"][:2], data["instruction"][1]
        (['7_0', '7_1'], 'User: What is it?\\nAssistant: A cup.\\nOf which colour?')
    """
    if skip_text_only and keep_text_only:
        raise UserError(f"{annotations}: 'skip_text_only' and 'keep_text_only' are both given; leave one of them out")
    folder = ImageFolder(images, image_roots=image_roots)
    return build(
        partial(_samples, task, folder, annotations, skip_text_only, keep_text_only),
        reader="llava_json",
        version=VERSION,
        task=task,
        images=folder,
        skip_text_only=skip_text_only,
        keep_text_only=keep_text_only,
        sources=[annotations],
        cache_dir=cache_dir,
    )


def _samples(
    task: str, folder: ImageFolder, annotations: Path, skip_text_only: bool, keep_text_only: bool
) -> Iterator[Sample]:
    for name, record in load_records(annotations, label="id"):
        images = [folder.path(image, record) for image in _image_names(record)]
        if not images and skip_text_only:
            continue
        if not images and not keep_text_only:
            raise record.error(
                "has no image; leave such records out with 'skip_text_only: true', or make them samples without an "
                "image with 'keep_text_only: true'"
            )
        turns = _turns(record, len(images))
        history = ""
        for number, (question, answer) in enumerate(turns):
            yield Sample(
                id=name if len(turns) == 1 else f"{name}_{number}",
                image=images[0] if images else None,
                more_images=images[1:] or None,
                instruction=history + question,
                target=answer,
                references=[answer],
                task=task,
                choices=None,
            )
            history += f"User: {question}\nAssistant: {answer}\n"


def _image_names(record: Record) -> list[str]:
    image = record.fields.get("image")
    if image is None:
        return []
    return record.texts("image", may_be_empty=True) if isinstance(image, list) else [record.text("image")]


def _turns(record: Record, images: int) -> list[tuple[str, str]]:
    """Return the answered turns of a conversation about so many images."""
    messages = list(record.records("conversations", label=""))
    for index, message in enumerate(messages):
        role = message.text("from")
        if role != _ROLES[index % 2]:
            raise message.error(f"is from {role!r}; turns must alternate between 'human' and 'gpt', the human first")
    texts = [message.text("value") for message in messages]
    tokens = [count for text in texts[::2] if (count := text.count(IMAGE_TOKEN))]
    if sum(tokens) not in (0, images) and set(tokens) != {images}:
        raise record.error(
            f"the number of {IMAGE_TOKEN} in its turns is {sum(tokens)}, that of its images {images}; make them equal, "
            f"or write no {IMAGE_TOKEN} at all"
        )
    turns = [(without_image_token(a), b) for a, b in zip(texts[::2], texts[1::2], strict=False)]
    if not turns:
        raise record.error("has no answered turn; remove it, or add an answer")
    return turns
