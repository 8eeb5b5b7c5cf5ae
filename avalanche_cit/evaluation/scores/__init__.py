"""Scores of generated texts: pure functions from predictions, references and choices to numbers, by name.

Example:
    >>> score = get_score("vqa_accuracy")
    >>> score.function(["red"], [["red"] * 10], [None]).corpus
    100.0
    >>> list(beside(score))
    ['vqa_accuracy_tolerant', 'instruction_following', 'token_f1']
"""

from __future__ import annotations

from avalanche_cit.errors import unknown_name
from avalanche_cit.evaluation.scores.anls import anls
from avalanche_cit.evaluation.scores.bleu4 import bleu4
from avalanche_cit.evaluation.scores.cider import cider, cider_x10
from avalanche_cit.evaluation.scores.exact_match import exact_match, exact_match_raw
from avalanche_cit.evaluation.scores.grounding import grounding, grounding_tolerant
from avalanche_cit.evaluation.scores.instruction_following import as_box, as_caption, as_option_letter, as_short_answer
from avalanche_cit.evaluation.scores.multiple_choice import multiple_choice, multiple_choice_tolerant
from avalanche_cit.evaluation.scores.rouge_l import rouge_l
from avalanche_cit.evaluation.scores.score import Score, ScoreFunction, ScoreResult
from avalanche_cit.evaluation.scores.token_f1 import token_f1
from avalanche_cit.evaluation.scores.tolerant import tolerant
from avalanche_cit.evaluation.scores.vqa_accuracy import vqa_accuracy

__all__ = ["SCORES", "Score", "ScoreFunction", "ScoreResult", "beside", "get_score"]

_CAPTION = ("rouge_l", "token_f1", "exact_match_raw")

_ALL = (
    Score("vqa_accuracy", vqa_accuracy, as_short_answer, tolerant(vqa_accuracy), ("token_f1",)),
    Score("exact_match", exact_match, as_short_answer, tolerant(exact_match), ("token_f1",)),
    Score("exact_match_raw", exact_match_raw, as_short_answer, tolerant(exact_match_raw), ("token_f1",)),
    Score("multiple_choice", multiple_choice, as_option_letter, multiple_choice_tolerant, ("token_f1",)),
    Score("grounding", grounding, as_box, grounding_tolerant, ("exact_match_raw",)),
    Score("anls", anls, as_short_answer, tolerant(anls), ("token_f1",)),
    Score("token_f1", token_f1, as_short_answer, None, ("exact_match_raw",)),
    Score("cider", cider, as_caption, None, _CAPTION),
    Score("cider_x10", cider_x10, as_caption, None, _CAPTION),
    Score("bleu4", bleu4, as_caption, None, _CAPTION),
    Score("rouge_l", rouge_l, as_caption, None, ("token_f1", "exact_match_raw")),
)
SCORES: dict[str, Score] = {score.name: score for score in _ALL}


def get_score(name: str) -> Score:
    """Return a score by its name.

    Raises:
        UserError: There is none of that name; the message suggests the nearest.
    """
    if name not in SCORES:
        raise unknown_name("score", name, SCORES)
    return SCORES[name]


def beside(score: Score) -> dict[str, ScoreFunction]:
    """Return what is reported beside a score under ``other_scores``.

    In this order: its tolerant form as ``<name>_tolerant``, ``instruction_following``, and its others.
    """
    functions: dict[str, ScoreFunction] = {}
    if score.tolerant is not None:
        functions[f"{score.name}_tolerant"] = score.tolerant
    functions["instruction_following"] = score.form
    return functions | {name: SCORES[name].function for name in score.others}
