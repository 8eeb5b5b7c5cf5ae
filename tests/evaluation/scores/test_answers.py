import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.metrics.distance import edit_distance

from avalanche_cit.evaluation.scores import SCORES
from avalanche_cit.evaluation.scores.anls import anls
from avalanche_cit.evaluation.scores.exact_match import exact_match, exact_match_raw
from avalanche_cit.evaluation.scores.multiple_choice import multiple_choice, multiple_choice_tolerant
from avalanche_cit.evaluation.scores.token_f1 import token_f1
from avalanche_cit.evaluation.scores.tolerant import plain_answer, tolerant
from avalanche_cit.evaluation.scores.vqa_accuracy import vqa_accuracy

ANIMALS = ["cat", "Dog", "a red bird"]


def one(function, prediction, references, choices=None) -> float:
    result = function([prediction], [references], [choices])
    assert result.per_sample == [pytest.approx(result.corpus)]
    return result.corpus


@pytest.mark.parametrize(("matches", "score"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (10, 100)])
def test_vqa_accuracy_with_ten_annotators(matches, score):
    assert one(vqa_accuracy, "Red.", ["red"] * matches + ["pink"] * (10 - matches)) == pytest.approx(score)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["red", "pink", "blue"]), min_size=4, max_size=12))
def test_vqa_accuracy_is_the_mean_over_subsets_that_leave_one_out(answers):
    subsets = [answers[:i] + answers[i + 1 :] for i in range(len(answers))]
    expected = 100 * sum(min(1, subset.count("red") / 3) for subset in subsets) / len(subsets)
    assert one(vqa_accuracy, "red", answers) == pytest.approx(expected)


def test_vqa_accuracy_by_all_ten_subsets_of_nine_annotators():
    answers = ["Two dogs", "2 dogs.", "two  dogs", "the 2 dogs", "dogs", "2 dog", "dog's", "dog 's", "1,000", "none"]
    for prediction, alike in {"2 dogs": 4, "dog's": 2, "1000": 1, "0": 1, "3 dogs": 0}.items():
        normal = [True] * alike + [False] * (10 - alike)
        subsets = [normal[:i] + normal[i + 1 :] for i in range(10)]
        expected = 100 * sum(min(1, sum(subset) / 3) for subset in subsets) / 10
        assert one(vqa_accuracy, prediction, answers) == pytest.approx(expected)


def test_vqa_accuracy_normalises_answers_that_all_annotators_share():
    """The older VQA evaluation leaves them as they stand: there ``yes.`` would miss ten times ``Yes``."""
    assert one(vqa_accuracy, "yes.", ["Yes"] * 10) == 100


@pytest.mark.parametrize("annotators", range(1, 12))
def test_vqa_accuracy_is_full_where_all_annotators_agree(annotators):
    assert one(vqa_accuracy, "red", ["red"] * annotators) == pytest.approx(100)
    assert one(vqa_accuracy, "blue", ["red"] * annotators) == 0


def test_vqa_accuracy_with_few_annotators():
    assert one(vqa_accuracy, "red", ["red", "pink"]) == pytest.approx(50)
    assert one(vqa_accuracy, "red", ["red", "pink", "blue"]) == pytest.approx(100 / 3)


def test_exact_match_looks_at_the_first_reference_alone():
    assert one(exact_match, "The two dogs.", ["2 dogs", "cats"]) == 100
    assert one(exact_match, "cats", ["2 dogs", "cats"]) == 0
    assert one(exact_match_raw, "2 dogs ", ["2 dogs"]) == 100
    assert one(exact_match_raw, "2 Dogs", ["2 dogs"]) == 0


@pytest.mark.parametrize("prediction", ["b", "(b)", "b.", "b)", " b \n"])
def test_multiple_choice_takes_the_letter(prediction):
    assert one(multiple_choice, prediction, ["b"], ANIMALS) == 100
    assert one(multiple_choice_tolerant, prediction, ["b"], ANIMALS) == 100
    assert one(multiple_choice, prediction, ["a"], ANIMALS) == 0
    assert one(multiple_choice_tolerant, prediction, ["a"], ANIMALS) == 0


@pytest.mark.parametrize(
    "prediction",
    [
        "B",
        "(B)",
        "dog",
        "Dog.",
        "the dog",
        "b. dog",
        "(b) dog",
        "B: Dog",
        "The answer is (b).",
        "Answer: b",
        "It is a dog",
    ],
)
def test_multiple_choice_in_another_form_is_right_tolerantly_only(prediction):
    assert one(multiple_choice, prediction, ["b"], ANIMALS) == 0
    assert one(multiple_choice_tolerant, prediction, ["b"], ANIMALS) == 100


