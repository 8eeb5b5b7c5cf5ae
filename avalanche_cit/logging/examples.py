"""Test samples with the answers that the model gave to them after each stage, and the choice of telling ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.checked_json import is_number, names, read_json_lines, take

RIGHT = 50.0
"""A sample's score, 0-100, from which its answer counts as right here."""


@dataclass(frozen=True)
class Answer:
    """What the model answered after one stage.

    Attributes:
        row: The matrix row: ``"initial"`` or the task trained last.
        prediction: The generated text.
        score: The sample's score, 0-100; None where the score has no value for one sample.
    """

    row: str
    prediction: str
    score: float | None

    @property
    def verdict(self) -> str:
        """``"right"``, ``"partly"`` (some points, below `RIGHT`), ``"wrong"`` or, without a score, ``"unknown"``."""
        if self.score is None:
            return "unknown"
        return "right" if self.score >= RIGHT else "partly" if self.score > 0 else "wrong"


@dataclass(frozen=True)
class Example:
    """One test sample and its answers, in the order of the stages."""

    id: str
    instruction: str
    references: list[str]
    answers: list[Answer] = field(default_factory=list)

    @property
    def drop(self) -> float:
        """How far the last answer's score lies below the best one, in points, at least 0."""
        scores = self._scores()
        return max(scores) - scores[-1] if scores else 0.0

    @property
    def forgotten(self) -> bool:
        """Whether an answer was right after some stage, and the last one is not."""
        scores = self._scores()
        return bool(scores) and max(scores) >= RIGHT > scores[-1]

    @property
    def learned(self) -> bool:
        """Whether the first answer was not right, and the last one is."""
        scores = self._scores()
        return bool(scores) and scores[0] < RIGHT <= scores[-1]

    def _scores(self) -> list[float]:
        return [answer.score for answer in self.answers if answer.score is not None]


def read_examples(run_directory: Path, task: str, rows: Sequence[str]) -> list[Example]:
    """Gather a task's test samples from a run's prediction files, one file per row.

    Args:
        run_directory: Holds ``predictions/<row>/<task>.jsonl``; rows without a file are passed over.
        task: The matrix column.
        rows: The matrix rows, in order.

    Raises:
        UserError: A line is not a JSON object with the keys of the run directory's contract.
    """
    examples: dict[str, Example] = {}
    for row in rows:
        file = run_directory / "predictions" / row / f"{task}.jsonl"
        if not file.exists():
            continue
        for number, line in read_json_lines(file):
            try:
                answer, new = _answer(row, line), _example(line)
            except UserError as error:
                raise UserError(
                    f"{file}, line {number}: not a prediction with id, instruction, prediction, references and "
                    f"score: {error}; delete this file, or write it anew by evaluating again"
                ) from None
            examples.setdefault(new.id, new).answers.append(answer)
    return list(examples.values())


def _answer(row: str, line: dict[str, Any]) -> Answer:
    score = line.get("score")
    if score is not None and not is_number(score):
        raise UserError(f"'score' must be a number or null, not {str(score)[:60]!r}")
    return Answer(row, take(line, "prediction", str, "a text"), score)


def _example(line: dict[str, Any]) -> Example:
    instruction = take(line, "instruction", str, "a text")
    return Example(take(line, "id", str, "a text"), instruction, names(line, "references"))


def choose_examples(examples: Sequence[Example], count: int = 6) -> list[Example]:
    """Choose samples that show forgetting: two thirds forgotten (deepest fall first), then learned ones, then others.

    Ties keep the order of the file, so the same predictions always give the same choice.

    Example:
        >>> shown = choose_examples(read_examples(Path("run"), "vqa", matrix_file.rows))
    """
    forgotten = sorted((e for e in examples if e.forgotten), key=lambda e: -e.drop)
    learned = [e for e in examples if e.learned]
    others = sorted((e for e in examples if not e.forgotten and not e.learned), key=lambda e: -e.drop)
    most, few = count - count // 3, count // 3
    return [*forgotten[:most], *learned[:few], *forgotten[most:], *learned[few:], *others][:count]


def picture_file(run_directory: Path, task: str, sample_id: str) -> Path:
    """Return where a run keeps a sample's picture for the report (it need not exist)."""
    return run_directory / "examples" / task / f"{sample_id.replace('/', '_')}.png"
