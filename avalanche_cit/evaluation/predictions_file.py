"""Files of answers to be scored: JSON Lines of ``{"id", "prediction", "references"}``, optionally with ``"choices"``.

The prediction files of a run directory are such files; other fields are passed over. Each of their records ends with a
digest of itself.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.checked_json import read_json_lines, take
from avalanche_cit.evaluation.scores.score import Choices


@dataclass(frozen=True)
class Predictions:
    """N answers as a score takes them, in file order.

    Attributes:
        predictions: N generated texts.
        references: N lists of accepted texts, none of them empty.
        choices: N lists of option texts, None for a question without options.
    """

    predictions: list[str]
    references: list[list[str]]
    choices: Choices


def read_predictions(path: Path) -> Predictions:
    """Read a file of answers. Empty lines are passed over.

    Raises:
        UserError: The file cannot be read or holds no answer; a line is not a JSON object, lacks a field or has one of
            a wrong type; two lines have the same id. The message names file and line.

    Example:
        >>> answers = read_predictions(Path("predictions/gqa/vqav2.jsonl"))
        >>> get_score("vqa_accuracy").function(answers.predictions, answers.references, answers.choices).corpus
        61.5
    """
    answers = Predictions([], [], [])
    lines_by_id: dict[str | int, int] = {}
    for number, record in read_records(path):
        name = record["id"]
        if name in lines_by_id:
            first = lines_by_id[name]
            raise UserError(
                f"{path}, line {number}: the id {name!r} stands in line {first} already; remove one of the two"
            )
        lines_by_id[name] = number
        answers.predictions.append(record["prediction"])
        answers.references.append(record["references"])
        answers.choices.append(record.get("choices"))
    return answers


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the records of a file of answers, each with the number of its line. Empty lines are passed over.

    ``id``, ``prediction``, ``references`` and ``choices`` of a record are checked; an id may come more than once.

    Raises:
        UserError: As `read_predictions`.

    Example:
        >>> [number for number, record in read_records(path) if record["prediction"] == ""]
        [3, 14]
    """
    empty = True
    for number, record in read_json_lines(path):
        empty = False
        try:
            _check_id(record)
            take(record, "prediction", str, "a text")
            _check_texts(record, "references")
            if record.get("choices") is not None:
                _check_texts(record, "choices")
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        yield number, record
    if empty:
        raise UserError(f"{path}: holds no answer; write one JSON object a line: id, prediction and references")


def digest_of(record: Mapping[str, Any]) -> str:
    """Return the digest that a record carries in its field ``digest``: CRC-32 over its other fields.

    It shows that a record is not as it was written; it is no protection against forgery, since anyone can compute it.

    Args:
        record: JSON values by field; a ``digest`` among them is left out.

    Returns:
        Eight hexadecimal digits, of the fields as UTF-8 JSON with sorted keys and without spaces.

    Raises:
        RecursionError: The fields are nested too deep to be written.

    Example:
        >>> digest_of({"id": "q7", "prediction": "red", "references": ["red"]})
        '27dc9545'
    """
    others = {field: value for field, value in record.items() if field != "digest"}
    text = json.dumps(others, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"


def _check_id(record: dict[str, Any]) -> None:
    if "id" not in record:
        raise UserError("'id' is missing; it must be a text or a whole number")
    name = record["id"]
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise UserError(f"'id' must be a text or a whole number, not {str(name)[:60]!r}")


def _check_texts(record: dict[str, Any], field: str) -> None:
    texts: list[str] = take(record, field, list, "a list of texts")
    if not texts:
        raise UserError(f"'{field}' must be a list of at least one text, not an empty one")
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"'{field}' must be a list of texts, but {str(text)[:60]!r} in it is none")