@pytest.mark.parametrize("prediction", ["", "bird", "cat", "a", "a dog cat", "b or c", "ab", "z", "()"])
def test_multiple_choice_wrong_in_every_form(prediction):
    assert one(multiple_choice_tolerant, prediction, ["b"], ANIMALS) == 0


def test_multiple_choice_by_text_and_without_choices():
    assert one(multiple_choice_tolerant, "A red bird.", ["c"], ANIMALS) == 100
    assert one(multiple_choice_tolerant, "U.S.", ["a"], ["U.S.", "Peru"]) == 100
    assert one(multiple_choice_tolerant, "(B)", ["b"], None) == 100
    assert one(multiple_choice_tolerant, "dog", ["b"], None) == 0
    assert one(multiple_choice, "B", ["B"], None) == 100
    assert one(multiple_choice_tolerant, "d", ["d"], ANIMALS) == 100


@pytest.mark.parametrize(
    ("prediction", "plain"),
    [
        ("The answer is Red.", "red"),
        ("So, the correct answer is: red", "red"),
        ("Answer: red\nbecause it is", "red"),
        ("My final answer would be red.", "red"),
        ("it's red", "red"),
        ("This is red.", "red"),
        ("RED", "red"),
        ("\n red \n blue", "red"),
        ("red", "red"),
        ("answering machine", "answering machine"),
        ("it isn't", "it isn't"),
        ("3.5", "3.5"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_plain_answer(prediction, plain):
    assert plain_answer(prediction) == plain


def test_tolerant_forms():
    assert one(tolerant(vqa_accuracy), "The answer is red", ["red"] * 10) == 100
    assert one(tolerant(exact_match), "Red.\nIt is the colour of the car.", ["red"]) == 100
    assert one(tolerant(exact_match_raw), "It is Red.", ["red"]) == 100
    assert one(tolerant(exact_match), "The answer is blue", ["red"]) == 0
    assert one(tolerant(exact_match_raw), "It is Friday.", ["It is Friday."]) == 100


@settings(deadline=None)
@given(
    prediction=st.text(alphabet="abc ()AB.\n", max_size=8) | st.sampled_from(["the answer is a", "it is b."]),
    references=st.lists(st.sampled_from(["a", "b", "it is b.", "B"]), min_size=1, max_size=4),
)
def test_tolerant_is_never_below_strict(prediction, references):
    for name, score in SCORES.items():
        if score.tolerant and name != "grounding":  # whose references are boxes
            strict = score.function([prediction], [references], [["b", "a"]]).corpus
            assert score.tolerant([prediction], [references], [["b", "a"]]).corpus >= strict


def test_token_f1():
    assert one(token_f1, "The red dog!", ["a red dog"]) == 100
    assert one(token_f1, "red dog", ["cat", "dog"]) == pytest.approx(200 / 3)
    assert one(token_f1, "dog dog", ["dog"]) == pytest.approx(200 / 3)
    assert one(token_f1, "cat", ["dog"]) == 0
    assert one(token_f1, "", ["dog"]) == 0
    assert one(token_f1, "", ["the"]) == 100


@settings(deadline=None)
@given(
    prediction=st.text(alphabet="abAB ", max_size=9),
    references=st.lists(st.text(alphabet="abAB ", max_size=9), min_size=1, max_size=3),
)
def test_anls_is_its_definition(prediction, references):
    """Biten et al. (2019), with the Levenshtein distance of NLTK: 1 - NL where NL < 0.5, else 0; the best reference."""

    def similarity(a: str, b: str) -> float:
        normalised = edit_distance(a, b) / max(len(a), len(b), 1)
        return 1 - normalised if normalised < 0.5 else 0

    texts = [reference.strip().lower() for reference in references]
    expected = 100 * max(similarity(prediction.strip().lower(), text) for text in texts)
    assert one(anls, prediction, references) == pytest.approx(expected)


def test_anls():
    assert one(anls, " Coca Cola", ["coca cola"]) == 100
    assert one(anls, "kitten", ["sitting"]) == pytest.approx(100 * (1 - 3 / 7))
    assert one(anls, "abcd", ["abxx"]) == 0  # half of it wrong
    assert one(anls, "abcd", ["xxxx", "abcx"]) == 75
    assert one(anls, "", ["abc"]) == 0
    assert one(anls, "", [""]) == 100
