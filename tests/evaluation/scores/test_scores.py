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
    assert list(beside(get_score("vqa_accuracy"))) == ["vqa_accuracy_tolerant", "instruction_following", "token_f1"]
    captions = ["instruction_following", "rouge_l", "token_f1", "exact_match_raw"]
    assert list(beside(get_score("cider_x10"))) == list(beside(get_score("cider"))) == captions
    choice = ["multiple_choice_tolerant", "instruction_following", "token_f1"]
    assert list(beside(get_score("multiple_choice"))) == choice


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="unknown score 'vqa_acuracy': did you mean 'vqa_accuracy'"):
        get_score("vqa_acuracy")


@pytest.mark.parametrize("name", SCORES)
def test_every_score_and_what_stands_beside_it_has_one_shape(name):
    references = [["a red dog", "a dog"], ["two blue cats"], ["b"]]
    if name == "grounding":
        references = [["[0, 0, 1, 1]"]] * 3
    for each, function in {name: SCORES[name].function, **beside(SCORES[name])}.items():
        result = function(["a red dog", "something else", "b"], references, [None, None, ["x", "y"]])
        assert [type(value) for value in [*result.per_sample, result.corpus]] == [float] * 4
        assert all(0 <= value <= 1000 for value in result.per_sample)
        assert result.per_sample[1] < 0.01 or each == "instruction_following"
        if name != "bleu4":
            assert result.corpus == pytest.approx(sum(result.per_sample) / 3)


ANSWERS = ["A dog runs on grass.", "Two dogs.", "(b)", "No. 5?", "two brown dogs run\n"]


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (("vqa_accuracy", "exact_match", "exact_match_raw", "anls", "token_f1"), [100, 100, 100, 100, 100]),
        (("multiple_choice",), [0, 0, 100, 0, 0]),
        (("grounding",), [0, 0, 0, 0, 0]),
        (("cider", "cider_x10", "bleu4", "rouge_l"), [100, 0, 0, 0, 100]),
    ],
)
def test_each_score_knows_the_form_that_its_tasks_ask_for(names, form):
    for name in names:
        rate = beside(get_score(name))["instruction_following"](ANSWERS, [["b"]] * 5, [["x", "y"]] * 5)
        assert rate.per_sample == form
        assert rate.corpus == sum(form) / 5


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
