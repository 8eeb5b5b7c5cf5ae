"""Flickr30k and COCO captions in Karpathy's splits: one JSON file for all splits, five captions an image.

Format: https://cs.stanford.edu/people/karpathy/deepimagesent/ (``dataset_flickr30k.json``, ``dataset_coco.json``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, Rows, build, check_choice
from avalanche_cit.benchmarks.readers._records import load_object
from avalanche_cit.errors import UserError

VERSION = 1

Split = Literal["train", "val", "test"]


def read_karpathy_captions(
    *,
    task: str,
    images: Path,
    annotations: Path,
    split: Split,
    rows: Rows,
    cache_dir: Path,
    restval: bool = False,
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read captions in the format of Karpathy's splits.

    The instruction is empty: the prompt alone asks for a caption. The references are all the image's captions.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder of the images; a record's ``filepath`` (COCO's ``val2014``) is a folder below it.
        annotations: The annotations file, such as ``dataset_flickr30k.json``.
        split: Which of the file's splits to read.
        rows: ``"caption"`` makes one row of each caption, which is its target (to train on); ``"image"`` one
            row of each image, its target the first caption (to score on).
        cache_dir: The folder for Arrow files.
        restval: Add COCO's split ``restval`` to ``train``, as is usual in captioning.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: A file or an image is missing, the file is one of COCO's own, the split is empty, or a record is
            malformed.

    Example:
        >>> row = read_karpathy_captions(task="caption", images=Path("flickr30k-images"), split="test", rows="image",
        ...                              annotations=Path("dataset_flickr30k.json"), cache_dir=Path("cache"))[0]
        >>> len(row["references"])
        5
    """
    check_choice("split", split, get_args(Split))
    check_choice("kind of rows", rows, get_args(Rows))
    if restval and split != "train":
        raise UserError(f"{annotations}: restval adds to the split 'train', not to '{split}'; leave it out")
    folder = ImageFolder(images, image_roots=image_roots)
    return build(
        partial(_samples, task, folder, annotations, {split, "restval"} if restval else {split}, rows),
        reader="karpathy_captions",
        version=VERSION,
        task=task,
        images=folder,
        split=split,
        rows=rows,
        restval=restval,
        sources=[annotations],
        cache_dir=cache_dir,
    )


def _samples(task: str, folder: ImageFolder, annotations: Path, splits: set[str], rows: Rows) -> Iterator[Sample]:
    document = load_object(annotations)
    if "annotations" in document.fields:
        raise document.error("is a caption file of COCO's own; give Karpathy's, dataset_coco.json")
    for image in document.records("images", label="filename"):
        if image.text("split") not in splits:
            continue
        name = image.text("filename")
        path = folder.path(f"{image.text('filepath')}/{name}" if "filepath" in image.fields else name, image)
        sentences = list(image.records("sentences", label="sentid"))
        if not sentences:
            raise image.error("has no sentences; every image needs a caption")
        references = [sentence.text("raw") for sentence in sentences]
        for sentence, caption in zip(sentences, references, strict=True):
            yield Sample(
                id=str(image.identity("imgid") if rows == "image" else sentence.identity("sentid")),
                image=path,
                instruction="",
                target=caption,
                references=references,
                task=task,
                choices=None,
            )
            if rows == "image":
                break
