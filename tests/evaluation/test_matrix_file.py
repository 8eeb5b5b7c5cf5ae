import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.matrix import summarize
from avalanche_cit.evaluation.matrix_file import MatrixFile

CELLS = [[70.0, 10.0, 20.0], [75.0, 60.0, 30.0], [65.0, 50.0, 70.0]]

SEQUENCE = MatrixFile(
    kind="sequence",
    benchmark="mini",
    strategy="seqft",
    model="tiny-instruct",
    seed=3,
    tasks=["old", "a", "b"],
    task0=["old"],
    scores_by=["vqa_accuracy", "exact_match", "cider_x10"],
    rows=["initial", "a", "b"],
    scores=CELLS,
    other_scores={"token_f1": CELLS},
    complete=True,
)
DIRECT = replace(SEQUENCE, kind="independent", strategy="directft")
JOINT = replace(
    SEQUENCE, kind="joint", strategy="jointft", rows=["initial", "joint"], scores=CELLS[:2], other_scores={}
)


def document(**changed):
    return SEQUENCE.to_json() | changed


def test_summary_is_over_the_sequence_alone():
    assert SEQUENCE.sequence == ["a", "b"]
    np.testing.assert_array_equal(SEQUENCE.matrix, [[10, 20], [60, 30], [50, 70]])
    assert SEQUENCE.summary() == summarize([[10, 20], [60, 30], [50, 70]])
    assert SEQUENCE.summary()["intransigence"] is None
    assert SEQUENCE.summary([65.0, 75.0])["intransigence"] == 5.0


def test_summary_relative_to_directft():
    numbers = SEQUENCE.summary_relative([100.0, 50.0])
    assert numbers["average_accuracy"] == 95.0  # (50 + 140) / 2
    assert numbers["intransigence"] == 0.0  # 100 - (60 + 140) / 2


def test_summary_task0():
    assert SEQUENCE.summary_task0() == {"average_last": 65.0, "forgetting": 10.0}
    assert JOINT.summary_task0() == {"average_last": 75.0, "forgetting": -5.0}
    assert DIRECT.summary_task0() == {"average_last": None, "forgetting": None}
    without = replace(
        SEQUENCE, task0=[], tasks=["a", "b"], scores_by=["x"] * 2, scores=[r[1:] for r in CELLS], other_scores={}
    )
    assert without.summary_task0() is None
    hole = replace(SEQUENCE, scores=[[None, 10.0, 20.0], *CELLS[1:]])
    assert hole.summary_task0() == {"average_last": 65.0, "forgetting": None}


def test_directft_has_mft_only_and_gives_direct_scores():
    assert {name: number for name, number in DIRECT.summary().items() if number is not None} == {"mft": 65.0}
    assert DIRECT.direct() == [60.0, 70.0]
    with pytest.raises(UserError, match="kind sequence has no DirectFT"):
        SEQUENCE.direct()


def test_jointft_has_average_accuracy_only():
    assert {name: number for name, number in JOINT.summary().items() if number is not None} == {
        "average_accuracy": 45.0
    }


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_run_that_is_going_on_is_written_and_read(tmp_path, rows):
    for whole in (SEQUENCE, DIRECT, JOINT):
        going_on = replace(whole, rows=whole.rows[:rows], scores=whole.scores[:rows], other_scores={}, complete=False)
        going_on.write(tmp_path)
        assert MatrixFile.read(tmp_path / "matrix.json") == going_on
        assert going_on.summary()["bwt_gem"] is None
        assert going_on.summary_task0() == {"average_last": None, "forgetting": None}
    unfinished = replace(SEQUENCE, rows=SEQUENCE.rows[:2], scores=CELLS[:2], other_scores={}, complete=False)
    assert {name: n for name, n in unfinished.summary().items() if n is not None} == {"fwt_gem": 10.0}


def test_written_file_reads_back_equal_and_holds_the_contract(tmp_path):
    SEQUENCE.write(tmp_path)
    assert MatrixFile.read(tmp_path / "matrix.json") == SEQUENCE
    written = json.loads((tmp_path / "matrix.json").read_text())
    assert list(written) == [
        "schema_version", "kind", "benchmark", "strategy", "model", "seed", "tasks", "task0", "scores_by", "rows",
        "scores", "other_scores", "summary", "summary_task0", "complete",
    ]  # fmt: skip
    assert written["schema_version"] == 1
    assert written["summary"] == SEQUENCE.summary()
    assert written["summary_task0"] == SEQUENCE.summary_task0()
    assert "summary_relative" in SEQUENCE.to_json(direct=[65.0, 75.0])


