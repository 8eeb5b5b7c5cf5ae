"""Verifying runs: real ones agree, and whatever is altered in them is named; broken files are one clear line."""

import csv
import json
import random
import re
import shutil
from collections.abc import Callable
from functools import reduce
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.predictions_file import digest_of, read_predictions
from avalanche_cit.evaluation.verify import MOST, verify_run, without_digests
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
    return lambda name: Path(shutil.copytree(made(name), tmp_path / "altered" / name))


def cells(folder: Path) -> list[tuple[str, str]]:
    return sorted((path.parent.name, path.stem) for path in folder.glob("predictions/*/*.jsonl"))


def name_of(cell: tuple[str, str]) -> str:
    return f"predictions/{cell[0]}/{cell[1]}.jsonl"


def rewrite(file: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    change(records)
    file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


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
    assert sum(problem.startswith(f"{record}the digest ") for problem in problems) == 1
    assert all(problem.startswith((record, "matrix.json: ")) for problem in problems)
    assert any(problem.startswith("matrix.json: 'scores', row ") for problem in problems)


@pytest.mark.parametrize("place", PLACES)
def test_an_altered_score_is_named_with_both_numbers(copy: Callable[[str], Path], place: int) -> None:
    scores = []

    def change(record: dict[str, Any]) -> None:
        scores.append(record["score"])
        record["score"] += 0.001
        record["digest"] = digest_of(record)

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
        record["digest"] = digest_of(record)

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


# --- Records that are not as they were written ------------------------------------------------------------------------


def wrong_digests(problems: list[str]) -> list[str]:
    return [problem.split(": the digest ")[0] + ": " for problem in problems if ": the digest " in problem]


def test_a_digest_is_the_crc_of_the_other_fields() -> None:
    by_hand = '{"a":[1,100.0,null],"id":"é"}'.encode()
    crc = reduce(lambda crc, byte: _crc_step(crc, byte), by_hand, 0xFFFFFFFF) ^ 0xFFFFFFFF
    for record in ({"id": "é", "a": [1, 100.0, None]}, {"a": [1, 100.0, None], "digest": "00000000", "id": "é"}):
        assert digest_of(record) == f"{crc:08x}"
    assert len({digest_of({"a": value}) for value in (1, 1.0, "1", True, None, [1], "\ud800")}) == 7


def _crc_step(crc: int, byte: int) -> int:
    crc ^= byte
    for _ in range(8):
        crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc


@pytest.mark.parametrize("name", RUNS)
def test_every_record_of_a_run_has_its_digest(made: Callable[[str], Path], name: str) -> None:
    folder = made(name)
    lines = [line for cell in cells(folder) for line in (folder / name_of(cell)).read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    assert [record["digest"] for record in records] == [digest_of(record) for record in records]
    assert without_digests(folder) == []


def other(value: Any) -> Any:
    """Alter a value as little as can be, and keep its type."""
    if isinstance(value, list):
        return [*value[:-1], other(value[-1])]
    if isinstance(value, str):
        return value + " "
    return value + (1e-9 if isinstance(value, float) else 1)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        *(("mini_cit1", field) for field in ("id", "instruction", "prediction", "references", "score", "digest")),
        *(("eproj", field) for field in ("prediction", "expert", "right", "oracle")),
    ],
)
def test_every_altered_field_is_named(copy: Callable[[str], Path], name: str, field: str) -> None:
    """In one record of every file, though some changes are too small for any score."""
    folder = copy(name)
    altered_records = []
    for place, cell in enumerate(cells(folder)):
        line = place % TINY["test_samples"]

        def change(records: list[dict[str, Any]], cell: tuple[str, str] = cell, line: int = line) -> None:
            record = records[line]
            if record.get(field) is not None:  # what is routed before the first task has no right expert
                record[field] = other(record[field])
                altered_records.append(f"{name_of(cell)}, line {line + 1}, id {record['id']!r}: ")

        rewrite(folder / name_of(cell), change)
    assert len(altered_records) >= len(cells(folder)) / 2
    assert sorted(wrong_digests(verify_run(folder))) == sorted(altered_records)


@pytest.mark.parametrize("field", ["id", "prediction", "references", "score", "digest"])
def test_a_field_that_is_gone_or_new_is_named(copy: Callable[[str], Path], field: str) -> None:
    """Also a field that scores do not read; without one that they need, the file cannot be read."""
    folder = copy("mini_cit1")
    file = folder / name_of(cells(folder)[0])
    before = file.read_text(encoding="utf-8")
    rewrite(file, lambda records: records[2].pop(field))
    if field == "digest":
        assert wrong_digests(verify_run(folder)) == [f"{name_of(cells(folder)[0])}, line 3, id {third(before)!r}: "]
    else:
        with pytest.raises(UserError, match=f"{re.escape(str(file))}, line 3: .*'{field}'"):
            verify_run(folder)
    file.write_text(before, encoding="utf-8")
    rewrite(file, lambda records: records[2].update({f"{field}2": records[2][field]}))
    assert wrong_digests(verify_run(folder)) == [f"{name_of(cells(folder)[0])}, line 3, id {third(before)!r}: "]


def third(text: str) -> str:
    name: str = json.loads(text.splitlines()[2])["id"]
    return name


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_altered_is_named(
    made: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any value in any field, also a new one, of any record; a value that cannot stand there is named just so."""
    folder = tmp_path_factory.getbasetemp() / "altered-at-random"
    if not folder.exists():
        shutil.copytree(made("eproj"), folder)
    cell = data.draw(st.sampled_from(cells(folder)))
    file = folder / name_of(cell)
    before = file.read_text(encoding="utf-8")
    records = [json.loads(line) for line in before.splitlines()]
    line = data.draw(st.integers(0, len(records) - 1))
    record = records[line]
    field = data.draw(st.sampled_from(sorted(record)) | st.text(st.characters(codec="utf-8"), max_size=5))
    alike = {str: st.text(st.characters(codec="utf-8")), float: st.floats(0, 100), int: st.integers(0, 3)}
    value = data.draw(VALUES | alike.get(type(record.get(field)), VALUES))
    same = field in record and json.dumps(record[field]) == json.dumps(value)
    record[field] = value
    file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    problems = problems_of(folder)
    file.write_text(before, encoding="utf-8")
    place = f"{name_of(cell)}, line {line + 1}"
    named = (f"{place}, id {record['id']!r}: the digest ", f"{place}: ")
    assert sum(problem.startswith(named) for problem in problems) == (0 if same else 1)
    assert problems == [] or not same


def problems_of(folder: Path) -> list[str]:
    """What is wrong with a run, also where it cannot be read."""
    try:
        return verify_run(folder)
    except UserError as error:
        return [str(error).removeprefix(f"{folder}/")]


@pytest.mark.parametrize("name", ["mini_cit1", "jointft"])
@pytest.mark.parametrize("place", PLACES)
def test_swapped_lines_are_named(copy: Callable[[str], Path], name: str, place: int) -> None:
    folder, draw = copy(name), random.Random(place)
    cell = draw.choice([cell for cell in cells(folder) if cell[0] != "initial"])
    one, two = sorted(draw.sample(range(TINY["test_samples"]), 2))
    names = [json.loads(line)["id"] for line in (folder / name_of(cell)).read_text().splitlines()]

    def swap(records: list[dict[str, Any]]) -> None:
        records[one], records[two] = records[two], records[one]

    rewrite(folder / name_of(cell), swap)
    initial = name_of(("initial", cell[1]))
    assert verify_run(folder) == [
        f"{name_of(cell)}, line {one + 1}, id {names[two]!r}: stands where {initial} has id {names[one]!r}",
        f"{name_of(cell)}, line {two + 1}, id {names[one]!r}: stands where {initial} has id {names[two]!r}",
    ]


def test_many_wrong_digests_are_summed_up(tmp_path: Path) -> None:
    folder = by_hand(tmp_path / "run", [100.0] * (MOST + 3))
    rewrite(folder / ANSWERS, lambda records: [record.update(digest="0") for record in records])
    problems = verify_run(folder)
    digest = digest_of(json.loads((folder / ANSWERS).read_text().splitlines()[0]))
    assert problems[0] == f"{ANSWERS}, line 1, id 0: the digest '0' is stored, {digest!r} computed"
    assert problems[MOST:] == [f"{ANSWERS}: the digests of 3 further answers differ too"]


def test_files_of_an_older_version_agree_and_are_noted(copy: Callable[[str], Path]) -> None:
    """Their answers are scored and compared as before; one record alone without its digest is a problem instead."""
    folder = copy("jointft")
    answers = [read_predictions(folder / name_of(cell)) for cell in cells(folder)]
    for cell in cells(folder):
        rewrite(folder / name_of(cell), lambda records: [record.pop("digest") for record in records])
    assert verify_run(folder) == []
    said = "has no digests: written by an older version; alterations of answers that leave their scores as they were"
    assert without_digests(folder) == [f"{name_of(cell)}: {said} are not seen" for cell in cells(folder)]
    assert [read_predictions(folder / name_of(cell)) for cell in cells(folder)] == answers

    file = folder / name_of(cells(folder)[0])
    rewrite(file, lambda records: records[0].update(digest=digest_of(records[0])))
    assert len(wrong_digests(verify_run(folder))) == TINY["test_samples"] - 1
    assert len(without_digests(folder)) == len(cells(folder)) - 1


def test_the_check_after_every_test_sees_what_is_altered(
    made: Callable[[str], Path], tmp_path: Path, disagreements: Callable[[Path], list[str]]
) -> None:
    folder = tmp_path / "altered" / "outputs" / "run"
    shutil.copytree(made("jointft"), folder)
    assert disagreements(tmp_path / "altered") == []
    again = shutil.copytree(folder, tmp_path / "altered" / "again")
    rewrite_json(again / "matrix.json", lambda document: document["scores"][1].__setitem__(0, 12.5))
    assert disagreements(tmp_path) == []
    (problem, *_) = disagreements(tmp_path / "altered")
    assert problem.startswith(f"{again}: matrix.json: 'scores', row 'joint', task '")
    unfinished = shutil.copytree(again, tmp_path / "altered" / "unfinished")
    (unfinished / "provenance.json").unlink()
    assert disagreements(tmp_path / "altered") == []


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
        (ANSWERS, GOOD.replace("0}", f'0, "digest": "", "x": {"[" * 5000}{"]" * 5000}}}'), "line 1: not readable as"),
    ],
)
def test_broken_files_are_one_clear_line(tmp_path: Path, name: str, text: str | bytes | None, message: str) -> None:
    folder = by_hand(tmp_path / "altered", [100.0])
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
