"""The doctor: every kind of problem is found, counted, and named with its file, a record and the mend."""

import hashlib
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from avalanche_cit.benchmarks.benchmark_file import TaskDefinition
from avalanche_cit.benchmarks.doctor import (
    Problem,
    TaskReport,
    checksum,
    examine_task,
    exit_status,
    lengths,
    missing_files,
)
from avalanche_cit.benchmarks.load import load_task
from avalanche_cit.evaluation.scores import SCORES

Questions = dict[str, dict[str, str]]


class Data:
    """A task of GQA in a folder: two samples a split, each on an image of its own, nothing wrong with any."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "images").mkdir()
        for number, split in enumerate(("train", "validation", "test")):
            for i in range(2):
                Image.new("RGB", (8, 8), (100 * i, 50 * number, 0)).save(root / "images" / f"{split}{i}.png")
            self.write(split, {f"q{i}": self.question(f"{split}{i}") for i in range(2)})
        files = {"images": "images", "image_pattern": "{image_id}.png"}
        self.definition = TaskDefinition(
            name="vqa",
            reader="gqa",
            prompt="Question: {question}",
            score="exact_match",
            max_new_tokens=3,
            splits={split: {**files, "annotations": f"{split}.json"} for split in ("train", "validation", "test")},
        )

    @staticmethod
    def question(image: str, question: str = "what?", answer: str = "red") -> dict[str, str]:
        return {"imageId": image, "question": question, "answer": answer}

    def write(self, split: str, questions: Questions) -> None:
        (self.root / f"{split}.json").write_text(json.dumps(questions), encoding="utf-8")

    def change(self, split: str, record: str, **fields: str) -> None:
        questions = json.loads((self.root / f"{split}.json").read_text())
        questions[record] = {**questions.get(record, {}), **fields}
        self.write(split, questions)

    def examine(self, **options: Any) -> TaskReport:
        definition = replace(self.definition, **options.pop("definition", {}))
        given = {"data_root": self.root, "cache_dir": self.root / "cache", "scores": SCORES, **options}
        return examine_task(definition, **given)

    def problem(self, **options: Any) -> Problem:
        """Return the only problem, whose count must be in the report."""
        (problem,) = self.examine(**options).problems
        return problem


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


def test_data_without_a_problem(data: Data) -> None:
    report = data.examine(decode=True)
    assert report.problems == []
    assert exit_status([report]) == 0
    assert [split.samples for split in report.splits.values()] == [2, 2, 2]
    assert all(count == 0 for split in report.splits.values() for count in split.found.values())
    content = (data.root / "test.json").read_bytes()
    assert report.splits["test"].files == {str(data.root / "test.json"): hashlib.sha256(content).hexdigest()}
    assert report.splits["test"].rendered == [
        {"id": f"q{i}", "prompt": "Question: what?", "target": "red"} for i in range(2)
    ]


def test_three_samples_are_rendered_evenly_spread(data: Data) -> None:
    data.write("test", {f"q{i}": data.question("test0", f"what {i}?") for i in range(9)})
    assert [sample["id"] for sample in data.examine().splits["test"].rendered] == ["q0", "q3", "q6"]


def test_counts_are_compared_with_the_expected_ones(data: Data) -> None:
    problem = data.problem(definition={"expected": {"train": 2, "test": 12578}})
    assert problem == Problem(
        "warning",
        "test",
        f"{data.root / 'test.json'}: holds 2 samples, 12,578 are expected; check the file's version",
    )


def test_all_missing_images_are_counted(data: Data) -> None:
    data.write("train", {f"q{i}": data.question(f"train{i}") for i in range(5)})
    report = data.examine()
    (problem,) = report.problems
    assert problem.severity == "error"
    assert problem.text == (
        f"{data.root / 'train.json'}: 3 of 5 samples have no image file, the first is sample q2 "
        f"({data.root / 'images' / 'train2.png'}); fetch them, or check 'images'"
    )
    assert report.splits["train"].found["missing_images"] == 3
    assert exit_status([report]) == 2


def test_an_image_that_vanished_after_the_data_were_cached_is_missing(data: Data) -> None:
    load_task(data.definition, data_root=data.root, cache_dir=data.root / "cache")
    (data.root / "images" / "test1.png").unlink()
    assert "1 of 2 samples have no image file, the first is sample q1" in data.problem().text


def test_unreadable_images_are_found_by_decoding_alone(data: Data) -> None:
    (data.root / "images" / "validation1.png").write_bytes(b"<html>404</html>")
    assert data.examine().problems == []
    problem = data.problem(decode=True)
    assert (problem.severity, problem.split) == ("error", "validation")
    assert "1 of 2 samples have an image that cannot be read, the first is sample q1" in problem.text
    assert f"({data.root / 'images' / 'validation1.png'}: cannot identify image file)" in problem.text


def test_a_missing_image_is_not_counted_as_unreadable_too(data: Data) -> None:
    (data.root / "images" / "train0.png").unlink()
    assert "have no image file" in data.problem(decode=True).text


def test_empty_questions_and_answers(data: Data) -> None:
    data.change("train", "q1", question=" ")
    assert "1 of 2 samples ask nothing, the first is sample q1; remove them" in data.problem().text
    assert data.examine(definition={"prompt": "Describe it."}).problems == []  # captions are asked for by the prompt
    data.change("train", "q1", question="what?", answer="")
    problem = data.problem()
    assert problem.severity == "warning"
    assert "1 of 2 samples have an empty answer, the first is sample q1" in problem.text


def test_repeated_questions(data: Data) -> None:
    data.change("train", "q2", **data.question("train0", answer="blue"))
    problem = data.problem()
    assert problem.severity == "warning"
    assert "1 of 3 samples repeat an earlier question on the same image, the first is sample q2 (blue)" in problem.text
    data.change("train", "q2", question="what else?")
    assert data.examine().problems == []


def test_repeated_captions(data: Data) -> None:
    captions = {"prompt": "Describe it."}
    data.change("train", "q2", **data.question("train0", answer="a rose"))
    assert data.examine(definition=captions).problems == []
    data.change("train", "q2", answer="red")
    assert (
        "repeat an earlier answer to the same image, the first is sample q2 (red)"
        in data.problem(definition=captions).text
    )


def test_test_images_among_the_training_images(data: Data) -> None:
    data.change("test", "q1", imageId="train0")
    problem = data.problem()
    assert (problem.severity, problem.split) == ("warning", "test")
    shared = data.root / "images" / "train0.png"
    assert f"1 of 2 images are training images too, the first {shared}; scores on them are no test" in problem.text


def test_decoding_finds_the_same_image_under_two_names(data: Data) -> None:
    (data.root / "images" / "test0.png").write_bytes((data.root / "images" / "train1.png").read_bytes())
    assert data.examine().problems == []
    assert "1 of 2 images are training images too" in data.problem(decode=True).text


def test_answers_longer_than_what_is_generated(data: Data) -> None:
    data.change("train", "q0", answer="a very red rose")
    problem = data.problem()
    assert problem.severity == "warning"
    assert "1 of 2 samples have an answer of more than 3 words, the most that is generated" in problem.text
    assert "the first is sample q0 (a very red rose); raise max_new_tokens" in problem.text
    letters = data.problem(definition={"max_new_tokens": 14}, count_tokens=lambda texts: [len(text) for text in texts])
    assert "more than 14 tokens" in letters.text


def test_an_unknown_score(data: Data) -> None:
    problem = data.problem(definition={"score": "exact_mach"})
    assert problem == Problem("error", "", problem.text)
    assert problem.text.startswith("unknown score 'exact_mach': did you mean 'exact_match'?")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "test.json: no such file; check the path"),
        ("{\n'a'}", "test.json, line 2, column 1: not JSON"),
        ("{}", "test.json: holds not one sample"),
        ('{"q0": {"imageId": "test0", "question": "what?"}}', "record 'q0': the field 'answer' is missing"),
    ],
)
def test_a_broken_split_does_not_hide_the_others(data: Data, content: str | None, message: str) -> None:
    file = data.root / "test.json"
    file.unlink() if content is None else file.write_text(content)
    data.change("train", "q0", answer="")
    report = data.examine()
    problems = {problem.split: problem for problem in report.problems}
    assert problems.keys() == {"train", "test"}
    assert message in problems["test"].text
    assert problems["test"].severity == "error"
    assert report.splits["test"].samples is None
    assert (report.splits["test"].files[str(file)] is None) == (content is None)
    assert exit_status([report]) == 2


def test_a_record_that_is_wrong_beside_missing_images(data: Data) -> None:
    data.write("train", {"q0": data.question("gone"), "q1": {"imageId": "train1", "question": "what?"}})
    assert "record 'q1': the field 'answer' is missing" in data.problem().text


def test_a_held_out_split_has_no_files_to_examine(data: Data) -> None:
    splits = {**data.definition.splits, "validation": {"one_image_in": 2}}
    report = data.examine(definition={"splits": splits})
    assert report.problems == []
    assert report.splits.keys() == {"train", "test"}
    assert report.splits["train"].samples == 2


def test_warnings_alone(data: Data) -> None:
    data.change("train", "q0", answer="")
    assert exit_status([data.examine()]) == 1
    assert exit_status([]) == 0


def test_a_run_finds_what_the_doctor_has_read(data: Data) -> None:
    data.examine()
    before = sorted(path.name for path in (data.root / "cache").iterdir())
    load_task(data.definition, data_root=data.root, cache_dir=data.root / "cache")
    assert sorted(path.name for path in (data.root / "cache").iterdir()) == before
    assert len(before) == 3


# --- No image, and several --------------------------------------------------------------------------------------------


class Lines(Data):
    """A task of JSON Lines, whose samples have no image or several."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for split in ("train", "validation", "test"):
            self.write_lines(split, [], [f"{split}0.png", f"{split}1.png"])
        splits = {
            split: {"images": "images", "annotations": f"{split}.jsonl"} for split in ("train", "validation", "test")
        }
        self.definition = replace(self.definition, reader="json_lines", splits=splits)

    def write_lines(self, split: str, *images: list[str]) -> None:
        lines = [
            {"id": f"q{i}", "image": (*names, None)[0], "more_images": names[1:]} for i, names in enumerate(images)
        ]
        content = [json.dumps({**line, "instruction": f"what {line['id']}?", "target": "red"}) for line in lines]
        (self.root / f"{split}.jsonl").write_text("\n".join(content), encoding="utf-8")


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    return Lines(tmp_path)


def test_samples_without_an_image_and_with_several_are_no_problem_and_counted(lines: Lines) -> None:
    report = lines.examine(decode=True)
    assert report.problems == []
    assert [(split.without_image, split.several_images) for split in report.splits.values()] == [(1, 1)] * 3
    without = lines.examine()
    assert without.problems == []
    assert [(split.without_image, split.several_images) for split in without.splits.values()] == [(1, 1)] * 3


@pytest.mark.parametrize("decode", [False, True])
def test_a_missing_image_of_several_is_named(lines: Lines, decode: bool) -> None:
    lines.write_lines("train", [], ["train0.png", "gone.png", "lost.png"], ["lost.png"], ["train1.png"])
    problem = lines.problem(decode=decode)
    assert "2 of 4 samples have no image file, the first is sample q1" in problem.text
    assert f"({lines.root / 'images' / 'gone.png'})" in problem.text


def test_an_unreadable_image_of_several_is_named(lines: Lines) -> None:
    (lines.root / "images" / "train1.png").write_bytes(b"<html>404</html>")
    assert lines.examine().problems == []
    problem = lines.problem(decode=True)
    assert "1 of 2 samples have an image that cannot be read, the first is sample q1" in problem.text
    assert f"({lines.root / 'images' / 'train1.png'}: cannot identify image file)" in problem.text


