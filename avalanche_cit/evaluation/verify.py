"""Believing a run: every number of a run directory, computed anew from the answers that are stored in it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.cell import CellScores, score_cell
from avalanche_cit.evaluation.checked_json import is_number, read_json, read_text, take
from avalanche_cit.evaluation.direct_reference import FinishedRun
from avalanche_cit.evaluation.matrix_file import Cells, MatrixFile
from avalanche_cit.evaluation.predictions_file import digest_of, read_records

TOLERANCE = 1e-6
"""Points of a score by which two numbers may differ: sums may be added up in another order elsewhere."""
MOST = 10
"""Answers of one cell that are reported one by one, for each thing that is wrong; of further ones the number is."""

Cell = tuple[str, str]
Records = list[tuple[int, dict[str, Any]]]


def verify_run(folder: Path) -> list[str]:
    """Compute a run's scores and summaries anew from its predictions, and say where they are not the stored ones.

    Checked are the digest of every record, the score of every answer, every cell of ``scores`` and ``other_scores``
    (with routing accuracy and oracle, where a method routes), ``summary``, ``summary_task0``, ``matrix.csv`` against
    ``matrix.json``, that all rows hold the same samples in the same order with the same references, and as many as
    ``provenance.json`` says. Of a run that is not finished, the rows that its matrix has.

    Not seen are an answer replaced together with its digest, if every score is as before; the order of a task's
    samples, where one row alone holds them; and what `without_digests` says of files of an older version.

    Args:
        folder: A run directory; nothing beside it is read.

    Returns:
        One line per problem, which names the file, the record and both numbers; empty where all agrees.

    Raises:
        UserError: The folder is no run directory, holds no predictions, or a file in it cannot be read.

    Example:
        >>> verify_run(Path("runs/mini_cit1-tiny-base/seqft-seed0"))
        ["predictions/gqa/vqav2.jsonl, line 3, id 'q7': the digest '8d4c09f2' is stored, '27e51b60' computed",
        "predictions/gqa/vqav2.jsonl, line 3, id 'q7': the score 100 is stored, 30 computed"]
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a run directory")
    run = FinishedRun.read(folder)
    file = run.file
    if not (folder / "predictions").is_dir():
        raise UserError(f"{folder}: has no folder 'predictions', without which its numbers cannot be computed anew")
    sizes = _sizes(folder, file.tasks, "validation" if (run.config or {}).get("stream") == "validation" else "test")
    found = _found(folder)
    cells = [
        (row, task)
        for row, numbers in zip(file.rows, file.scores, strict=True)
        for task, number in zip(file.tasks, numbers, strict=True)
        if number is not None or (row, task) in found
    ]
    problems = [f"{_name(cell)}: is missing, though matrix.json has its score" for cell in cells if cell not in found]
    for row, task in sorted(found - set(cells)):
        if row in file.rows or (folder / "provenance.json").exists():  # else it is still being evaluated
            problems.append(f"{_name((row, task))}: belongs to no cell of matrix.json")

    records = {cell: _read_answers(folder / _name(cell)) for cell in cells if cell in found}
    for cell, lines in records.items():
        problems += _wrong_number_of(lines, _name(cell), sizes.get(cell[1]))
        problems += _wrong_digests(folder / _name(cell), _name(cell), lines)
    for task in file.tasks:
        problems += _unlike_rows(task, {row: lines for (row, of), lines in records.items() if of == task})
    scores_by = dict(zip(file.tasks, file.scores_by, strict=True))
    computed = {cell: _score(folder / _name(cell), scores_by[cell[1]], lines) for cell, lines in records.items()}
    for cell, lines in records.items():
        problems += _wrong_scores(_name(cell), lines, computed[cell].per_sample)
    anew = _anew(file, computed)
    for name in dict.fromkeys(["scores", *file.other_scores, *anew.other_scores]):
        problems += _wrong_cells(name, file, anew)
    return problems + _wrong_summaries(folder, anew) + _wrong_table(folder, file)


def without_digests(folder: Path) -> list[str]:
    """Say which files of a run's matrix hold no digests, so that `verify_run` sees less in them.

    Args:
        folder: A run directory that `verify_run` could read.

    Returns:
        One line per file.

    Raises:
        UserError: A file cannot be read.

    Example:
        >>> without_digests(Path("runs/mini_cit1-tiny-base/seqft-seed0"))
        []
    """
    file = FinishedRun.read(folder).file
    cells = sorted((row, task) for row, task in _found(folder) if row in file.rows and task in file.tasks)
    return [
        f"{_name(cell)}: has no digests: written by an older version; alterations of answers that leave their scores "
        "as they were are not seen"
        for cell in cells
        if not any("digest" in record for _, record in read_records(folder / _name(cell)))
    ]


