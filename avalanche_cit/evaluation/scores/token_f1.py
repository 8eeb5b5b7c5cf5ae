"""Token F1: overlap of words with the best reference, as SQuAD scores answers (Rajpurkar et al., 2016)."""

from __future__ import annotations

import string
from collections import Counter
from functools import lru_cache

from avalanche_cit.evaluation.scores.score import Choices, ScoreResult, paired

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = {"a", "an", "the"}


def token_f1(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score texts by the F1 of their words on 0-100, without case, punctuation and articles; the best reference counts.

    Args:
        predictions: N texts.
        references: N lists of references.
        choices: Not used.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> round(token_f1(["the red dog"], [["dog", "a red cat"]], [None]).corpus, 2)
        66.67
    """
    pairs = paired(predictions, references)
    return ScoreResult.mean_of([100.0 * max(_f1(given, text) for text in texts) for given, texts in pairs])


def _f1(prediction: str, reference: str) -> float:
    given, wanted = _words(prediction), _words(reference)
    if not given or not wanted:
        return float(given == wanted)
    common = (given & wanted).total()
    return 2 * common / (given.total() + wanted.total())


@lru_cache(maxsize=100_000)  # the references are the same in every row of a matrix
def _words(text: str) -> Counter[str]:
    return Counter(word for word in text.lower().translate(_NO_PUNCTUATION).split() if word not in _ARTICLES)