def test_the_summary_in_a_file_is_not_believed(tmp_path):
    (tmp_path / "matrix.json").write_text(json.dumps(document(summary={"bwt_gem": 99.0})))
    assert MatrixFile.read(tmp_path / "matrix.json").summary()["bwt_gem"] == -10.0


def test_csv_beside_it(tmp_path):
    going_on = replace(
        SEQUENCE, rows=["initial", "a"], scores=[[70.0, None, 20.5], CELLS[1]], other_scores={}, complete=False
    )
    replace(going_on, tasks=["old", "a", "b, c"]).write(tmp_path)
    with (tmp_path / "matrix.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["row", "old", "a", "b, c"],
            ["initial", "70.0", "", "20.5"],
            ["a", "75.0", "60.0", "30.0"],
        ]


def test_whoever_reads_while_a_file_is_written_sees_the_old_one_whole(tmp_path):
    SEQUENCE.write(tmp_path)
    before = (tmp_path / "matrix.json").read_text()
    with (tmp_path / "matrix.json").open() as reader:
        replace(SEQUENCE, seed=4).write(tmp_path)
        assert reader.read() == before
    assert MatrixFile.read(tmp_path / "matrix.json").seed == 4


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    SEQUENCE.write(tmp_path)
    before = (tmp_path / "matrix.json").read_bytes()

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        replace(SEQUENCE, seed=4).write(tmp_path)
    assert (tmp_path / "matrix.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matrix.csv", "matrix.json"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "other"}, "'kind' is 'other'; it must be one of sequence, independent, joint"),
        ({"schema_version": 2}, "'schema_version' is 2"),
        ({"seed": True}, "'seed' must be a whole number, not 'True'"),
        ({"tasks": ["old", "a", 3]}, "'tasks' must be a list of names"),
        ({"tasks": ["old", "a", "a"]}, "'tasks' names a task twice"),
        ({"tasks": ["a", "b", "old"]}, "'tasks' must list task 0's members"),
        ({"task0": ["old", "a", "b"]}, "then at least one task"),
        ({"scores_by": ["x"]}, "'scores_by' has 1 names for 3 tasks"),
        ({"rows": ["initial", "b", "a"]}, "'rows' is"),
        ({"rows": ["initial", "a"], "scores": CELLS[:2]}, "'complete' is true, but row 'b' is missing"),
        ({"scores": CELLS[:2]}, "'scores' must hold one list per row"),
        ({"scores": [*CELLS[:2], [1, 2]]}, "'scores': row 'b' must hold 3 numbers or nulls"),
        ({"scores": [*CELLS[:2], [1, 2, "3"]]}, "'scores': row 'b', column 'b': '3' is not a finite number"),
        ({"scores": [*CELLS[:2], [1, True, 3]]}, "'scores': row 'b', column 'a': True is not a finite number"),
        ({"scores": [*CELLS[:2], [1, float("nan"), 3]]}, "column 'a': nan is not a finite number"),
        ({"other_scores": {"token_f1": CELLS[:1]}}, "'token_f1' must hold one list per row"),
        ({"complete": "yes"}, "'complete' must be true or false"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path, changed, message):
    path = tmp_path / "matrix.json"
    path.write_text(json.dumps(document(**changed)))
    with pytest.raises(UserError) as error:
        MatrixFile.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "field", ["kind", "benchmark", "strategy", "model", "seed", "tasks", "rows", "scores", "complete"]
)
def test_a_missing_field_is_named(field):
    with pytest.raises(UserError, match=f"'{field}' is missing"):
        MatrixFile.from_json({name: value for name, value in document().items() if name != field})


def test_files_that_are_no_json(tmp_path):
    path = tmp_path / "matrix.json"
    with pytest.raises(UserError, match="no such file"):
        MatrixFile.read(path)
    path.write_text('{"kind": "sequence",\n "seed": }')
    with pytest.raises(UserError, match=r"broken JSON in line 2, column 10"):
        MatrixFile.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        MatrixFile.read(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="one JSON object"):
        MatrixFile.read(path)
    with pytest.raises(UserError, match="cannot be read"):
        MatrixFile.read(tmp_path)
