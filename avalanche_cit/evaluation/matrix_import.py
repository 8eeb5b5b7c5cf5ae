"""Forgetting matrices from elsewhere: a plain JSON or CSV file, scores in any unit.

JSON: ``{"tasks": ["a", "b"], "rows": ["initial", "a", "b"], "scores": [[1, 2], [3, 4], [5, 6]], "directft": [4, 7]}``.
CSV: a header with the tasks, then one row per line, its name first::

    row,a,b
    initial,1,2
    a,3,4
    b,5,6
    directft,4,7

The rows named ``initial`` and ``directft`` are optional; null, NaN or an empty cell is a score that was not evaluated.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.checked_json import is_number, names, read_text, take

Row = list[float | None]


@dataclass(frozen=True)
class ImportedMatrix:
    """A forgetting matrix without a run.

    Attributes:
        tasks: Names of the T columns, in training order.
        scores: Initial row first (all None where the file has none), then one row per trained task: (T + 1) x T.
        direct: DirectFT's T scores, or None.

    Example:
        >>> imported = ImportedMatrix.from_csv("row,a,b\\na,60,30\\nb,50,70\\n")
        >>> imported.scores
        [[None, None], [60.0, 30.0], [50.0, 70.0]]
    """

    tasks: list[str]
    scores: list[Row]
    direct: Row | None

    @classmethod
    def from_json(cls, document: Any) -> ImportedMatrix:
        """Build the matrix from the content of a JSON file.

        Raises:
            UserError: A field is missing or wrong, or the matrix is not square; the message names it, row and column.
        """
        if not isinstance(document, dict):
            raise UserError("the file must hold one JSON object with the fields tasks, rows and scores")
        tasks, row_names = names(document, "tasks"), names(document, "rows")
        cells = take(document, "scores", list, "a list of rows")
        if len(cells) != len(row_names):
            raise UserError(f"'scores' has {len(cells)} rows, 'rows' names {len(row_names)}")
        rows = [(name, _numbers(name, row, tasks)) for name, row in zip(row_names, cells, strict=True)]
        if document.get("directft") is not None:
            rows.append(("directft", _numbers("directft", document["directft"], tasks)))
        return _assembled(tasks, rows)

    @classmethod
    def from_csv(cls, text: str) -> ImportedMatrix:
        """Build the matrix from the text of a CSV file.

        Raises:
            UserError: A row is too short or too long, a cell is not a number, or the matrix is not square.
        """
        lines = [[cell.strip() for cell in line] for line in csv.reader(text.splitlines())]
        table = [line for line in lines if any(line)]
        if not table:
            raise UserError("the file is empty; its first line must be the header row,task1,task2 ...")
        tasks = table[0][1:]
        rows = [(name, _numbers(name, [_from_text(cell) for cell in cells], tasks)) for name, *cells in table[1:]]
        return _assembled(tasks, rows)


def read_csv(path: Path) -> ImportedMatrix:
    """Read a matrix from a CSV file.

    Raises:
        UserError: The file cannot be read, or `ImportedMatrix.from_csv` refuses it; the message names the file.
    """
    text = read_text(path)
    try:
        return ImportedMatrix.from_csv(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _assembled(tasks: list[str], rows: list[tuple[str, Row]]) -> ImportedMatrix:
    """Take ``initial`` and ``directft`` out of the rows; what is left must be one row per task, in the same order."""
    if not tasks or not all(tasks) or len(set(tasks)) != len(tasks):
        raise UserError(f"every column needs a task name of its own, not {tasks}")
    initial = [cells for name, cells in rows if name.lower() == "initial"]
    direct = [cells for name, cells in rows if name.lower() == "directft"]
    if len(initial) > 1 or len(direct) > 1:
        raise UserError("there can be one row 'initial' and one row 'directft' only")
    trained = [(name, cells) for name, cells in rows if name.lower() not in ("initial", "directft")]
    if len(trained) != len(tasks):
        raise UserError(
            f"the matrix is not square: {len(tasks)} tasks ({', '.join(tasks)}) need one row each "
            f"(and maybe one named initial), found {len(trained)}"
        )
    order = [name for name, _ in trained]
    if order != tasks and set(order) == set(tasks):
        raise UserError(f"the rows come in the order {', '.join(order)}: put the columns into that order too")
    first: Row = initial[0] if initial else [None] * len(tasks)
    return ImportedMatrix(tasks, [first, *(cells for _, cells in trained)], direct[0] if direct else None)


def _numbers(row: str, cells: Any, tasks: Sequence[str]) -> Row:
    if not isinstance(cells, list) or len(cells) != len(tasks):
        found = f"{len(cells)} scores" if isinstance(cells, list) else repr(cells)
        raise UserError(f"row '{row}' has {found}; there are {len(tasks)} tasks ({', '.join(tasks)})")
    return [_number(cell, row, task) for cell, task in zip(cells, tasks, strict=True)]


def _number(cell: Any, row: str, task: str) -> float | None:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if not is_number(cell):
        raise UserError(f"row '{row}', column '{task}': {cell!r} is not a finite number")
    return float(cell)


def _from_text(cell: str) -> float | str | None:
    """Return the number in a CSV cell, None for an empty one, and the text itself where it is no number."""
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell
