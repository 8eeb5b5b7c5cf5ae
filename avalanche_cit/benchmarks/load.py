"""Reads the data of a task that a benchmark file defines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args, get_type_hints

import datasets
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from avalanche_cit.benchmarks.benchmark_file import HELD_OUT, SPLITS, TaskDefinition
from avalanche_cit.benchmarks.instruction_data import image_paths
from avalanche_cit.benchmarks.readers import READERS
from avalanche_cit.benchmarks.readers._common import missing_images_kept
from avalanche_cit.benchmarks.scenario import strided_indices
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.errors import UserError, unknown_name


def load_task(
    definition: TaskDefinition,
    *,
    data_root: Path,
    cache_dir: Path,
    limit: Mapping[str, int] | None = None,
    image_roots: Sequence[Path] = (),
    keep_missing_images: bool = False,
) -> Task:
    """Read the data of a task.

    Args:
        definition: The task, from `read_benchmark_file`.
        data_root: The folder that the definition's files and folders are relative to.
        cache_dir: The folder for Arrow files.
        limit: Rows to keep of each split that it names, strided evenly over the split.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.
        keep_missing_images: Keep samples whose image file does not exist, for `without_unreadable` to leave out.

    Returns:
        The task, with its three splits memory-mapped.

    Raises:
        UserError: The data is missing or malformed, or ``limit`` names something that is no split.

    Example:
        >>> task = load_task(benchmark.definitions["vqa"], data_root=Path("data"), cache_dir=Path("cache"),
        ...                  limit={"train": 1000})
        >>> len(task.train)
        1000
    """
    limit = limit or {}
    for split, rows in limit.items():
        if split not in SPLITS:
            raise unknown_name("split to limit", split, SPLITS)
        if rows < 1:
            raise UserError(f"task '{definition.name}': the limit of '{split}' is {rows}; keep at least one row")
    data = {
        split: read_split(
            definition,
            split,
            data_root=data_root,
            cache_dir=cache_dir,
            image_roots=image_roots,
            keep_missing_images=keep_missing_images,
        )
        for split in SPLITS
        if not is_held_out(definition, split)
    }
    if is_held_out(definition, "validation"):
        data["train"], data["validation"] = _hold_out(data["train"], definition)
    data = {split: _strided(rows, limit.get(split)) for split, rows in data.items()}
    return Task(
        name=definition.name,
        train=data["train"],
        validation=data["validation"],
        test=data["test"],
        prompt=definition.prompt,
        score=definition.score,
        max_new_tokens=definition.max_new_tokens,
    )


def read_split(
    definition: TaskDefinition,
    split: str,
    *,
    data_root: Path,
    cache_dir: Path,
    image_roots: Sequence[Path] = (),
    keep_missing_images: bool = False,
) -> datasets.Dataset:
    """Read all that the files of one split hold. Arguments and errors as in `load_task`."""
    reader = READERS[definition.reader_of(split)]
    options = reader_options(definition, split, data_root)
    with missing_images_kept() if keep_missing_images else nullcontext():
        return reader(task=definition.name, cache_dir=cache_dir, image_roots=image_roots, **options)


def reader_options(definition: TaskDefinition, split: str, data_root: Path) -> dict[str, Any]:
    """Return the reader's options for a split, its files and folders joined to the data root."""
    hints = get_type_hints(READERS[definition.reader_of(split)])
    return {
        option: data_root / value if _is_path(hints[option]) else value
        for option, value in definition.options_of(split).items()
    }


def is_held_out(definition: TaskDefinition, split: str) -> bool:
    """Say whether a split has no files of its own and is held out from the training split."""
    return HELD_OUT in definition.splits[split]


def _is_path(hint: Any) -> bool:
    return hint is Path or Path in get_args(hint)  # Path | None


def _hold_out(train: datasets.Dataset, definition: TaskDefinition) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Part the training split by image: every n-th image, in order of appearance, goes with all its samples.

    Images that share a sample count as one, and so does each sample without an image.
    """
    one_in: int = definition.splits["validation"][HELD_OUT]
    paths = image_paths(train)
    if paths.isna().any():
        raise UserError(f"task '{definition.name}': images inside the data have no name to be held out by; give files")
    groups = _linked_by_images(paths, len(train))
    held = groups % one_in == one_in - 1
    if not held.any():
        raise UserError(
            f"task '{definition.name}': has {groups.max() + 1} training images, one in {one_in} holds out none; "
            f"lower '{HELD_OUT}'"
        )
    return train.select(np.flatnonzero(~held)), train.select(np.flatnonzero(held))


def _linked_by_images(paths: pd.Series, samples: int) -> npt.NDArray[np.int64]:
    """Number the samples, (N,), so that any two have one number that an image, or a chain of images, links."""
    images, names = pd.factorize(paths)
    size = samples + len(names)  # a graph of samples and images
    links = coo_matrix((np.ones(len(paths)), (paths.index, samples + images)), shape=(size, size))
    _, groups = connected_components(links, directed=False)
    numbers: npt.NDArray[np.int64] = pd.factorize(groups[:samples])[0]
    return numbers


def _strided(data: datasets.Dataset, rows: int | None) -> datasets.Dataset:
    if rows is None or rows >= len(data):
        return data
    return data.select(strided_indices(len(data), rows))
