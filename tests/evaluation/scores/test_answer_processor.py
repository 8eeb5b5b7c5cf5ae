import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalanche_cit.evaluation.scores.answer_processor import normalise_answer


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("Red", "red"),
        ("  red\n", "red"),
        ("red\tcar\nhere", "red car here"),
        # commas and question marks go, also between digits
        ("red, white", "red white"),
        ("3,000", "3000"),
        ("what?", "what"),
        # another mark becomes a space, or nothing if any of its kind touches a space
        ("t-shirt", "t shirt"),
        ("t-shirt - red", "tshirt red"),
        ("black/white", "black white"),
        ('"stop" sign', "stop sign"),
        ("(b)", "b"),
        ("50%", "50%"),
        # a period stays before a digit
        ("3.5", "3.5"),
        ("red.", "red"),
        ("U.S.A.", "usa"),
        (".5", ".5"),
        ("2.", "2"),
        # numbers, articles, contractions
        ("Two dogs and ten cats", "2 dogs and 10 cats"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("the dog and a cat", "dog and cat"),
        ("an", ""),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("well", "well"),
        ("man's hat", "man 's hat"),
        ("", ""),
    ],
)
def test_documented_behaviour(answer, normal):
    assert normalise_answer(answer) == normal


@settings(deadline=None)
@given(st.text(alphabet="abAB 01.,-/'\n", max_size=12))
def test_case_and_outer_space_never_count(answer):
    assert normalise_answer(answer) == normalise_answer(answer.upper()) == normalise_answer(f"  {answer}\n")
    assert normalise_answer(answer) == " ".join(normalise_answer(answer).split())
