"""JSON Lines in this library's own schema: one sample a line.

Format: https://jsonlines.org, with the fields of `instruction_data.Sample`:
``{"id": "1", "image": "a.png", "instruction": "what is it?", "target": "cat", "references": ["cat", "kitten"]}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import datasets

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build
from avalanche_cit.benchmarks.readers._records import load_lines
from avalanche_cit.benchmarks.readers._tables import schema_sample

VERSION = 1


def read_json_lines(
    *, task: str, images: Path, annotations: Path, cache_dir: Path, image_roots: Sequence[Path] = ()
) -> datasets.Dataset:
    """Read samples from JSON Lines.

    One row per line, with the line's ``id``, ``image``, ``instruction`` and ``target``. Where ``references`` is missing
    or null, the target is the only one; ``choices`` may be missing or null. ``image`` may be null, for a line of text
    alone, and ``more_images`` may hold a list of further images. Other fields are not read.

    Args:
        task: The task's name, for the column ``task``.
        images: The folder that images are relative to.
        annotations: The file.
        cache_dir: The folder for Arrow files.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: The file or an image is missing, or a line is malformed.

    Example:
        >>> read_json_lines(task="mine", images=Path("images"), annotations=Path("mine.jsonl"),
        ...                 cache_dir=Path("cache"))["target"][0]
        'cat'
    """
    folder = ImageFolder(images, image_roots=image_roots)
    return build(
        partial(_samples, task, folder, annotations),
        reader="json_lines",
        version=VERSION,
        task=task,
        images=folder,
        sources=[annotations],
        cache_dir=cache_dir,
    )


def _samples(task: str, folder: ImageFolder, annotations: Path) -> Iterator[Sample]:
    for line in load_lines(annotations, label="id"):
        yield schema_sample(line, folder, task)