@pytest.mark.parametrize("decode", [False, True])
def test_a_second_image_may_be_a_training_image_too(lines: Lines, decode: bool) -> None:
    lines.write_lines("test", [], ["test0.png", "train1.png"])
    assert "1 of 2 images are training images too" in lines.problem(decode=decode).text


def test_repeated_questions_on_the_same_images_or_none(lines: Lines) -> None:
    both = ["train0.png", "train1.png"]
    lines.write_lines("train", [], [], both, both[:1], both[::-1], both)
    file = lines.root / "train.jsonl"
    assert lines.examine().problems == []  # every question is another one
    file.write_text(re.sub("what q[0-9]", "what", file.read_text()))
    assert "2 of 6 samples repeat an earlier question on the same image, the first is sample q1" in lines.problem().text


# --- The parts --------------------------------------------------------------------------------------------------------


def test_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    names = [str(tmp_path / "a" / "1.png"), str(tmp_path / "a" / "2.png"), None, str(tmp_path / "b" / "1.png")]
    assert missing_files(pd.Series(names)).tolist() == [False, True, False, True]


def test_lengths() -> None:
    texts = pd.Series(["a red rose", "", "rose", "a red rose"])
    asked: list[list[str]] = []

    def count(distinct: list[str]) -> list[int]:
        asked.append(distinct)
        return [len(text) for text in distinct]

    assert lengths(texts, None).tolist() == [3, 0, 1, 3]
    assert lengths(texts, count).tolist() == [10, 0, 4, 10]
    assert asked == [["a red rose", "", "rose"]]  # every text once


def test_checksum(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b"x" * (2**20 + 1))
    assert checksum(file) == hashlib.sha256(b"x" * (2**20 + 1)).hexdigest()
    assert checksum(tmp_path / "none.json") is None
    assert checksum(tmp_path) is None


@pytest.mark.slow
def test_a_hundred_thousand_samples_take_less_than_a_minute(data: Data) -> None:
    """Of processor time, whatever else the machine does."""
    for i in range(20_000):
        (data.root / "images" / f"many{i}.png").touch()
    questions = {f"q{i}": data.question(f"many{i % 20_000}", f"what is {i}?") for i in range(100_000)}
    data.write("train", questions)
    begin = time.process_time()
    report = data.examine()
    seconds = time.process_time() - begin
    print(f"{seconds:.1f} s")
    assert report.splits["train"].samples == 100_000
    assert report.problems == []
    assert seconds < 60
