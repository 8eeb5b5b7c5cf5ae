"""Instruction-following rate: the share of answers in the form that was asked for, be they right or wrong.

A model can keep the knowledge and lose the form, or keep the form and lose the knowledge; this tells the two apart.
CoIN and SMoLoRA report that answers lose their form, each with a measure of its own; these definitions are ours.
"""

from __future__ import annotations

import re

from avalanche_cit.evaluation.scores.caption_tokens import is_abbreviation
from avalanche_cit.evaluation.scores.grounding import box_of
from avalanche_cit.evaluation.scores.multiple_choice import option_letter
from avalanche_cit.evaluation.scores.score import Choices, ScoreResult, paired
from avalanche_cit.evaluation.scores.tolerant import ANSWER_PREFIX

SHORT = 5
"""Words that a short answer may have where all references are shorter."""

CAPTION = 3
"""Words that a caption has at least: an answer such as ``yes`` or ``two dogs`` describes no picture."""

_ENDS_NO_SENTENCE = re.compile(r'"[^"]*"|“[^”]*”|\b[Nn]os?\.(?=\s\d)')
_REASON = re.compile(r"\S[,;]?\s+(?:because|since|due to)\b")


def as_short_answer(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score 100 where the answer is a short one, else 0.

    It is one line of at most `SHORT` words, or as many as the longest reference has. It neither announces itself
    (``The answer is red``, ``It is red``) nor gives a reason (``red because it is rusty``), unless a reference does.

    Args:
        predictions: N answers.
        references: N lists of references.
        choices: Not used.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> as_short_answer(["blue", "It is red."], [["red"], ["red"]], [None, None]).per_sample
        [100.0, 0.0]
    """
    pairs = paired(predictions, references)
    return ScoreResult.mean_of([100.0 * _is_short(text, accepted) for text, accepted in pairs])


def as_option_letter(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score 100 where the answer is the letter of an option as `multiple_choice` takes it, and nothing else, else 0.

    Args:
        predictions: N answers.
        references: N lists, whose first entry is the letter of the right option; its case is the case to be used.
        choices: N lists of option texts; where they are given, the letter must be one of theirs.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> as_option_letter(["(a)", "B", "dog"], [["b"]] * 3, [["cat", "dog"]] * 3).per_sample
        [100.0, 0.0, 0.0]
    """
    samples = zip(paired(predictions, references), choices, strict=True)
    return ScoreResult.mean_of([100.0 * _is_letter(text, right[0], given) for (text, right), given in samples])


def as_box(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score 100 where the answer is a box ``[x1, y1, x2, y2]`` as `grounding` takes it, and nothing else, else 0.

    Args:
        predictions: N answers.
        references: N lists of boxes, of which nothing is used.
        choices: Not used.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> as_box(["[0, 0.5, 1, 1]", "on the left"], [["[0, 0, 1, 1]"]] * 2, [None] * 2).per_sample
        [100.0, 0.0]
    """
    return ScoreResult.mean_of([100.0 * (box_of(text) is not None) for text, _ in paired(predictions, references)])


def as_caption(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score 100 where the answer is one sentence on one line, of at least `CAPTION` words and no question, else 0.

    A full stop within the line ends a sentence unless it belongs to an abbreviation or an ellipsis; a mark in double
    quotes ends none. Some published captions (of TextCaps) have two sentences, and are not in this form.

    Args:
        predictions: N captions.
        references: N lists of reference captions, of which nothing is used.
        choices: Not used.

    Raises:
        UserError: There is nothing to score, or a sample has no reference.

    Example:
        >>> as_caption(["A dog on St. John Street.", "A dog. It runs."], [["a dog"]] * 2, [None] * 2).per_sample
        [100.0, 0.0]
    """
    return ScoreResult.mean_of([100.0 * _is_caption(text) for text, _ in paired(predictions, references)])


def _is_short(prediction: str, references: list[str]) -> bool:
    text = prediction.strip()
    longest = max(SHORT, *(len(reference.split()) for reference in references))
    if len(text.splitlines()) != 1 or len(text.split()) > longest:
        return False
    return not _explains(text) or any(_explains(reference) for reference in references)


def _explains(text: str) -> bool:
    lower = text.strip().lower()
    return ANSWER_PREFIX.match(lower) is not None or _REASON.search(lower) is not None


def _is_letter(prediction: str, reference: str, options: list[str] | None) -> bool:
    letter, right = option_letter(prediction), option_letter(reference)
    if letter is None or (right is not None and letter.islower() != right.islower()):
        return False
    return not options or ord(letter.lower()) - ord("a") < len(options)


def _is_caption(prediction: str) -> bool:
    text = prediction.strip()
    if len(text.splitlines()) != 1 or len(text.split()) < CAPTION or text.endswith("?"):
        return False
    return not any(_ends_sentence(word) for word in _ENDS_NO_SENTENCE.sub("_", text).split()[:-1])


def _ends_sentence(word: str) -> bool:
    return len(word) > 1 and word.endswith((".", "!", "?")) and not word.endswith("..") and not is_abbreviation(word)
