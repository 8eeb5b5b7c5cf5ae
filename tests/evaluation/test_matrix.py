import doctest
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avalanche_cit.evaluation import matrix as matrix_module
from avalanche_cit.evaluation.matrix import CONVENTIONS, bwt_minimum, relative, summarize

KEYS = [
    "average_accuracy",
    "mft",
    "maa",
    "a_lower_triangle",
    "bwt_gem",
    "bwt_coin",
    "bwt_all_pairs",
    "bwt_minimum",
    "forgetting_chaudhry",
    "forgetting_first_last",
    "fwt_gem",
    "intransigence",
]

MATRIX = [
    [10.0, 20.0, 30.0],  # initial
    [60.0, 24.0, 28.0],
    [66.0, 72.0, 36.0],
    [50.0, 62.0, 80.0],
]
DIRECT = [64.0, 75.0, 79.0]

# Each worked out on paper from the formula.
BY_HAND = {
    "average_accuracy": (50 + 62 + 80) / 3,
    "mft": (60 + 72 + 80) / 3,
    "maa": (60 + (66 + 72) / 2 + (50 + 62 + 80) / 3) / 3,
    "a_lower_triangle": (60 + 66 + 72 + 50 + 62 + 80) / 6,
    "bwt_gem": ((50 - 60) + (62 - 72)) / 2,
    "bwt_coin": ((50 - 60) + (62 - 72) + 0) / 3,
    "bwt_all_pairs": ((66 - 60) + (50 - 60) + (62 - 72)) / 3,
    "bwt_minimum": ((50 - 66) + (62 - 72) + 0) / 3,
    "forgetting_chaudhry": ((66 - 50) + (72 - 62)) / 2,
    "forgetting_first_last": ((60 - 50) + (72 - 62)) / 2,
    "fwt_gem": ((24 - 20) + (36 - 30)) / 2,
    "intransigence": ((64 - 60) + (75 - 72) + (79 - 80)) / 3,
}


def scores(rows: int, columns: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, (rows, columns), elements=st.floats(0, 100))


matrices = st.integers(1, 6).flatmap(lambda tasks: scores(tasks + 1, tasks))


def test_every_convention_by_hand():
    assert len(set(BY_HAND.values())) == len(BY_HAND)  # no convention can stand in for another
    assert summarize(MATRIX, DIRECT) == pytest.approx(BY_HAND)


def test_keys_and_their_order():
    assert list(summarize(MATRIX)) == KEYS
    assert list(CONVENTIONS) == KEYS


def test_bwt_minimum_remembers_what_the_initial_model_could():
    assert bwt_minimum([[90.0, 0.0], [60.0, 0.0], [50.0, 70.0]]) == pytest.approx(-20.0)
    assert summarize([[90.0, 0.0], [60.0, 0.0], [50.0, 70.0]])["forgetting_chaudhry"] == pytest.approx(10.0)


def test_one_task_has_no_differences_between_tasks():
    numbers = summarize([[10.0], [60.0]], direct=[64.0])
    undefined = {"bwt_gem", "bwt_all_pairs", "forgetting_chaudhry", "forgetting_first_last", "fwt_gem"}
    assert {name for name, number in numbers.items() if number is None} == undefined
    assert numbers["bwt_coin"] == 0.0
    assert numbers["average_accuracy"] == numbers["mft"] == numbers["maa"] == numbers["a_lower_triangle"] == 60.0


def test_without_an_initial_row_two_numbers_are_undefined():
    numbers = summarize([[None] * 3, *MATRIX[1:]], DIRECT)
    assert {name for name, number in numbers.items() if number is None} == {"fwt_gem", "bwt_minimum"}
    assert numbers == pytest.approx(BY_HAND | {"fwt_gem": None, "bwt_minimum": None})


def test_without_direct_scores_intransigence_is_undefined():
    assert summarize(MATRIX) == pytest.approx(BY_HAND | {"intransigence": None})
    assert summarize(MATRIX, [64.0, None, 79.0])["intransigence"] is None


