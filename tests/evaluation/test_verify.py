"""Verifying runs: real ones agree, and whatever is altered in them is named; broken files are one clear line."""

import csv
import json
import random
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.verify import MOST, verify_run
from avalanche_cit.run_config import RunConfig
from avalanche_cit.runner import run

TINY = {"train_samples": 16, "validation_samples": 4, "test_samples": 6, "epochs": 1, "batch_size": 8, "threads": 1}
RUNS = {
    "mini_cit1": {"strategy": "seqft", "benchmark": "mini_cit1"},
    "eproj": {"strategy": "eproj", "model": "tiny-instruct"},  # with task 0, routing accuracy and oracle
    "directft": {"strategy": "directft"},
    "jointft": {"strategy": "jointft"},
    "validation": {"strategy": "seqft", "stream": "validation"},
}
PLACES = range(4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Carry out one of the runs, once; two tasks and a member of task 0 where nothing else is said."""
    about = {"name": "short", "version": 1, "description": "Two tasks.", "drawn_by": "mini"}
    definitions = str(resources.files("avalanche_cit.benchmarks") / "mini" / "definitions.yaml")
    short = tmp_path_factory.mktemp("benchmark") / "short.yaml"
    tasks = {"tasks": ["vqav2", "flickr30k"], "task0": ["ocrvqa"]}
    short.write_text(yaml.safe_dump({**about, **tasks, "definitions": definitions}))
    output = tmp_path_factory.mktemp("runs")

    def made(name: str) -> Path:
        folder = output / name
        if not folder.exists():
            run(RunConfig(**{"benchmark": str(short), **RUNS[name], **TINY}), folder)
        return folder

    return made


@pytest.fixture
def copy(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copy one of the runs, to alter it."""
    return lambda name: Path(shutil.copytree(made(name), tmp_path / name))


def cells(folder: Path) -> list[tuple[str, str]]:
    return sorted((path.parent.name, path.stem) for path in folder.glob("predictions/*/*.jsonl"))


def name_of(cell: tuple[str, str]) -> str:
    return f"predictions/{cell[0]}/{cell[1]}.jsonl"


def rewrite(file: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    change(records)
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def rewrite_json(file: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


def altered(folder: Path, place: int, change: Callable[[dict[str, Any]], object]) -> str:
    """Change a record drawn at random; returns its name, as a problem begins with it."""
    draw = random.Random(place)
    cell = draw.choice(cells(folder))
    index = draw.randrange(TINY["test_samples"])
    seen = []

    def at(records: list[dict[str, Any]]) -> None:
        seen.append(records[index]["id"])
        change(records[index])

    rewrite(folder / name_of(cell), at)
    return f"{name_of(cell)}, line {index + 1}, id {seen[0]!r}: "


@pytest.mark.parametrize("name", RUNS)
def test_a_run_agrees(made: Callable[[str], Path], name: str) -> None:
    folder = made(name)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert verify_run(folder) == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["mini_cit1", "eproj"])
def test_an_altered_prediction_is_named(copy: Callable[[str], Path], name: str, place: int) -> None:
    def change(record: dict[str, Any]) -> None:
        record["prediction"] = record["references"][0] if record["score"] < 30 else "zzz"

    folder = copy(name)
    record = altered(folder, place, change)
    problems = verify_run(folder)
    assert sum(problem.startswith(f"{record}the score ") for problem in problems) == 1
    assert all(problem.startswith((record, "matrix.json: ")) for problem in problems)
    assert any(problem.startswith("matrix.json: 'scores', row ") for problem in problems)


@pytest.mark.parametrize("place", PLACES)
def test_an_altered_score_is_named_with_both_numbers(copy: Callable[[str], Path], place: int) -> None:
    scores = []

    def change(record: dict[str, Any]) -> None:
        scores.append(record["score"])
        record["score"] += 0.001

    folder = copy("mini_cit1")
    record = altered(folder, place, change)
    expected = f"{record}the score {scores[0] + 0.001:.12g} is stored, {scores[0]:.12g} computed"
    assert verify_run(folder) == [expected]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("field", ["references", "instruction"])
def test_a_reference_altered_in_one_row_is_named(copy: Callable[[str], Path], field: str, place: int) -> None:
    """Even where the scores are as before: the same sample stands in the other rows."""

    def change(record: dict[str, Any]) -> None:
        record[field] = [*record[field], "zzz"] if field == "references" else record[field] + "?"

    folder = copy("mini_cit1")
    record = altered(folder, place, change)
    assert f"{record}'{field}' is not that of predictions/" in "\n".join(verify_run(folder))


@pytest.mark.parametrize("place", PLACES)
def test_a_missing_line_is_named(copy: Callable[[str], Path], place: int) -> None:
    folder = copy("mini_cit1")
    cell = random.Random(place).choice(cells(folder))
    gone = []
    rewrite(folder / name_of(cell), lambda records: gone.append(records.pop(place)["id"]))
    problems = verify_run(folder)
    assert f"{name_of(cell)}: holds 5 answers, provenance.json says 6" in problems
    assert next(p for p in problems if "has no id" in p).startswith(f"{name_of(cell)}: has no id {gone[0]!r}, which ")


def test_a_line_missing_in_every_row_is_counted(copy: Callable[[str], Path]) -> None:
    folder = copy("validation")
    (cell,) = (cell for cell in cells(folder) if cell[1] == "vqav2")
    rewrite(folder / name_of(cell), list.pop)
    assert f"{name_of(cell)}: holds 3 answers, provenance.json says 4" in verify_run(folder)


@pytest.mark.parametrize("place", PLACES)
def test_a_line_that_stands_twice_is_named(copy: Callable[[str], Path], place: int) -> None:
    folder = copy("eproj")
    cell = random.Random(place).choice(cells(folder))
    twice = json.loads((folder / name_of(cell)).read_text().splitlines()[place])["id"]
    rewrite(folder / name_of(cell), lambda records: records.append(records[place]))
    problems = verify_run(folder)
    assert f"{name_of(cell)}, line 7, id {twice!r}: stands in line {place + 1} already" in problems
    assert f"{name_of(cell)}: holds 7 answers, provenance.json says 6" in problems


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["mini_cit1", "eproj"])
def test_an_altered_cell_is_named(copy: Callable[[str], Path], name: str, place: int) -> None:
    """Of the matrix and of each score beside it; the table beside the matrix differs from it then, too."""
    folder, draw = copy(name), random.Random(place)
    changed = []

    def change(document: dict[str, Any]) -> None:
        for field, table in {"scores": document["scores"], **document["other_scores"]}.items():
            filled = [(i, j) for i, row in enumerate(table) for j, cell in enumerate(row) if cell is not None]
            row, column = draw.choice(filled)
            before = table[row][column]
            table[row][column] = before + 0.01 if place % 2 else None
            after = f"{before + 0.01:.12g}" if place % 2 else "null"
            where = f"row '{document['rows'][row]}', task '{document['tasks'][column]}'"
            changed.append((field, where, f"{after} is stored, {before:.12g} computed"))

    rewrite_json(folder / "matrix.json", change)
    problems = verify_run(folder)
    assert [p for p in problems if "matrix.csv" not in p] == [f"matrix.json: '{f}', {w}: {n}" for f, w, n in changed]
    assert next(p for p in problems if "matrix.csv" in p).startswith(f"matrix.csv: {changed[0][1]}: ")
    if name == "eproj":
        assert {"routing_accuracy", "oracle_vqa_accuracy"} <= {field for field, _, _ in changed}


@pytest.mark.parametrize("name", ["eproj", "directft", "jointft"])
def test_every_altered_summary_number_is_named(copy: Callable[[str], Path], name: str) -> None:
    folder = copy(name)
    document = json.loads((folder / "matrix.json").read_text(encoding="utf-8"))
    for field in ("summary", "summary_task0"):
        for key, before in (document[field] or {}).items():
            stored = 1.5 if before is None else None if key == "mft" else before - 0.01
            shown = ["null" if number is None else f"{number:.12g}" for number in (stored, before)]
            altered_document = {**document, field: {**document[field], key: stored}}
            (folder / "matrix.json").write_text(json.dumps(altered_document))
            assert verify_run(folder) == [f"matrix.json: '{field}', '{key}': {shown[0]} is stored, {shown[1]} computed"]
    assert (document["summary_task0"] is not None) == (name == "eproj")


@pytest.mark.parametrize("place", PLACES)
def test_an_altered_field_of_the_table_is_named(copy: Callable[[str], Path], place: int) -> None:
    folder, draw = copy("mini_cit1"), random.Random(place)
    with (folder / "matrix.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    row, column = draw.randrange(1, len(lines)), draw.randrange(1, len(lines[0]))
    before = lines[row][column]
    lines[row][column] = after = ["", "71.25", "nan", "x"][place]
    (folder / "matrix.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    where = f"row '{lines[row][0]}', task '{lines[0][column]}'"
    expected = f"matrix.csv: {where}: {after or 'nothing'} is stored, matrix.json has {before}"
    assert verify_run(folder) == [expected]


def test_a_table_of_other_rows_and_columns(copy: Callable[[str], Path]) -> None:
    folder = copy("directft")
    text = (folder / "matrix.csv").read_text()
    for other in ("", text.replace("initial", "start"), text.replace("vqav2", "gqa", 1), text + "more,1,2\n"):
        (folder / "matrix.csv").write_text(other)
        assert verify_run(folder) == ["matrix.csv: its rows and columns are not those of matrix.json"]


def test_altered_routing_is_seen(copy: Callable[[str], Path]) -> None:
    folder = copy("eproj")
    file = folder / "predictions" / "flickr30k" / "vqav2.jsonl"

    def misroute(records: list[dict[str, Any]]) -> None:
        records[0]["expert"] = records[0]["right"] + (records[0]["expert"] == records[0]["right"])
        records[1]["oracle"] = records[1]["references"][0] if records[1]["oracle"] in ("zzz", "") else "zzz"

    rewrite(file, misroute)
    where = "row 'flickr30k', task 'vqav2': "
    assert any(p.startswith(f"matrix.json: 'routing_accuracy', {where}") for p in verify_run(folder))

    rewrite(file, lambda records: records[0].update(right=None))
    problems = verify_run(folder)
    for name in ("routing_accuracy", "oracle_vqa_accuracy"):
        (problem,) = (p for p in problems if p.startswith(f"matrix.json: '{name}', {where}"))
        assert problem.endswith(" is stored, null computed")


def test_files_that_are_missing_or_too_many(copy: Callable[[str], Path]) -> None:
    folder = copy("mini_cit1")
    (folder / "predictions" / "gqa" / "vqav2.jsonl").unlink()
    shutil.copy(folder / "predictions" / "initial" / "gqa.jsonl", folder / "predictions" / "gqa" / "other.jsonl")
    assert verify_run(folder) == [
        "predictions/gqa/vqav2.jsonl: is missing, though matrix.json has its score",
        "predictions/gqa/other.jsonl: belongs to no cell of matrix.json",
    ]


def test_of_an_unfinished_run_what_is_there_agrees(copy: Callable[[str], Path]) -> None:
    """The matrix is written after a whole row; the answers of the next one lie there before."""
    folder = copy("mini_cit1")

    def cut(document: dict[str, Any]) -> None:
        for table in (document["rows"], document["scores"], *document["other_scores"].values()):
            del table[2:]
        document["summary"] = dict.fromkeys(document["summary"])
        document["complete"] = False

    rewrite_json(folder / "matrix.json", cut)
    (folder / "matrix.csv").write_text("\n".join((folder / "matrix.csv").read_text().splitlines()[:3]) + "\n")
    assert sum("belongs to no cell" in problem for problem in verify_run(folder)) == 4 * 5
    (folder / "provenance.json").unlink()
    assert verify_run(folder) == []


def test_many_wrong_scores_are_summed_up(tmp_path: Path) -> None:
    number = MOST + 3
    folder = by_hand(tmp_path / "run", [0.5] * number)
    problems = verify_run(folder)
    assert problems[0] == "predictions/initial/a.jsonl, line 1, id 0: the score 0.5 is stored, 100 computed"
    assert problems[MOST] == "predictions/initial/a.jsonl: the scores of 3 further answers differ too"
    assert len(problems) == MOST + 1


# --- Broken files -----------------------------------------------------------------------------------------------------


def by_hand(folder: Path, scores: list[float]) -> Path:
    """A run with one task, of whose answers all are right and have the given scores."""
    (folder / "predictions" / "initial").mkdir(parents=True)
    answer = {"instruction": "?", "prediction": "red", "references": ["red"]}
    lines = [json.dumps({"id": i, **answer, "score": score}) for i, score in enumerate(scores)]
    (folder / "predictions" / "initial" / "a.jsonl").write_text("\n".join(lines))
    beside = {name: [[100.0]] for name in ("exact_match_tolerant", "instruction_following", "token_f1")}
    (folder / "matrix.json").write_text(
        json.dumps(
            {
                **{"schema_version": 1, "kind": "sequence", "benchmark": "b", "strategy": "seqft", "model": "m"},
                **{"seed": 0, "tasks": ["a"], "task0": [], "scores_by": ["exact_match"], "rows": ["initial"]},
                **{"scores": [[100.0]], "other_scores": beside, "summary": {}, "summary_task0": None},
                "complete": False,
            }
        )
    )
    (folder / "matrix.csv").write_text("row,a\ninitial,100.0\n")
    return folder


GOOD = '{"id": 1, "prediction": "a", "references": ["b"], "score": 0}\n'
ANSWERS = "predictions/initial/a.jsonl"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("matrix.json", "", "broken JSON in line 1"),
        ("matrix.json", "[" * 100_000, "not readable as JSON"),
        ("matrix.json", "{}", "'schema_version' is None"),
        ("matrix.json", b"\xff\xfe\x00", "not a text file in UTF-8"),
        ("matrix.json", None, "no such file"),
        ("matrix.csv", None, "no such file"),
        ("matrix.csv", f'row,"{"a" * 200_000}"', "cannot be read as CSV"),
        ("config.yaml", "a: [", "config.yaml"),
        ("provenance.json", "[]", "must hold one JSON object"),
        ("provenance.json", "{}", "'data' is missing"),
        ("provenance.json", '{"data": {"a": {"test": "many samples"}}}', "must begin with a number of samples"),
        (ANSWERS, "", "holds no answer"),
        (ANSWERS, f"{GOOD}\n{GOOD[:30]}", "line 3: broken JSON"),
        (ANSWERS, GOOD.replace("0}", "null}"), "line 1: 'score' must be a number, not 'None'"),
        (ANSWERS, GOOD.replace("0}", "NaN}"), "line 1: 'score' must be a number, not 'nan'"),
        (ANSWERS, GOOD.replace("0}", '0, "right": 1, "expert": 1}'), "line 1: 'oracle' is missing"),
        (ANSWERS, GOOD.replace('["b"]', "[]"), "line 1: 'references' must be a list of at least one text"),
    ],
)
def test_broken_files_are_one_clear_line(tmp_path: Path, name: str, text: str | bytes | None, message: str) -> None:
    folder = by_hand(tmp_path / "run", [100.0])
    assert verify_run(folder) == []
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as caught:
        verify_run(folder)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; give a run directory"):
        verify_run(tmp_path / "run")
    shutil.rmtree(by_hand(tmp_path / "run", [100.0]) / "predictions")
    with pytest.raises(UserError, match="has no folder 'predictions'"):
        verify_run(tmp_path / "run")
    (tmp_path / "run" / "matrix.json").unlink()
    with pytest.raises(UserError, match=r"matrix\.json: no such file"):
        verify_run(tmp_path / "run")


@pytest.mark.parametrize(("change", "message"), [({"scores_by": ["exact"]}, "exact"), ({"summary": [1]}, "'summary'")])
def test_a_matrix_that_says_what_cannot_be(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = by_hand(tmp_path / "run", [100.0])
    rewrite_json(folder / "matrix.json", lambda document: document.update(change))
    with pytest.raises(UserError, match=message):
        verify_run(folder)
