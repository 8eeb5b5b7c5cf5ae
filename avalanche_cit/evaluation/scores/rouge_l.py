"""ROUGE-L: the longest common subsequence of words with the references (Lin, 2004)."""

from __future__ import annotations

from pycocoevalcap.rouge.rouge import Rouge

from avalanche_cit.evaluation.scores.caption_tokens import caption_tokens
from avalanche_cit.evaluation.scores.score import Choices, ScoreResult, paired


def rouge_l(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score texts by ROUGE-L on 0-100, beta 1.2, best precision and best recall over the references (as COCO does).

    Args:
        predictions: N texts.
        references: N lists of references.
        choices: Not used.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> rouge_l(["a red dog"], [["a red dog", "the dog"]], [None]).corpus
        100.0
    """
    rouge, per_sample = Rouge(), []
    for prediction, accepted in paired(predictions, references):
        tokens = caption_tokens(prediction)
        score = rouge.calc_score([tokens], [caption_tokens(reference) for reference in accepted]) if tokens else 0.0
        per_sample.append(100.0 * float(score))
    return ScoreResult.mean_of(per_sample)