@settings(deadline=None)
@given(tasks=st.integers(2, 5), data=st.data())
def test_a_number_is_undefined_exactly_if_a_cell_of_its_formula_is_missing(tasks, data):
    row, column = data.draw(st.integers(0, tasks)), data.draw(st.integers(1, tasks))
    cells = np.full((tasks + 1, tasks), 50.0)
    cells[row, column - 1] = np.nan

    trained, before_last = row == column, column < tasks
    ends = before_last and row in (column, tasks)
    needed = {
        "average_accuracy": row == tasks,
        "mft": trained,
        "maa": row >= column,
        "a_lower_triangle": row >= column,
        "bwt_gem": ends,
        "bwt_coin": row == tasks or trained,
        "bwt_all_pairs": before_last and row >= column,
        "bwt_minimum": True,
        "forgetting_chaudhry": before_last and row >= column,
        "forgetting_first_last": ends,
        "fwt_gem": column >= 2 and row in (0, column - 1),
        "intransigence": trained,
    }
    numbers = summarize(cells, np.full(tasks, 50.0))
    assert {name: number is None for name, number in numbers.items()} == needed


@settings(deadline=None)
@given(tasks=st.integers(2, 6), score=st.floats(0, 100))
def test_nothing_changes_nothing_is_forgotten(tasks, score):
    numbers = summarize(np.full((tasks + 1, tasks), score), np.full(tasks, score))
    for name in ("average_accuracy", "mft", "maa", "a_lower_triangle"):
        assert numbers[name] == pytest.approx(score)
    for name in KEYS[4:]:
        assert numbers[name] == 0.0


@settings(deadline=None)
@given(matrices)
def test_relations_between_the_conventions(matrix):
    tasks, numbers = matrix.shape[1], summarize(matrix, matrix[-1])
    assert numbers["bwt_minimum"] <= 0
    assert numbers["bwt_coin"] == pytest.approx(numbers["average_accuracy"] - numbers["mft"], abs=1e-9)
    assert numbers["intransigence"] == pytest.approx(numbers["bwt_coin"], abs=1e-9)
    if tasks > 1:
        assert numbers["bwt_gem"] == -numbers["forgetting_first_last"]
        assert numbers["bwt_coin"] == pytest.approx(numbers["bwt_gem"] * (tasks - 1) / tasks, abs=1e-9)
        assert numbers["forgetting_chaudhry"] >= numbers["forgetting_first_last"] - 1e-9
        assert -numbers["bwt_minimum"] * tasks >= numbers["forgetting_chaudhry"] * (tasks - 1) - 1e-9


@settings(deadline=None)
@given(matrices)
def test_numbers_come_in_the_unit_of_the_scores(matrix):
    expected = {name: number and number / 100 for name, number in summarize(matrix, matrix[0]).items()}
    assert summarize(matrix / 100, matrix[0] / 100) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(matrices, st.data())
def test_missing_cells_make_none_and_never_nan_or_a_warning(matrix, data):
    matrix[data.draw(arrays(np.bool_, matrix.shape))] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers = summarize(matrix, data.draw(st.sampled_from([None, matrix[0]])))
        relative(matrix, np.zeros(matrix.shape[1]))
    assert all(number is None or (type(number) is float and np.isfinite(number)) for number in numbers.values())


def test_relative_is_percent_of_direct_scores():
    cells = relative([[40.0, 150.0, 3.0], [80.0, 0.0, 3.0]], direct=[80.0, 300.0, 0.0])
    np.testing.assert_array_equal(cells, [[50.0, 50.0, np.nan], [100.0, 0.0, np.nan]])
    assert np.isnan(relative([[40.0]], [None])).all()


@pytest.mark.parametrize("wrong", [[[1.0, 2.0], [3.0, 4.0]], [1.0, 2.0], [[]], [[1.0], [2.0], [3.0]]])
def test_a_matrix_of_another_shape_is_refused(wrong):
    with pytest.raises(ValueError, match=r"shape \(T \+ 1, T\)"):
        summarize(wrong)


def test_direct_scores_of_another_length_are_refused():
    with pytest.raises(ValueError, match="3 tasks"):
        summarize(MATRIX, [1.0, 2.0])


def test_the_examples_run():
    result = doctest.testmod(matrix_module)
    assert result.attempted > 12
    assert result.failed == 0
