"""Reading images: one at a time, or all of a data set to find those that cannot be read."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from avalanche_cit.benchmarks.instruction_data import image_paths, images_of
from avalanche_cit.benchmarks.task import Task, without_samples


class UnreadableImageError(Exception):
    """An image that cannot be decoded; the text says why."""


def decoded(image: Mapping[str, Any]) -> Image.Image:
    """Decode an image to RGB.

    Args:
        image: ``path`` and ``bytes`` as Arrow stores them; the bytes count where both are there.

    Raises:
        UnreadableImageError: The file is missing, or is no readable image.
    """
    source = image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])
    try:
        with Image.open(source) as opened:
            return opened.convert("RGB")
    except UnidentifiedImageError as error:  # its text names the file again, or a buffer's address
        raise UnreadableImageError("cannot identify image file") from error
    except Exception as error:  # a broken file can make a decoder raise anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImageError(" ".join(reason.split()) or type(error).__name__) from error


def image_state(image: Mapping[str, Any]) -> list[int]:
    """Return size and time of an image that is named by its path, because another one may come to lie there.

    Args:
        image: ``path`` and ``bytes`` as Arrow stores them; nothing is returned where the bytes are there.
    """
    if image["bytes"] is not None:
        return []
    try:
        file = Path(image["path"]).stat()
    except OSError:
        return []
    return [file.st_size, file.st_mtime_ns]


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Return one picture of a sample's images, from left to right, all as high as the highest."""
    height = max(image.height for image in images)
    scaled = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in images]
    page = Image.new("RGB", (sum(image.width for image in scaled), height))
    left = 0
    for image in scaled:
        page.paste(image, (left, 0))
        left += image.width
    return page


def examine_images(data: datasets.Dataset, title: str) -> pd.DataFrame:
    """Decode every image of a data set, in parallel, each file once, with a progress bar.

    Args:
        data: A data set with the columns of `instruction_data.FEATURES`.
        title: Stands before the bar.

    Returns:
        A row per image, indexed as `image_paths` is: ``file`` (missing where the data hold the image), ``problem`` (why
        it cannot be read; missing where it can) and ``content`` (a checksum of the encoded image; missing where there
        is no file).
    """
    paths = image_paths(data)
    files = paths.dropna().unique()
    inside = paths.index[paths.isna()].unique().tolist()
    undecoded = data.select_columns(["image", "more_images"]).with_format("arrow")
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(files) + int(paths.isna().sum()), desc=title, unit="image", dynamic_ncols=True) as bar,
    ):

        def of_file(file: str) -> tuple[str | None, str | None]:
            found = _examine_file(file)
            bar.update()
            return found

        def held_by(place: int) -> list[tuple[str | None, str | None]]:
            encoded = [image["bytes"] for image in images_of(undecoded[place].to_pylist()[0])]
            found = [_examine(content) for content in encoded if content is not None]
            bar.update(len(found))
            return found

        examined = dict(zip(files, pool.map(of_file, files), strict=True))
        held = {place: iter(found) for place, found in zip(inside, pool.map(held_by, inside), strict=True)}
    found = [examined[path] if isinstance(path, str) else next(held[place]) for place, path in paths.items()]
    frame = pd.DataFrame(found, columns=["problem", "content"], index=paths.index, dtype=object)
    return frame.assign(file=paths)


def without_unreadable(task: Task) -> tuple[Task, dict[str, int]]:
    """Leave out the samples of a task that have an image which cannot be read. One without an image stays.

    Returns:
        The task without them, and how many samples of each split were left out.

    Raises:
        UserError: No sample of a split is left.

    Example:
        >>> task, left_out = without_unreadable(task)
        >>> left_out
        {'train': 2, 'validation': 0, 'test': 1}
    """

    def unreadable(split: str, data: datasets.Dataset) -> dict[int, str]:
        problems = examine_images(data, f"images of {task.name}, {split}")["problem"].dropna()
        return problems.groupby(level=0).first().to_dict()  # type: ignore[no-any-return]

    none_left = (
        "task '{task}', split '{split}': every sample has an image that cannot be read ({reason}); "
        "see experiments/doctor.py --decode"
    )
    return without_samples(task, unreadable, none_left)


def _examine_file(path: str) -> tuple[str | None, str | None]:
    try:
        encoded = Path(path).read_bytes()
    except OSError as error:
        return error.strerror or str(error), None
    return _examine(encoded)


def _examine(encoded: bytes) -> tuple[str | None, str | None]:
    content = hashlib.blake2b(encoded, digest_size=16).hexdigest()
    try:
        decoded({"path": None, "bytes": encoded})
    except UnreadableImageError as error:
        return str(error), content
    return None, content
