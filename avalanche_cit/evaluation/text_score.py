"""The plugin metric that generates, scores and fills the forgetting matrix.

Each (row, task) cell is answered once; every other number derives from the matrix.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from avalanche.benchmarks import CLScenario
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name, stream_type
from avalanche.evaluation.metrics.forgetting_bwt import Forgetting

from avalanche_cit.benchmarks.scenario import task_name
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.answers import CellAnswers, Texts, weights_of
from avalanche_cit.evaluation.cell import score_cell
from avalanche_cit.evaluation.matrix_file import Cells, MatrixFile
from avalanche_cit.evaluation.predictions_file import digest_of
from avalanche_cit.evaluation.scores import get_score
from avalanche_cit.whole_file import whole_file

_PARTIAL = ".partial"


class ForgettingMatrix(PluginMetric[float]):  # type: ignore[misc]
    """Scores generated answers and keeps R[i][j], the score on task j after training on task i.

    What is evaluated before any training fills the row ``"initial"``; what is evaluated after (or while) training
    on a task fills that task's row; a cell that is evaluated again is replaced. Under Avalanche's names it emits, for
    each evaluated experience, ``Score_Exp``, ``ExperienceForgetting`` and ``ExperienceBWT``, and for each evaluated
    stream ``Score_Stream``, ``StreamForgetting`` and ``StreamBWT`` (first minus last, Avalanche's convention).

    Identical questions of a task are answered once, and where a model has experts, answers of an earlier row are taken
    over from experts that have not changed since; see `CellAnswers`.

    Args:
        benchmark: The scenario; gives the columns and their scores.
        stream: The stream that fills the matrix, ``"test"`` or ``"validation"``. Task 0's test stream always does,
            beside ``"test"``.
        predictions: A folder for ``<row>/<task>.jsonl`` with every answer, in the data's order; None keeps none. What
            has been answered of a cell that is not complete stands in ``<row>/<task>.jsonl.partial``.

    Raises:
        UserError: A task names a score that does not exist.

    Example:
        >>> matrix = ForgettingMatrix(benchmark)
        >>> strategy = SeqFT(model=model, evaluator=EvaluationPlugin(matrix, loggers=[InteractiveLogger()]))
    """

    def __init__(self, benchmark: CLScenario, *, stream: str = "test", predictions: Path | None = None) -> None:
        super().__init__()
        streams = benchmark.streams
        columns = {}
        for name in ("task0_test", stream) if stream == "test" else (stream,):
            for experience in streams.get(name, []):
                task = experience.dataset[0][0].task
                get_score(task.score)
                columns[task.name] = task.score
        self.tasks = list(columns)
        self.scores_by = list(columns.values())
        self.task0 = self.tasks[: len(self.tasks) - len(streams[stream])]
        self.streams = ("test", "task0_test") if stream == "test" else (stream,)
        self.predictions = predictions
        self.row = "initial"
        self.rows = ["initial"]
        self._cells: dict[tuple[str, str], float] = {}
        self._others: dict[str, dict[tuple[str, str], float]] = {}
        self._forgetting = Forgetting()
        self._cell: CellAnswers | None = None
        self._weights: dict[int | None, str] = {}
        self._known: dict[str, Texts] = {}
        self._stream: dict[str, float] = {}
        self._open = False
        self._continues = False

    @property
    def scores(self) -> Cells:
        """R as rows of cells, rows and columns as in `rows` and `tasks`; None where nothing was evaluated."""
        return self._table(self._cells)

    def as_file(self, *, kind: str, benchmark: str, strategy: str, model: str, seed: int) -> MatrixFile:
        """Return the matrix with what identifies its run, as it stands in ``matrix.json``."""
        rows = 2 if kind == "joint" else 1 + len(self.tasks) - len(self.task0)
        return MatrixFile(
            kind=kind,
            benchmark=benchmark,
            strategy=strategy,
            model=model,
            seed=seed,
            tasks=self.tasks,
            task0=self.task0,
            scores_by=self.scores_by,
            rows=list(self.rows),
            scores=self.scores,
            other_scores={name: self._table(cells) for name, cells in self._others.items()},
            complete=len(self.rows) == rows,
        )

    def result(self) -> float | None:
        """Return the mean score of the experiences evaluated last."""
        return float(np.mean(list(self._stream.values()))) if self._stream else None

    def reset(self) -> None:
        """Forget the answers collected in the experience being evaluated."""
        self._cell = None

    def before_training_exp(self, strategy: Any) -> None:
        """Begin the row of the task that is trained now."""
        self.row = task_name(strategy.adapted_dataset) or "joint"
        if self.row not in self.rows:
            self.rows.append(self.row)

    def before_eval(self, strategy: Any) -> None:
        """Begin the evaluation of a stream, or go on with the one that a checkpoint stopped in."""
        if not self._continues:
            self._stream = {}
            self._forgetting.reset_last()
        self._open, self._continues = True, False
        self._weights = weights_of(strategy.model)

    def before_eval_exp(self, strategy: Any) -> None:
        """Begin a cell."""
        self.reset()
        if stream_type(strategy.experience) in self.streams:
            task = strategy.experience.dataset[0][0].task.name
            self._cell = CellAnswers(strategy, self._weights, self._known.get(task), self._partial_file(task))

    def after_eval_iteration(self, strategy: Any) -> None:
        """Have one mini-batch answered."""
        if self._cell is not None:
            self._cell.take(strategy.mb_x)

    def after_eval_exp(self, strategy: Any) -> list[MetricValue]:
        """Score the answers of the cell and put it into the matrix."""
        if self._cell is None:
            return []
        task = strategy.experience.dataset[0][0].task
        cell = (self.row, task.name)
        answers = self._cell.finish()
        if strategy.model.router is not None:
            self._known[task.name] = self._cell.texts
        self.reset()
        result = score_cell(task.score, answers)
        self._cells[cell] = result.corpus
        for name, number in result.others.items():
            self._others.setdefault(name, {})[cell] = number
        if self.predictions is not None:
            _write_answers(_answers_file(self.predictions, *cell), answers, result.per_sample)
        partial = self._partial_file(task.name)
        if partial is not None:
            partial.unlink(missing_ok=True)
        self._stream[task.name] = result.corpus
        return self._exp_values(strategy, task.name, result.corpus)

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit the means over the stream."""
        self._open = False
        experiences = list(strategy.current_eval_stream)
        if not experiences or stream_type(experiences[0]) not in self.streams:
            return []
        lost = [value for name in self._stream if (value := self._forgetting.result_key(name)) is not None]
        values = {"Score_Stream": float(np.mean(list(self._stream.values())))}
        if lost:
            values |= {"StreamForgetting": float(np.mean(lost)), "StreamBWT": -float(np.mean(lost))}
        stream = stream_type(experiences[0])
        step = strategy.clock.train_iterations
        return [MetricValue(self, f"{name}/eval_phase/{stream}_stream", value, step) for name, value in values.items()]

    def missing(self, row: str, stream: Iterable[Any]) -> list[Any]:
        """Return the experiences of a stream that have no cell in a row, which is all of them in a new run.

        Example:
            >>> strategy, trained = maybe_load_checkpoint(strategy, "checkpoints")
            >>> for number, experience in enumerate(benchmark.train_stream, start=1):
            ...     if number > trained:
            ...         strategy.train(experience)
            ...     strategy.eval(matrix.missing(task_name(experience.dataset), benchmark.test_stream))
        """
        return [experience for experience in stream if (row, task_name(experience.dataset)) not in self._cells]

    def state_dict(self) -> dict[str, Any]:
        """Return the matrix, and how far the evaluation of a stream is."""
        return {
            "row": self.row,
            "rows": self.rows,
            "cells": _listed(self._cells),
            "others": {name: _listed(cells) for name, cells in self._others.items()},
            "first": self._forgetting.initial,
            "last": self._forgetting.last,
            "stream": self._stream,
            "open": self._open,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`. Answers of cells that are complete and not in it are removed.

        Raises:
            UserError: The answers of a cell that is in it are gone.
        """
        self.row, self.rows = state["row"], list(state["rows"])
        self._cells = {(row, task): score for row, task, score in state["cells"]}
        self._others = {
            name: {(row, task): score for row, task, score in cells} for name, cells in state["others"].items()
        }
        self._forgetting.initial, self._forgetting.last = dict(state["first"]), dict(state["last"])
        self._stream = dict(state["stream"])
        self._open = self._continues = state["open"]
        if self.predictions is not None:
            _cut_back(self.predictions, self._cells)

    def __str__(self) -> str:
        """Return the matrix as a table."""
        width = max(len(name) for name in (*self.rows, *self.tasks)) + 2
        lines = ["".ljust(width) + "".join(task.rjust(width) for task in self.tasks)]
        for row, cells in zip(self.rows, self.scores, strict=True):
            texts = ["-" if cell is None else f"{cell:.1f}" for cell in cells]
            lines.append(row.ljust(width) + "".join(text.rjust(width) for text in texts))
        return "\n".join(lines)

    def _exp_values(self, strategy: Any, task: str, score: float) -> list[MetricValue]:
        """What Avalanche's own forgetting metrics would emit for this experience."""
        if task == self.row:
            self._forgetting.update(task, score, initial=True)
        else:
            self._forgetting.update(task, score)
        values = {"Score_Exp": score}
        lost = self._forgetting.result_key(task)
        if lost is not None:
            values |= {"ExperienceForgetting": lost, "ExperienceBWT": -lost}
        step = strategy.clock.train_iterations
        return [
            MetricValue(self, get_metric_name(name, strategy, add_experience=True), value, step)
            for name, value in values.items()
        ]

    def _partial_file(self, task: str) -> Path | None:
        return None if self.predictions is None else _partial(_answers_file(self.predictions, self.row, task))

    def _table(self, cells: dict[tuple[str, str], float]) -> Cells:
        return [[cells.get((row, task)) for task in self.tasks] for row in self.rows]


def _listed(cells: dict[tuple[str, str], float]) -> list[tuple[str, str, float]]:
    return [(row, task, score) for (row, task), score in cells.items()]


def _cut_back(predictions: Path, cells: Iterable[tuple[str, str]]) -> None:
    """Remove the answers of all other cells that are complete, and check that those of these are there."""
    known = {_answers_file(predictions, row, task) for row, task in cells}
    done = {_partial(file) for file in known}
    for file in predictions.glob("*/*"):
        if file not in known and (file.suffix != _PARTIAL or file in done):
            file.unlink()
    for file in known:
        if not file.exists():
            raise UserError(f"{file} is gone, which an earlier part of this run wrote; delete the run directory")


def _answers_file(predictions: Path, row: str, task: str) -> Path:
    return predictions / row / f"{task}.jsonl"


def _partial(file: Path) -> Path:
    return file.with_name(file.name + _PARTIAL)


def _write_answers(file: Path, answers: list[dict[str, Any]], scores: list[float]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as unfinished, unfinished.open("w", encoding="utf-8") as lines:
        for answer, score in zip(answers, scores, strict=True):
            record: dict[str, Any] = {
                "id": answer["id"],
                "instruction": answer["prompt"],
                "prediction": answer["prediction"],
                "references": answer["references"],
                "score": score,
                **({"choices": answer["choices"]} if answer["choices"] else {}),
                **{key: answer[key] for key in ("expert", "right", "oracle") if key in answer},
            }
            record["digest"] = digest_of(record)
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
