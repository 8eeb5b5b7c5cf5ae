import doctest

import pytest

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation import checked_json, matrix_import
from avalanche_cit.evaluation.matrix_import import ImportedMatrix, read_csv

JSON = {"tasks": ["a", "b"], "rows": ["initial", "a", "b"], "scores": [[1, 2], [6, 3], [5, 7]], "directft": [6.5, 7.5]}
CSV = "row,a,b\ninitial,1,2\na,6,3\nb,5,7\ndirectft,6.5,7.5\n"
SCORES = [[1.0, 2.0], [6.0, 3.0], [5.0, 7.0]]


def test_json_and_csv_say_the_same():
    assert (
        ImportedMatrix.from_json(JSON) == ImportedMatrix.from_csv(CSV) == ImportedMatrix(["a", "b"], SCORES, [6.5, 7.5])
    )


def test_initial_and_directft_rows_are_optional():
    imported = ImportedMatrix.from_csv(",a,b\nafter 1,6,3\nafter 2,5,7\n")
    assert imported == ImportedMatrix(["a", "b"], [[None, None], *SCORES[1:]], None)
    assert ImportedMatrix.from_json({"tasks": ["a", "b"], "rows": ["a", "b"], "scores": SCORES[1:]}) == imported


def test_cells_that_were_not_evaluated():
    assert ImportedMatrix.from_csv('"",a , b\n a , 6,\n\nb,nan,7\n').scores[1:] == [[6.0, None], [None, 7.0]]
    nan = float("nan")
    assert ImportedMatrix.from_json(JSON | {"scores": [[1, None], [6, nan], [5, 7]]}).scores[:2] == [
        [1.0, None],
        [6.0, None],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("row\n", "every column needs a task name"),
        ("row,a,\na,1,2\nb,3,4\n", "every column needs a task name"),
        ("row,a,a\na,1,2\nb,3,4\n", "every column needs a task name of its own"),
        ("row,a,b\na,1,2\nb,3\n", r"row 'b' has 1 scores; there are 2 tasks \(a, b\)"),
        ("row,a,b\na,1,2,3\nb,3,4\n", "row 'a' has 3 scores"),
        ("row,a,b\na,1,2\nb,3,good\n", "row 'b', column 'b': 'good' is not a finite number"),
        ("row,a,b\na,1,2\nb,3,inf\n", "row 'b', column 'b': inf is not a finite number"),
        ("row,a,b\na,1,2\n", r"not square: 2 tasks \(a, b\) need one row each .* found 1"),
        ("row,a,b\na,1,2\nb,3,4\nc,5,6\n", "found 3"),
        ("row,a,b\nb,1,2\na,3,4\n", "the rows come in the order b, a"),
        ("row,a\ninitial,1\ninitial,1\na,2\n", "one row 'initial'"),
    ],
)
def test_a_wrong_table_is_refused_with_its_file(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_csv(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": [[1, 2], [6, 3]]}, "'scores' has 2 rows, 'rows' names 3"),
        ({"scores": [[1, 2], [6, 3], 5]}, "row 'b' has 5"),
        ({"scores": [[1, 2], [6, 3], [5, "7"]]}, "row 'b', column 'b': '7' is not a finite number"),
        ({"scores": [[1, 2], [6, 3], [5, True]]}, "column 'b': True is not"),
        ({"scores": [[1, 2], [6, 3], [5, 10**400]]}, "column 'b': 10"),
        ({"directft": [1]}, "row 'directft' has 1 scores"),
        ({"tasks": []}, "row 'initial' has 2 scores; there are 0 tasks"),
        ({"rows": "abc"}, "'rows' must be a list of names"),
    ],
)
def test_a_wrong_document_is_refused(changed, message):
    with pytest.raises(UserError, match=message):
        ImportedMatrix.from_json(JSON | changed)


def test_a_document_without_the_fields_is_refused():
    with pytest.raises(UserError, match="'tasks' is missing"):
        ImportedMatrix.from_json({})
    with pytest.raises(UserError, match="one JSON object"):
        ImportedMatrix.from_json([1])


def test_the_examples_run():
    for module in (matrix_import, checked_json):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0
