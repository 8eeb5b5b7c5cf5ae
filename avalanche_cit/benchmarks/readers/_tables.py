"""What the readers of tables share: rows in this library's own schema, and images as bytes or paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from avalanche_cit.benchmarks.instruction_data import ImageBytes, Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder
from avalanche_cit.benchmarks.readers._records import Record, is_text
from avalanche_cit.errors import UserError

ROWS_AT_ONCE = 64  # images may come as bytes


@contextmanager
def arrow_errors(source: Path) -> Iterator[None]:
    """Turn what Arrow raises while a table is read into a `UserError` that names the source."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{source}: cannot be read ({one_line(error)}); check the path, or write the file again"
        ) from error


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def schema_sample(record: Record, folder: ImageFolder | None, task: str) -> Sample:
    """Return the sample of a row in this library's schema.

    ``id``, ``image``, ``instruction`` and ``target`` must be there, of which ``image`` may be null. Without
    ``references`` the target is the only one; ``more_images`` and ``choices`` may be missing. A column ``task`` is not
    read: the benchmark names the task.

    Args:
        record: The row.
        folder: The folder that paths of images are relative to; None where there should be no paths.
        task: The task's name.

    Raises:
        UserError: A field is missing, or of the wrong type; there is no such image; or a row without an image has
            further ones.
    """
    target = record.text("target")
    if "image" not in record.fields:
        raise record.error("the field 'image' is missing; it must be an image, or null for a sample without one")
    image, more = record.fields["image"], record.fields.get("more_images")
    if not isinstance(more, list | None):
        raise record.error("the field 'more_images' must be a list of images, or null")
    if image is None and more:
        raise record.error("has 'more_images' without an 'image'; make the first of them the image")
    further = [stored_image(further, f"more_images[{i}]", record, folder) for i, further in enumerate(more or [])]
    return Sample(
        id=str(record.identity("id")),
        image=None if image is None else stored_image(image, "image", record, folder),
        more_images=further or None,
        instruction=record.text("instruction"),
        target=target,
        references=[target] if record.fields.get("references") is None else record.texts("references"),
        task=task,
        choices=None if record.fields.get("choices") is None else record.texts("choices"),
    )


def stored_image(image: object, column: str, record: Record, folder: ImageFolder | None) -> str | ImageBytes:
    """Return an image of a row: what is encoded in it, or the path of the file that it names.

    Args:
        image: Bytes, a path, or both as ``{"bytes", "path"}``, of which the bytes count.
        column: Where in the row it stands, for errors.
        record: The row, for errors.
        folder: The folder that paths are relative to; None where there should be no paths.

    Raises:
        UserError: There are neither bytes nor a path, or there is no such file.
    """
    encoded, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, image)
    if isinstance(encoded, bytes):
        return ImageBytes(bytes=encoded, path=path if is_text(path) else None)
    if not is_text(path):
        raise record.error(f"the field '{column}' must be an image: its bytes, or the path of its file")
    if folder is None:
        raise record.error(f"names the image file {path!r}; give the folder of the files as 'images'")
    return folder.path(path, record)
