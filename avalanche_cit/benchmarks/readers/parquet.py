"""Parquet in this library's own schema: what ``datasets.Dataset.to_parquet`` writes of any reader's rows.

Format: https://parquet.apache.org/docs/file-format/, with the columns of `instruction_data.FEATURES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import datasets
from pyarrow.parquet import ParquetFile

from avalanche_cit.benchmarks.instruction_data import FEATURES, Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build
from avalanche_cit.benchmarks.readers._records import Record
from avalanche_cit.benchmarks.readers._tables import ROWS_AT_ONCE, arrow_errors, schema_sample

VERSION = 1


def read_parquet(
    *,
    task: str,
    annotations: Path,
    cache_dir: Path,
    images: Path | None = None,
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read samples from a Parquet file.

    One row per row, with its ``id``, ``image``, ``instruction`` and ``target``. Where ``references`` is missing or
    null, the target is the only one; ``choices`` may be missing or null. ``image`` may be null, for a row of text
    alone, and ``more_images`` may hold a list of further images. Other columns are not read. An image is its bytes, the
    path of its file, or ``{"bytes", "path"}``, of which the bytes count. ``to_parquet`` writes absolute paths, which
    need their folder among ``image_roots``.

    Args:
        task: The task's name, for the column ``task``.
        annotations: The file.
        cache_dir: The folder for Arrow files.
        images: The folder that paths of images are relative to; not needed for images that come as bytes.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: The file or an image is missing, or a row is malformed.

    Example:
        >>> data.to_parquet("mine.parquet")
        >>> read_parquet(task="mine", images=Path("images"), image_roots=[Path("images")],
        ...              annotations=Path("mine.parquet"), cache_dir=Path("cache"))["id"][:] == data["id"][:]
        True
    """
    folder = None if images is None else ImageFolder(images, image_roots=image_roots)
    return build(
        partial(_samples, task, folder, annotations),
        reader="parquet",
        version=VERSION,
        task=task,
        images=folder,
        sources=[annotations],
        cache_dir=cache_dir,
    )


def _samples(task: str, folder: ImageFolder | None, annotations: Path) -> Iterator[Sample]:
    for number, row in enumerate(_rows(annotations)):
        record = Record(row, annotations, f"row {number}", "id")
        yield schema_sample(record, folder, task)


def _rows(path: Path) -> Iterator[dict[str, object]]:
    with arrow_errors(path), ParquetFile(path) as file:
        columns = [name for name in FEATURES if name in file.schema_arrow.names]
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
            yield from batch.to_pylist()
