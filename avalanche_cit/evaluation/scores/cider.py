"""CIDEr-D: agreement with the reference captions in n-grams that are rare in the test set (Vedantam et al., 2015)."""

from __future__ import annotations

from pycocoevalcap.cider.cider import Cider

from avalanche_cit.evaluation.scores.caption_tokens import caption_tokens
from avalanche_cit.evaluation.scores.score import Choices, ScoreResult, paired


def cider(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score captions by CIDEr-D x100, as papers print it: 0 to 1,000, since its definition has a factor 10.

    The inverse document frequencies come from the references given, so a score depends on the whole test set: one
    sample alone always scores 0, since none of its n-grams is rarer than another.

    Args:
        predictions: N captions.
        references: N lists of reference captions.
        choices: Not used.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> cider(["a red dog", "two cats"], [["a red dog"], ["a big bus"]], [None, None]).per_sample[1]
        0.0
    """
    return _cider(predictions, references, 100.0)


def cider_x10(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score captions by `cider` / 10, whose range is 0-100 like that of every other score."""
    return _cider(predictions, references, 10.0)


def _cider(predictions: list[str], references: list[list[str]], factor: float) -> ScoreResult:
    pairs = list(paired(predictions, references))
    given = {i: [caption_tokens(prediction)] for i, (prediction, _) in enumerate(pairs)}
    accepted = {i: [caption_tokens(caption) for caption in captions] for i, (_, captions) in enumerate(pairs)}
    if not any(caption for captions in accepted.values() for caption in captions):
        return ScoreResult.mean_of([0.0] * len(pairs))
    _, per_sample = Cider().compute_score(accepted, given)
    return ScoreResult.mean_of([factor * float(score) for score in per_sample])