# --- Reading ----------------------------------------------------------------------------------------------------------


def _found(folder: Path) -> set[Cell]:
    return {(path.parent.name, path.stem) for path in folder.glob("predictions/*/*.jsonl")}


def _name(cell: Cell) -> str:
    row, task = cell
    return f"predictions/{row}/{task}.jsonl"


def _sizes(folder: Path, tasks: Sequence[str], split: str) -> dict[str, int]:
    """Read how many samples of each task were evaluated; nothing while the run has no provenance, its last file."""
    path = folder / "provenance.json"
    if not path.exists():
        return {}
    document = read_json(path)
    try:
        if not isinstance(document, dict):
            raise UserError("must hold one JSON object")
        data = take(document, "data", dict, "an object of tasks")
        return {task: _size(take(data, task, dict, "an object of splits"), split) for task in tasks}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _size(splits: dict[str, Any], split: str) -> int:
    match = re.match(r"(\d{1,12}) samples", take(splits, split, str, "a fingerprint of data"))
    if match is None:
        raise UserError(f"'{split}' must begin with a number of samples, not {splits[split][:60]!r}")
    return int(match[1])


def _read_answers(path: Path) -> Records:
    records = list(read_records(path))
    for number, record in records:
        try:
            if not is_number(record.get("score")):
                raise UserError(f"'score' must be a number, not {str(record.get('score'))[:60]!r}")
            if record.get("right") is not None:
                take(record, "expert", int, "a whole number")
                take(record, "oracle", str, "a text")
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    return records


# --- Computing anew ---------------------------------------------------------------------------------------------------


def _score(path: Path, score_name: str, lines: Records) -> CellScores:
    try:
        return score_cell(score_name, [record for _, record in lines])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _anew(file: MatrixFile, computed: Mapping[Cell, CellScores]) -> MatrixFile:
    """Return the matrix of the computed numbers, and of the stored ones where a file of answers is missing."""
    names = dict.fromkeys([*file.other_scores, *(name for scores in computed.values() for name in scores.others)])
    corpus: dict[Cell, float | None] = {cell: scores.corpus for cell, scores in computed.items()}

    def beside(name: str) -> dict[Cell, float | None]:
        return {cell: scores.others.get(name) for cell, scores in computed.items()}

    def table(stored: Cells | None, numbers: Mapping[Cell, float | None]) -> Cells:
        rows = stored or [[None] * len(file.tasks) for _ in file.rows]
        return [
            [numbers.get((row, task), number) for task, number in zip(file.tasks, cells, strict=True)]
            for row, cells in zip(file.rows, rows, strict=True)
        ]

    others = {name: table(file.other_scores.get(name), beside(name)) for name in names}
    return replace(file, scores=table(file.scores, corpus), other_scores=others)


# --- Comparing --------------------------------------------------------------------------------------------------------


def _wrong_number_of(lines: Records, name: str, size: int | None) -> Iterator[str]:
    first: dict[Any, int] = {}
    for number, record in lines:
        if first.setdefault(record["id"], number) != number:
            yield f"{name}, line {number}, id {record['id']!r}: stands in line {first[record['id']]} already"
    if size is not None and len(lines) != size:
        yield f"{name}: holds {len(lines)} answers, provenance.json says {size}"


def _wrong_digests(path: Path, name: str, lines: Records) -> list[str]:
    """Find the records that are not as they were written; where none has a digest, an older version wrote the file."""
    if not any("digest" in record for _, record in lines):
        return []
    wrong = []
    for number, record in lines:
        try:
            digest = digest_of(record)
        except RecursionError:
            raise UserError(f"{path}, line {number}: nested too deep") from None
        if record.get("digest") != digest:
            stored = _shown(record.get("digest"))
            wrong.append(
                f"{name}, line {number}, id {record['id']!r}: the digest {stored} is stored, {digest!r} computed"
            )
    return _shortened(wrong, name, "the digests")


def _unlike_rows(task: str, rows: Mapping[str, Records]) -> Iterator[str]:
    """Compare the samples of a task over the rows: only what the model said may differ."""
    by_id = {row: {record["id"]: (number, record) for number, record in lines} for row, lines in rows.items()}
    for sample in dict.fromkeys(sample for records in by_id.values() for sample in records):
        having = [row for row, records in by_id.items() if sample in records]
        for row, records in by_id.items():
            if sample not in records:
                yield f"{_name((row, task))}: has no id {sample!r}, which {_name((having[0], task))} has"
        for field in ("instruction", "references", "choices"):
            texts = {row: json.dumps(by_id[row][sample][1].get(field)) for row in having}
            usual = Counter(texts.values()).most_common(1)[0][0]
            other = next(row for row in having if texts[row] == usual)
            for row in having:
                if texts[row] != usual:
                    place = f"{_name((row, task))}, line {by_id[row][sample][0]}, id {sample!r}"
                    yield f"{place}: '{field}' is not that of {_name((other, task))}"
    yield from _unlike_order(task, rows, set[Any]().union(*by_id.values()).intersection(*by_id.values()))


