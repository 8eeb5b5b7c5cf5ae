"""ANLS: average normalised Levenshtein similarity, for answers that are read from an image (Biten et al., 2019)."""

from __future__ import annotations

from avalanche_cit.evaluation.scores.score import Choices, ScoreResult, paired


def anls(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score answers by 1 - edits / length of the longer text, 0 from half on; the best reference counts, on 0-100.

    Args:
        predictions: N answers; case and outer white space do not count.
        references: N lists of references.
        choices: Not used.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> round(anls(["Coca Colo"], [["coca cola", "coke"]], [None]).corpus, 2)
        88.89
    """
    pairs = paired(predictions, references)
    return ScoreResult.mean_of([100.0 * max(_similarity(given, text) for text in texts) for given, texts in pairs])


def _similarity(prediction: str, reference: str) -> float:
    given, wanted = prediction.strip().lower(), reference.strip().lower()
    if given == wanted:
        return 1.0
    distance = _edits(given, wanted) / max(len(given), len(wanted))
    return 1.0 - distance if distance < 0.5 else 0.0


def _edits(a: str, b: str) -> int:
    """Return the Levenshtein distance, row by row of its table."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != other))
    return row[-1]
