"""``matrix.json`` and ``matrix.csv`` of a run directory: one run's forgetting matrix, read, checked and written.

The summary in the file is computed from the scores whenever it is written, and never read back.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.checked_json import is_number, names, read_json, take
from avalanche_cit.evaluation.matrix import CONVENTIONS, Array, average_accuracy, mft, relative, summarize
from avalanche_cit.whole_file import write_whole

SCHEMA_VERSION = 1
KINDS = ("sequence", "independent", "joint")
Cells = list[list[float | None]]


@dataclass(frozen=True)
class MatrixFile:
    """The forgetting matrix of one run, with what identifies the run.

    Attributes:
        kind: ``"sequence"`` (SeqFT and the methods), ``"independent"`` (DirectFT: row i is the model tuned on task i
            alone) or ``"joint"`` (JointFT: rows ``["initial", "joint"]``).
        benchmark: Name of the benchmark.
        strategy: Name of the strategy.
        model: Hub name or folder of the start.
        seed: Seed of the run.
        tasks: Column names: task 0's members first, then the sequence in training order.
        task0: Names of task 0's members; empty without task 0.
        scores_by: The score's name, per column.
        rows: ``"initial"``, then the trained tasks in order; fewer than all while the run is going on.
        scores: Rows x tasks, None where not evaluated.
        other_scores: Name to rows x tasks; they enter no average.
        complete: Whether every row is there.

    Raises:
        UserError: The fields do not fit one another, or a score is not a finite number.

    Example:
        >>> file = MatrixFile("sequence", "mini", "seqft", "tiny-base", 0, ["a", "b"], [], ["exact_match"] * 2,
        ...                   ["initial", "a", "b"], [[10, 20], [60, 30], [50, 70]], {}, complete=True)
        >>> file.write(folder)
        >>> MatrixFile.read(folder / "matrix.json").summary()["bwt_gem"]
        -10.0
    """

    kind: str
    benchmark: str
    strategy: str
    model: str
    seed: int
    tasks: list[str]
    task0: list[str]
    scores_by: list[str]
    rows: list[str]
    scores: Cells
    other_scores: dict[str, Cells]
    complete: bool

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"'kind' is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if len(set(self.tasks)) != len(self.tasks):
            raise UserError(f"'tasks' names a task twice: {', '.join(self.tasks)}")
        if self.tasks[: len(self.task0)] != self.task0 or not self.sequence:
            raise UserError("'tasks' must list task 0's members (the names of 'task0') first, then at least one task")
        if len(self.scores_by) != len(self.tasks):
            raise UserError(f"'scores_by' has {len(self.scores_by)} names for {len(self.tasks)} tasks")
        expected = ["initial", "joint"] if self.kind == "joint" else ["initial", *self.sequence]
        if self.rows != expected[: len(self.rows)]:
            raise UserError(f"'rows' is {self.rows}; for kind {self.kind} it must be {expected}, or its beginning")
        if self.complete and len(self.rows) < len(expected):
            raise UserError(f"'complete' is true, but row '{expected[len(self.rows)]}' is missing")
        for name, cells in {"scores": self.scores, **self.other_scores}.items():
            _check_cells(name, cells, self.rows, self.tasks)

    @property
    def sequence(self) -> list[str]:
        """The tasks that are trained, in order: the columns after task 0's."""
        return self.tasks[len(self.task0) :]

    @property
    def matrix(self) -> Array:
        """The sequence's columns, NaN where not evaluated: shape (T + 1, T), for kind joint (2, T)."""
        full = np.full((2 if self.kind == "joint" else len(self.sequence) + 1, len(self.sequence)), np.nan)
        for i, row in enumerate(self.scores):
            full[i] = row[len(self.task0) :]
        return full

    def direct(self) -> list[float | None]:
        """Return D[j], the scores of DirectFT's models on their own tasks, one per task of the sequence.

        Raises:
            UserError: The run is not of kind independent.
        """
        if self.kind != "independent":
            raise UserError(f"a run of kind {self.kind} has no DirectFT scores")
        trained = np.diagonal(self.matrix, offset=-1)
        return [None if np.isnan(score) else float(score) for score in trained]

    def summary(self, direct: Sequence[float | None] | None = None) -> dict[str, float | None]:
        """Return every convention over the sequence's columns, None where it is not defined.

        A sequence has all of them (intransigence only with DirectFT's scores), DirectFT has ``mft`` only and JointFT
        ``average_accuracy`` only.

        Args:
            direct: DirectFT's scores on the sequence's tasks, in the same order.
        """
        return self._summary_of(self.matrix, direct)

    def summary_relative(self, direct: Sequence[float | None]) -> dict[str, float | None]:
        """Return the same numbers with each cell taken as percent of DirectFT's score on its task."""
        return self._summary_of(relative(self.matrix, direct), [100.0] * len(self.sequence))

    def _summary_of(self, matrix: Array, direct: Sequence[float | None] | None) -> dict[str, float | None]:
        if self.kind == "sequence":
            return summarize(matrix, direct)
        undefined: dict[str, float | None] = dict.fromkeys(CONVENTIONS)
        if self.kind == "independent":
            return undefined | {"mft": mft(matrix)}
        last_row = np.broadcast_to(matrix[1], (len(self.sequence) + 1, len(self.sequence)))
        return undefined | {"average_accuracy": average_accuracy(last_row)}

    def summary_task0(self) -> dict[str, float | None] | None:
        """Return task 0's mean score in the last row, and its forgetting since the best earlier row.

        Returns:
            ``average_last`` = mean_j R[last][j] and ``forgetting`` = mean_j (max_{l < last} R[l][j] - R[last][j]) over
            task 0's columns j, the initial row included among the l. None where there is no task 0; None values
            where a cell is missing, or there is no last row (a run still going on, DirectFT).
        """
        if not self.task0:
            return None
        if not self.complete or self.kind == "independent":
            return {"average_last": None, "forgetting": None}
        cells = np.array([row[: len(self.task0)] for row in self.scores], dtype=np.float64)
        numbers = {"average_last": cells[-1].mean(), "forgetting": (cells[:-1].max(axis=0) - cells[-1]).mean()}
        return {name: None if np.isnan(number) else float(number) for name, number in numbers.items()}

    def to_json(self, direct: Sequence[float | None] | None = None) -> dict[str, Any]:
        """Return the content of ``matrix.json``.

        Args:
            direct: DirectFT's scores on the sequence's tasks; adds ``summary_relative``. A run's own file is written
                without, and its intransigence is null.
        """
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "benchmark": self.benchmark,
            "strategy": self.strategy,
            "model": self.model,
            "seed": self.seed,
            "tasks": self.tasks,
            "task0": self.task0,
            "scores_by": self.scores_by,
            "rows": self.rows,
            "scores": self.scores,
            "other_scores": self.other_scores,
            "summary": self.summary(direct),
            "summary_task0": self.summary_task0(),
            "complete": self.complete,
        }
        if direct is not None:
            document["summary_relative"] = self.summary_relative(direct)
        return document

    def to_csv(self) -> str:
        """Return the content of ``matrix.csv``: a line per row, an empty field where not evaluated."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["row", *self.tasks])
        for name, row in zip(self.rows, self.scores, strict=True):
            writer.writerow([name, *("" if score is None else score for score in row)])
        return table.getvalue()

    @classmethod
    def from_json(cls, document: Any) -> MatrixFile:
        """Build the matrix from the content of a ``matrix.json``, all of it checked, the summaries left aside.

        Raises:
            UserError: A field is missing or wrong; the message names it.
        """
        if not isinstance(document, dict):
            raise UserError("a matrix file holds one JSON object with the fields kind, tasks, rows, scores ...")
        if document.get("schema_version") != SCHEMA_VERSION:
            version = document.get("schema_version")
            raise UserError(f"'schema_version' is {version!r}; this version of avalanche_cit reads {SCHEMA_VERSION}")
        return cls(
            kind=take(document, "kind", str, "a string"),
            benchmark=take(document, "benchmark", str, "a string"),
            strategy=take(document, "strategy", str, "a string"),
            model=take(document, "model", str, "a string"),
            seed=take(document, "seed", int, "a whole number"),
            tasks=names(document, "tasks"),
            task0=names(document, "task0"),
            scores_by=names(document, "scores_by"),
            rows=names(document, "rows"),
            scores=take(document, "scores", list, "a list of rows"),
            other_scores=take(document, "other_scores", dict, "an object of matrices"),
            complete=take(document, "complete", bool, "true or false"),
        )

    @classmethod
    def read(cls, path: Path) -> MatrixFile:
        """Read a ``matrix.json``.

        Raises:
            UserError: The file cannot be read, is not JSON, or a field is missing or wrong; the message names both.
        """
        document = read_json(path)
        try:
            return cls.from_json(document)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def write(self, folder: Path, direct: Sequence[float | None] | None = None) -> None:
        """Write ``matrix.json`` and ``matrix.csv`` into a folder; each appears whole or not at all.

        Args:
            folder: An existing folder.
            direct: As in `to_json`.
        """
        document = json.dumps(self.to_json(direct), indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(folder / "matrix.json", document + "\n")
        write_whole(folder / "matrix.csv", self.to_csv())


def _check_cells(field: str, cells: Any, rows: list[str], tasks: list[str]) -> None:
    if not isinstance(cells, list) or len(cells) != len(rows):
        raise UserError(f"'{field}' must hold one list per row; the rows are {', '.join(rows) or 'none yet'}")
    for row, scores in zip(rows, cells, strict=True):
        if not isinstance(scores, list) or len(scores) != len(tasks):
            raise UserError(f"'{field}': row '{row}' must hold {len(tasks)} numbers or nulls, one per task")
        for task, score in zip(tasks, scores, strict=True):
            if score is not None and not is_number(score):
                raise UserError(f"'{field}': row '{row}', column '{task}': {score!r} is not a finite number or null")
