"""Boxes: what is one, and that a right one overlaps by more than half, by counting the cells of a grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.scores import SCORES, beside
from avalanche_cit.evaluation.scores.grounding import box_of, grounding, grounding_tolerant
from avalanche_cit.evaluation.scores.instruction_following import as_box

SQUARE = "[0, 0, 1, 1]"
GRID = 12


def one(function, prediction, *references) -> float:
    result = function([prediction], [list(references) or [SQUARE]], [None])
    assert result.per_sample == [result.corpus]
    return result.corpus


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[0.1, 0.2, 0.5, 1]", [0.1, 0.2, 0.5, 1]),
        ("[0.12,0.34,0.56,0.78]", [0.12, 0.34, 0.56, 0.78]),
        (" [ 10 , 20., +.5 , -3 ]\n", [10, 20, 0.5, -3]),
    ],
)
def test_a_box(text, box):
    assert box_of(text) == box
    assert one(as_box, text) == 100


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red",
        "0, 0, 1, 1",
        "[0, 0, 1]",
        "[0, 0, 1, 1, 1]",
        "[a, 0, 1, 1]",
        "[0 0 1 1]",
        "(0, 0, 1, 1)",
        "[0, 0, ., 1]",
        f"The box is {SQUARE}",
        f"{SQUARE}.",
        f"{SQUARE} {SQUARE}",
        "[" + "1" * 100_000,
    ],
)
def test_no_box(text):
    assert box_of(text) is None
    assert one(as_box, text) == one(grounding, text) == 0


@pytest.mark.parametrize("text", [f"The box is {SQUARE}.", f"{SQUARE}\n[5, 5, 6, 6]", f"<b>{SQUARE}</b>", SQUARE])
def test_the_tolerant_form_takes_the_first_box_in_a_text(text):
    assert one(grounding_tolerant, text) == 100
    assert one(grounding, text) == (100 if text == SQUARE else 0)
    assert one(grounding_tolerant, f"[5, 5, 6, 6] {text}") == 0


def test_an_overlap_of_exactly_half_is_not_enough():
    """As CoIN counts; 0.5 and its neighbours are exact in binary."""
    assert one(grounding, "[0, 0, 1, 0.5]") == 0
    assert one(grounding, "[0, 0, 1, 0.5009765625]") == 100
    assert one(grounding, "[0, 0, 1, 2]") == 0
    assert one(grounding, "[0, 0, 1, 1.9]") == 100


@pytest.mark.parametrize("text", ["[0, 0, 0, 0]", "[1, 1, 0, 0]", "[1, 0, 0, 1]", f"[0, 0, {'9' * 400}, 1]"])
def test_a_box_without_an_area_is_wrong(text):
    assert one(grounding, text) == 0
    assert one(grounding, "[0, 0, 0, 0]", "[0, 0, 0, 0]") == 0


def test_the_best_reference_counts_and_the_corpus_is_the_mean():
    assert one(grounding, SQUARE, "[5, 5, 6, 6]", "[0, 0, 1, 0.9]") == 100
    result = grounding([SQUARE, "none", SQUARE], [[SQUARE], [SQUARE], ["[5, 5, 6, 6]"]], [None] * 3)
    assert (result.per_sample, result.corpus) == ([100, 0, 0], pytest.approx(100 / 3))


@pytest.mark.parametrize("prediction", [SQUARE, "none"])
def test_a_reference_without_a_box_is_named(prediction):
    for function in (grounding, grounding_tolerant):
        with pytest.raises(
            UserError, match=r"sample 1 \(counted from 0\): the reference 'red' is no box \[x1, y1, x2, y2"
        ):
            function([SQUARE, prediction], [[SQUARE], [SQUARE, "red"]], [None] * 2)


def cells(box: list[int]) -> np.ndarray:
    """The cells of a grid that a box covers."""
    covered = np.zeros((GRID, GRID), dtype=bool)
    covered[box[1] : box[3], box[0] : box[2]] = True
    return covered


CORNERS = st.lists(st.integers(0, GRID), min_size=4, max_size=4)


@settings(deadline=None, max_examples=300)
@given(CORNERS, CORNERS)
def test_a_box_is_right_by_the_cells_that_it_shares(prediction, reference):
    both, either = (f(cells(prediction), cells(reference)).sum() for f in (np.logical_and, np.logical_or))
    flat = (reference[2] - reference[0]) * (reference[3] - reference[1]) <= 0
    expected = 0 if flat else 100 * bool(both > either / 2)
    assert one(grounding, str(prediction), str(reference)) == expected
    shares = ([number / 16 for number in box] for box in (prediction, reference))
    assert one(grounding, *map(str, shares)) == expected


@settings(deadline=None)
@given(st.lists(st.sampled_from(["[0, 0, 1, 1]", "[0, 0, 1, 0.4]", "It is ", "\n", "[", "1, 1]"]), max_size=4))
def test_the_tolerant_form_is_never_below_the_strict_one(parts):
    text = "".join(parts)
    strict = one(grounding, text)
    assert one(grounding_tolerant, text) >= strict
    assert one(as_box, text) >= strict


def test_what_stands_beside_it():
    names = ["grounding_tolerant", "instruction_following", "exact_match_raw"]
    assert list(beside(SCORES["grounding"])) == names