def _unlike_order(task: str, rows: Mapping[str, Records], common: set[Any]) -> Iterator[str]:
    """Compare the order of the samples that all rows have."""
    places = {
        row: {record["id"]: number for number, record in reversed(lines) if record["id"] in common}
        for row, lines in rows.items()
    }
    orders = {row: tuple(sorted(at, key=at.__getitem__)) for row, at in places.items()}
    usual = Counter(orders.values()).most_common(1)[0][0] if orders else ()
    for row, order in orders.items():
        name, other = _name((row, task)), _name((next(row for row in orders if orders[row] == usual), task))
        wrong = [
            f"{name}, line {places[row][sample]}, id {sample!r}: stands where {other} has id {expected!r}"
            for sample, expected in zip(order, usual, strict=True)
            if sample != expected
        ]
        yield from _shortened(wrong, name, "the places")


def _wrong_scores(name: str, lines: Records, computed: Sequence[float]) -> list[str]:
    wrong = [
        f"{name}, line {number}, id {record['id']!r}: the score {_shown(record['score'])} is stored, {_shown(score)} "
        "computed"
        for (number, record), score in zip(lines, computed, strict=True)
        if not _agree(record["score"], score)
    ]
    return _shortened(wrong, name, "the scores")


def _shortened(wrong: list[str], name: str, what: str) -> list[str]:
    more = [f"{name}: {what} of {len(wrong) - MOST} further answers differ too"] if len(wrong) > MOST else []
    return wrong[:MOST] + more


def _wrong_cells(name: str, stored: MatrixFile, computed: MatrixFile) -> Iterator[str]:
    left = stored.scores if name == "scores" else stored.other_scores.get(name)
    right = computed.scores if name == "scores" else computed.other_scores[name]
    for i, row in enumerate(stored.rows):
        for j, task in enumerate(stored.tasks):
            before = None if left is None else left[i][j]
            if not _agree(before, right[i][j]):
                yield f"matrix.json: '{name}', row '{row}', task '{task}': {_both(before, right[i][j])}"


def _wrong_summaries(folder: Path, anew: MatrixFile) -> list[str]:
    document, problems = read_json(folder / "matrix.json"), []
    for field, computed in (("summary", anew.summary()), ("summary_task0", anew.summary_task0())):
        stored = document.get(field)
        if not isinstance(stored, dict | None):
            raise UserError(f"{folder / 'matrix.json'}: '{field}' must be an object of numbers, or null")
        numbers = computed or {}
        for name in dict.fromkeys([*numbers, *(stored or {})]):
            before = (stored or {}).get(name)
            if not _agree(before, numbers.get(name)):
                problems.append(f"matrix.json: '{field}', '{name}': {_both(before, numbers.get(name))}")
    return problems


def _wrong_table(folder: Path, file: MatrixFile) -> list[str]:
    """Compare ``matrix.csv`` with ``matrix.json``."""
    path = folder / "matrix.csv"
    try:
        stored, expected = (list(csv.reader(io.StringIO(text))) for text in (read_text(path), file.to_csv()))
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from None
    labels = [[table[:1], [line[:1] for line in table], [len(line) for line in table]] for table in (stored, expected)]
    if labels[0] != labels[1]:
        return ["matrix.csv: its rows and columns are not those of matrix.json"]
    return [
        f"matrix.csv: row '{line[0]}', task '{task}': {text or 'nothing'} is stored, matrix.json has {other or 'null'}"
        for line, others in zip(stored[1:], expected[1:], strict=True)
        for task, text, other in zip(file.tasks, line[1:], others[1:], strict=True)
        if not _agree(_number(text), _number(other))
    ]


def _number(text: str) -> float | str | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text


def _agree(stored: object, computed: object) -> bool:
    if not is_number(stored) or not is_number(computed):
        return stored is None and computed is None
    return math.isclose(stored, computed, rel_tol=0, abs_tol=TOLERANCE)  # type: ignore[arg-type]


def _both(stored: object, computed: object) -> str:
    return f"{_shown(stored)} is stored, {_shown(computed)} computed"


def _shown(value: object) -> str:
    return "null" if value is None else f"{value:.12g}" if is_number(value) else f"{str(value)[:60]!r}"
