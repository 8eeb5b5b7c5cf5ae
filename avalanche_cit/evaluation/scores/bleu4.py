"""BLEU-4: n-gram precision with a brevity penalty (Papineni et al., 2002)."""

from __future__ import annotations

from pycocoevalcap.bleu.bleu import Bleu

from avalanche_cit.evaluation.scores.caption_tokens import caption_tokens
from avalanche_cit.evaluation.scores.score import Choices, ScoreResult, paired


def bleu4(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score texts by BLEU-4 on 0-100, with the closest reference length (as COCO does).

    The corpus score is BLEU of all counts together, not the mean of the samples' scores.

    Args:
        predictions: N texts.
        references: N lists of references.
        choices: Not used.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> round(bleu4(["a red dog runs"], [["a red dog runs"]], [None]).corpus, 3)
        100.0
    """
    pairs = list(paired(predictions, references))
    given = {i: [caption_tokens(prediction)] for i, (prediction, _) in enumerate(pairs)}
    accepted = {i: [caption_tokens(reference) for reference in texts] for i, (_, texts) in enumerate(pairs)}
    corpus, per_sample = Bleu(4).compute_score(accepted, given, verbose=0)
    return ScoreResult([100.0 * float(score) for score in per_sample[3]], 100.0 * float(corpus[3]))
