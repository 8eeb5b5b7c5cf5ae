"""TextCaps 0.1: captions that read the text in the image, one record a caption.

Format: https://textvqa.org/textcaps/dataset/ (``TextCaps_0.1_{train,val}.json``; the test file has no captions and
cannot be scored).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, Rows, build, check_choice
from avalanche_cit.benchmarks.readers._published import check_answered, check_said
from avalanche_cit.benchmarks.readers._records import load_object

VERSION = 1

_MEND = "get TextCaps 0.1 from https://textvqa.org/textcaps/dataset/"


def read_textcaps(
    *,
    task: str,
    images: Path,
    annotations: Path,
    rows: Rows,
    cache_dir: Path,
    image_pattern: str = "{image_id}.jpg",
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read captions in the format of TextCaps 0.1.

    The instruction is empty: the prompt alone asks for a caption. The references are the record's
    ``reference_strs``, which are all the image's captions. Image names come from ``image_id``, because the
    published ``image_path`` does not start with the folder that the published archive unpacks to.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder of the images, such as ``train_images``.
        annotations: The annotations file, such as ``TextCaps_0.1_train.json``.
        rows: ``"caption"`` makes one row of each caption, which is its target (to train on), with the id
            ``<image id>_<n>``, n from 0; ``"image"`` one row of each image, its target the first caption (to
            score on).
        cache_dir: The folder for Arrow files.
        image_pattern: Format string of image file names, with the field ``{image_id}``.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: A file or an image is missing, the file says that it is of another version or data set, or a record
            is malformed or has no caption.

    Example:
        >>> row = read_textcaps(task="textcaps", images=Path("train_images"), annotations=Path("TextCaps_0.1_val.json"),
        ...                     rows="image", cache_dir=Path("cache"))[0]
        >>> len(row["references"])
        5
    """
    check_choice("kind of rows", rows, get_args(Rows))
    folder = ImageFolder(images, image_pattern, image_roots)
    return build(
        partial(_samples, task, folder, annotations, rows),
        reader="textcaps",
        version=VERSION,
        task=task,
        images=folder,
        rows=rows,
        sources=[annotations],
        cache_dir=cache_dir,
    )


def _samples(task: str, folder: ImageFolder, annotations: Path, rows: Rows) -> Iterator[Sample]:
    captions_of: Counter[int | str] = Counter()
    document = load_object(annotations)
    check_said(document, "dataset_name", "textcaps", _MEND)
    check_said(document, "dataset_version", "0.1", _MEND)
    for caption in document.records("data", label="image_id"):
        check_answered(caption, "caption_str")
        image_id = caption.identity("image_id")
        number = captions_of[image_id]
        captions_of[image_id] += 1
        if rows == "image" and number > 0:
            continue
        yield Sample(
            id=str(image_id) if rows == "image" else f"{image_id}_{number}",
            image=folder.path(image_id, caption),
            instruction="",
            target=caption.text("caption_str"),
            references=caption.texts("reference_strs"),
            task=task,
            choices=None,
        )
