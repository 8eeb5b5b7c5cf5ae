"""All numbers of one cell of the forgetting matrix, from the answers: as a run goes on, and when it is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avalanche_cit.evaluation.scores import beside, get_score


@dataclass(frozen=True)
class CellScores:
    """The numbers of one cell.

    Attributes:
        per_sample: The N samples' scores, in the order of the answers.
        corpus: The score of the whole, which stands in the matrix.
        others: What is reported beside it, by name, as in ``other_scores`` of ``matrix.json``.
    """

    per_sample: list[float]
    corpus: float
    others: dict[str, float]


def score_cell(score_name: str, answers: Sequence[Mapping[str, Any]]) -> CellScores:
    """Score the answers to one task after one stage.

    Args:
        score_name: Name of the task's score.
        answers: N answers of ``prediction``, ``references`` and ``choices``. Where a model with experts knew the right
            one of every sample, also ``expert``, ``right`` and ``oracle`` (the right expert's answer): then
            ``routing_accuracy`` and ``oracle_<score>`` are among the others.

    Raises:
        UserError: There is no such score, nothing to score, or a sample has no reference.

    Example:
        >>> answers = [{"prediction": "red", "references": ["red"]}, {"prediction": "a dog", "references": ["cat"]}]
        >>> score_cell("exact_match", answers).per_sample
        [100.0, 0.0]
    """
    score = get_score(score_name)
    texts = [answer["prediction"] for answer in answers]
    references = [answer["references"] for answer in answers]
    choices = [answer.get("choices") for answer in answers]
    result = score.function(texts, references, choices)
    others = {name: function(texts, references, choices).corpus for name, function in beside(score).items()}
    if all(answer.get("right") is not None for answer in answers):
        oracle = [answer["oracle"] for answer in answers]
        others[f"oracle_{score_name}"] = score.function(oracle, references, choices).corpus
        others["routing_accuracy"] = 100 * float(np.mean([answer["expert"] == answer["right"] for answer in answers]))
    return CellScores(result.per_sample, result.corpus, others)
