"""The one sample schema that every reader fills and everything else reads.

Rows live in Arrow files on disk (``datasets.Dataset``); images stay encoded until a batch needs them.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import datasets
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets.arrow_writer import ArrowWriter

from avalanche_cit.errors import UserError

_ROWS_PER_BATCH = 1000
_BYTES_PER_BATCH = 64 * 2**20  # of images that come as bytes


class ImageBytes(TypedDict):
    """An encoded image (PNG, JPEG, ...) that comes with its row. ``path`` is its former name, and never opened."""

    bytes: bytes
    path: str | None


class Sample(TypedDict):
    """One vision-language instruction, as readers yield it.

    ``image`` is the path of an image file, or the encoded image itself; None where the sample has no image.
    ``more_images`` holds its second and further images, left away or None where there are none. ``references`` holds
    every accepted answer or caption (ten annotators' answers stay ten entries); ``target`` is the text trained on,
    usually one of them.
    """

    id: str
    image: str | ImageBytes | None
    more_images: NotRequired[Sequence[str | ImageBytes] | None]
    instruction: str
    target: str
    references: list[str]
    task: str
    choices: list[str] | None


FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "image": datasets.Image(),
        "more_images": datasets.List(datasets.Image()),
        "instruction": datasets.Value("string"),
        "target": datasets.Value("string"),
        "references": datasets.List(datasets.Value("string")),
        "task": datasets.Value("string"),
        "choices": datasets.List(datasets.Value("string")),
    }
)


def instruction_data(samples: Callable[[], Iterator[Sample]], *, cache_dir: Path, fingerprint: str) -> datasets.Dataset:
    """Write samples to a memory-mapped Arrow file, or open the file that an earlier call wrote.

    The file appears under its name only when it is complete, so that an interrupted call leaves nothing
    behind that a later one would take for data, and several processes may write the same data at once.

    Args:
        samples: Called once, only where the file does not exist yet; yields the rows.
        cache_dir: The folder for Arrow files; made where it does not exist.
        fingerprint: Names the content (source files, their sizes and times, reader options). Another
            fingerprint is another file.

    Returns:
        A data set with the columns of `FEATURES`.

    Raises:
        UserError: The file cannot be written, or what stands under its name is no Arrow file.

    Example:
        >>> def samples():
        ...     yield Sample(id="1", image="cat.png", instruction="what is it?", target="cat",
        ...                  references=["cat", "kitten"], task="vqa", choices=None)
        >>> instruction_data(samples, cache_dir=Path("cache"), fingerprint="cats, version 1")["target"][0]
        'cat'
    """
    name = hashlib.sha256(f"{FEATURES}\n{fingerprint}".encode()).hexdigest()[:24]
    file = cache_dir.absolute() / f"{name}.arrow"
    try:
        if not file.exists():
            _write(samples(), file)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); give another cache folder") from error
    try:
        return datasets.Dataset.from_file(str(file))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a readable Arrow file; delete it, and the next run writes it again") from error


def images_of(row: Mapping[str, Any]) -> list[Any]:
    """Return all images of a row, in order, as the row holds them: encoded, or decoded.

    Example:
        >>> [image["path"] for image in images_of(example.row)]
        ['before.png', 'after.png']
    """
    return [image for image in (row["image"], *(row["more_images"] or [])) if image is not None]


def image_paths(data: datasets.Dataset) -> pd.Series:
    """Return the file of every image, without decoding anything; missing where the data hold the image.

    The images of a sample stand together, in order, and the index is its place in the data: a place that is not in the
    index is that of a sample without an image.

    Example:
        >>> image_paths(data)[0]
        'cat.png'
    """
    table = data.select_columns(["image", "more_images"]).with_format("arrow")[:]
    has_image = pc.is_valid(table["image"]).to_numpy()
    more = pc.fill_null(pc.list_value_length(table["more_images"]), 0).to_numpy()
    first = pd.Series(_paths(table["image"])[has_image], np.flatnonzero(has_image))
    further = pd.Series(_paths(pc.list_flatten(table["more_images"])), np.repeat(np.arange(len(more)), more))
    return pd.concat([first, further]).sort_index(kind="stable")


def _paths(images: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    embedded = pc.is_valid(pc.struct_field(images, "bytes"))
    paths: npt.NDArray[np.object_] = pc.if_else(embedded, None, pc.struct_field(images, "path")).to_pandas().to_numpy()
    return paths.astype(object)


def _write(samples: Iterator[Sample], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("xb") as stream, ArrowWriter(stream=stream, features=FEATURES) as writer:
            for rows in _batches(samples):
                columns = {name: [row[name] for row in rows] for name in FEATURES}
                columns["image"] = [_stored(image) for image in columns["image"]]
                columns["more_images"] = [images and [_stored(i) for i in images] for images in columns["more_images"]]
                writer.write_batch(columns)
            writer.finalize()
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _batches(samples: Iterator[Sample]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for sample in samples:
        row = {"more_images": None, **sample}
        batch.append(row)
        size += sum(0 if isinstance(image, str) else len(image["bytes"]) for image in images_of(row))
        if len(batch) == _ROWS_PER_BATCH or size >= _BYTES_PER_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _stored(image: str | ImageBytes | None) -> dict[str, Any] | None:
    if image is None:
        return None
    return {"path": image, "bytes": None} if isinstance(image, str) else dict(image)
