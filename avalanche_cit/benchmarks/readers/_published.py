"""What published files say of themselves: another version, another data set or a test file is refused, not misread."""

from __future__ import annotations

import reprlib

from avalanche_cit.benchmarks.readers._records import Record


def check_said(document: Record, key: str, expected: str, mend: str) -> None:
    """Check a field in which a file says what it is. A file that does not say is taken as it is.

    Args:
        document: The whole file's object.
        key: The field, such as ``"dataset_version"``.
        expected: What it must say; a number counts as its text, ``0.1`` as ``"0.1"``.
        mend: What to do where it says something else.

    Raises:
        UserError: It says something else.

    Example:
        >>> document = Record({"dataset_version": "0.5"}, Path("a.json"), "")
        >>> check_said(document, "dataset_version", "0.5.1", "get TextVQA 0.5.1")
        Traceback (most recent call last):
        avalanche_cit.errors.UserError: a.json: the field 'dataset_version' is '0.5', not '0.5.1'; get TextVQA 0.5.1
    """
    said = document.fields.get(key)
    if said is not None and str(said) != expected:
        raise document.error(f"the field '{key}' is {reprlib.repr(said)}, not {expected!r}; {mend}")


def check_answered(record: Record, key: str) -> None:
    """Check that a record has its answer, which the records of published test files lack.

    Args:
        record: The record of a question or a caption.
        key: The field of its answer.

    Raises:
        UserError: There is no such field.
    """
    if key not in record.fields:
        raise record.error(
            f"the field '{key}' is missing; it must be there, as in the training and validation files:"
            " test files are published without"
        )
