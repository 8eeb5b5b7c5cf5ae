import doctest
import importlib
import pkgutil

import pytest

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation import scores
from avalanche_cit.evaluation.scores import SCORES, beside, get_score

MODULES = [name for _, name, _ in pkgutil.iter_modules(scores.__path__, f"{scores.__name__}.")]


def test_names_and_companions():
    assert all(name == score.name and set(score.others) <= set(SCORES) - {name} for name, score in SCORES.items())
    assert list(beside(get_score("vqa_accuracy"))) == ["vqa_accuracy_tolerant", "token_f1"]
    assert list(beside(get_score("cider_x10"))) == ["rouge_l", "token_f1", "exact_match_raw"]
    assert list(beside(get_score("multiple_choice"))) == ["multiple_choice_tolerant", "token_f1"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="unknown score 'vqa_acuracy': did you mean 'vqa_accuracy'"):
        get_score("vqa_acuracy")


@pytest.mark.parametrize("name", SCORES)
def test_every_score_and_what_stands_beside_it_has_one_shape(name):
    references = [["a red dog", "a dog"], ["two blue cats"], ["b"]]
    for function in [SCORES[name].function, *beside(SCORES[name]).values()]:
        result = function(["a red dog", "something else", "b"], references, [None, None, ["x", "y"]])
        assert [type(value) for value in [*result.per_sample, result.corpus]] == [float] * 4
        assert all(0 <= value <= 1000 for value in result.per_sample)
        assert result.per_sample[1] < 0.01


@pytest.mark.parametrize("name", SCORES)
def test_nothing_to_score_is_a_users_mistake(name):
    for function in [SCORES[name].function, *beside(SCORES[name]).values()]:
        with pytest.raises(UserError, match="nothing to score"):
            function([], [], [])
        with pytest.raises(UserError, match=r"sample 1 .* has no reference"):
            function(["a", "b"], [["a"], []], [None, None])
        with pytest.raises(UserError, match="2 predictions, but 1"):
            function(["a", "b"], [["a"]], [None, None])


@pytest.mark.parametrize("module", [scores.__name__, *MODULES])
def test_the_examples_run(module):
    names = {name: score.function for name, score in SCORES.items()}
    assert doctest.testmod(importlib.import_module(module), extraglobs=names).failed == 0
