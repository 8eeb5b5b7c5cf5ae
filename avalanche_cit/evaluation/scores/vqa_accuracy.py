"""Soft VQA accuracy: an answer is right in so far as annotators gave it (Antol et al., 2015)."""

from __future__ import annotations

from avalanche_cit.evaluation.scores.answer_processor import normalise_answer
from avalanche_cit.evaluation.scores.score import Choices, ScoreResult, paired


def vqa_accuracy(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score answers by min(1, matches / 3), averaged over the subsets that leave one of the annotators out.

    With ten annotators, 0, 1, 2, 3, 4 matching ones give 0, 30, 60, 90, 100. With fewer than four a subset cannot hold
    three: then all of the subset must match for the full score, and a single annotator is not left out. Answers that
    all annotators share score 100 whatever their number.

    Args:
        predictions: N answers.
        references: N lists with one answer per annotator.
        choices: Not used.

    Returns:
        Scores on 0-100; both sides are normalised by `normalise_answer`.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> vqa_accuracy(["red"], [["red"] * 2 + ["pink"] * 8], [None]).corpus
        60.0
    """
    return ScoreResult.mean_of([_soft(prediction, answers) for prediction, answers in paired(predictions, references)])


def _soft(prediction: str, answers: list[str]) -> float:
    given = normalise_answer(prediction)
    annotators = len(answers)
    matches = sum(normalise_answer(answer) == given for answer in answers)
    if annotators == 1:
        return 100.0 * matches
    enough = min(3, annotators - 1)
    match_left_out = matches * min(enough, matches - 1)
    other_left_out = (annotators - matches) * min(enough, matches)
    return 100.0 * (match_left_out + other_left_out) / (enough * annotators)
