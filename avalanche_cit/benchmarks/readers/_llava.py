"""What the two formats of LLaVA share: ids that repeat, and the image token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from avalanche_cit.benchmarks.readers._common import distinct_ids
from avalanche_cit.benchmarks.readers._records import Record, load_list

IMAGE_TOKEN = "<image>"


def load_records(path: Path, *, label: str) -> Iterator[tuple[str, Record]]:
    """Read the records of a file, each with an id that no other has.

    An id is the field ``id``, else ``question_id``, else ``record_<place in the file>``. One that several records of
    the file share is numbered, ``<id>_<n>``; any other stays as it is.

    Args:
        path: The file, a JSON list.
        label: The field whose value names the record in error messages.

    Raises:
        UserError: The file is missing or malformed.
    """
    records = list(load_list(path, label=label))
    names = distinct_ids([_identity(record, place) for place, record in enumerate(records)])
    return zip(names, records, strict=True)


def without_image_token(text: str) -> str:
    """Return a text without the token that marks the image's place, and without the white space around it.

    Example:
        >>> without_image_token("<image>\\nWhat is it?")
        'What is it?'
    """
    return text.replace(IMAGE_TOKEN, "").strip()


def _identity(record: Record, place: int) -> str:
    for key in ("id", "question_id"):
        if record.fields.get(key) is not None:
            return str(record.identity(key))
    return f"record_{place}"
