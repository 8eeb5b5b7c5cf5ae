"""Files that a user may have broken: each way of failing to read one is a `UserError` of one clear line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from avalanche_cit.errors import UserError

_YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)  # PyYAML leaks the others


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        UserError: The file does not exist, cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: The file cannot be read, or is not JSON; the message names the line.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: broken JSON in line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, nested too deep
        raise UserError(f"{path}: not readable as JSON ({error})") from None


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a file of one JSON object a line. Empty lines are passed over.

    Returns:
        The objects, each with the number of its line, from 1.

    Raises:
        UserError: The file cannot be read, or a line is not a JSON object; the message names it.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problem = f"broken JSON in column {error.colno} ({error.msg})"
            raise UserError(f"{path}, line {number}: {problem}; write one whole object a line") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, nested too deep
            problem = f"not readable as JSON ({error})"
            raise UserError(f"{path}, line {number}: {problem}; write one whole object a line") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: must hold a JSON object")
        yield number, record


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file of plain values.

    Raises:
        UserError: The file cannot be read, or is not YAML.
    """
    text = read_text(path)
    try:
        return yaml.safe_load(text)
    except _YAML_ERRORS as error:
        problem = " ".join(str(error).split())  # PyYAML's messages have several lines
        raise UserError(f"{path}: broken YAML: {problem}") from None


def take(document: dict[str, Any], field: str, wanted: type, meaning: str) -> Any:
    """Return one field of an object.

    Args:
        document: The object.
        field: The field's name.
        wanted: The type its value must have; true and false are no whole numbers.
        meaning: The type in words, such as ``"a list of rows"``.

    Raises:
        UserError: The field is missing, or of another type.

    Example:
        >>> take({"seed": 3}, "seed", int, "a whole number")
        3
    """
    if field not in document:
        raise UserError(f"'{field}' is missing; it must be {meaning}")
    value = document[field]
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise UserError(f"'{field}' must be {meaning}, not {str(value)[:60]!r}")
    return value


def names(document: dict[str, Any], field: str) -> list[str]:
    """Return a field that is a list of strings.

    Raises:
        UserError: The field is missing, or something else.

    Example:
        >>> names({"tasks": ["a", "b"]}, "tasks")
        ['a', 'b']
    """
    value: list[str] = take(document, field, list, "a list of names")
    if not all(isinstance(name, str) for name in value):
        raise UserError(f"'{field}' must be a list of names, not {str(value)[:60]}")
    return value


def is_number(value: object) -> bool:
    """Return whether a JSON value is a finite number.

    Example:
        >>> is_number(3), is_number(True), is_number(float("inf"))
        (True, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
