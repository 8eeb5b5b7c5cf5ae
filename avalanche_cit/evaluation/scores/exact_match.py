"""Exact match with the first reference, after answer normalisation or as the text stands."""

from __future__ import annotations

from avalanche_cit.evaluation.scores.answer_processor import normalise_answer
from avalanche_cit.evaluation.scores.score import Choices, ScoreResult, paired


def exact_match(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score 100 where prediction and first reference are equal after `normalise_answer`, else 0.

    Args:
        predictions: N answers.
        references: N lists, of which the first entry counts.
        choices: Not used.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> exact_match(["The dog."], [["dog"]], [None]).corpus
        100.0
    """
    pairs = paired(predictions, references)
    return ScoreResult.mean_of([100.0 * (normalise_answer(a) == normalise_answer(b[0])) for a, b in pairs])


def exact_match_raw(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score 100 where prediction and first reference are equal but for white space around them, else 0.

    Arguments and errors are those of `exact_match`.

    Example:
        >>> exact_match_raw(["The dog."], [["dog"]], [None]).corpus
        0.0
    """
    return ScoreResult.mean_of([100.0 * (a.strip() == b[0].strip()) for a, b in paired(predictions, references)])
