"""Scenarios of plain tasks: streams that line up, labels that count on, names that stay with the data."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from avalanche.benchmarks import benchmark_with_validation_stream, with_task_labels
from PIL import Image

from avalanche_cit.benchmarks import Task, instruction_benchmark
from avalanche_cit.benchmarks.instruction_data import FEATURES
from avalanche_cit.benchmarks.scenario import Example, single_task, task_name
from avalanche_cit.errors import UserError

MakeTask = Callable[..., Task]


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """Build a task of a few samples; ids are ``<task>-<split>-<number>``."""
    Image.new("RGB", (8, 8), (9, 99, 199)).save(tmp_path / "picture.png")

    def rows(name: str, split: str, count: int) -> datasets.Dataset:
        row = {"image": str(tmp_path / "picture.png"), "instruction": "what?", "target": "red", "references": ["red"]}
        row["more_images"] = [str(tmp_path / "picture.png")]
        row |= {"task": name, "choices": None}
        data = [{"id": f"{name}-{split}-{i}", **row} for i in range(max(count, 1))]
        return datasets.Dataset.from_list(data, features=FEATURES).select(range(count))

    def make(name: str, train: int = 5, validation: int = 3, test: int = 2) -> Task:
        data = [rows(name, *part) for part in (("train", train), ("validation", validation), ("test", test))]
        return Task(name, *data, prompt="Question: {question}", score="exact_match", max_new_tokens=5)

    return make


def test_streams_line_up(make_task: MakeTask) -> None:
    tasks = [make_task("b"), make_task("a"), make_task("c", train=7)]
    benchmark = instruction_benchmark(tasks)
    assert set(benchmark.streams) == {"train", "validation", "test"}
    for name, stream in benchmark.streams.items():
        assert [task_name(experience.dataset) for experience in stream] == ["b", "a", "c"]
        assert [experience.current_experience for experience in stream] == [0, 1, 2]
        assert [experience.task_label for experience in stream] == [0, 1, 2]
        assert [experience.task_labels for experience in stream] == [[0], [1], [2]]
        assert {experience.dataset[0][0].row["id"].split("-")[1] for experience in stream} == {name}
    assert [len(experience.dataset) for experience in benchmark.train_stream] == [5, 5, 7]
    assert [len(experience.dataset) for experience in benchmark.validation_stream] == [3, 3, 3]
    assert [len(experience.dataset) for experience in benchmark.test_stream] == [2, 2, 2]


def test_task_0_is_counted_on_from_the_sequence(make_task: MakeTask) -> None:
    benchmark = instruction_benchmark([make_task("a"), make_task("b")], [make_task("old"), make_task("older")])
    assert set(benchmark.streams) == {"train", "validation", "test", "task0_train", "task0_test"}
    for stream in (benchmark.task0_train_stream, benchmark.task0_test_stream):
        assert [task_name(experience.dataset) for experience in stream] == ["old", "older"]
        assert [experience.current_experience for experience in stream] == [2, 3]
        assert [experience.task_label for experience in stream] == [2, 3]
        assert [experience.dataset[0][-1] for experience in stream] == [2, 3]
    assert [experience.current_experience for experience in benchmark.train_stream] == [0, 1]
    assert [len(experience.dataset) for experience in benchmark.task0_train_stream] == [5, 5]
    assert [len(experience.dataset) for experience in benchmark.task0_test_stream] == [2, 2]


def test_every_stream_knows_its_benchmark(make_task: MakeTask) -> None:
    benchmark = instruction_benchmark([make_task("a")], [make_task("old")])
    for name, stream in benchmark.streams.items():
        assert stream.name == name
        assert stream.benchmark is benchmark
        assert [experience.origin_stream.benchmark for experience in stream] == [benchmark]


def test_a_sample_is_its_task_and_its_row(make_task: MakeTask) -> None:
    tasks = [make_task("a"), make_task("b")]
    dataset = instruction_benchmark(tasks).train_stream[1].dataset
    example, label = dataset[3]
    assert isinstance(example, Example)
    assert example.task is tasks[1]
    assert (example.row["id"], label) == ("b-train-3", 1)
    assert example.row["image"]["path"].endswith("picture.png")  # not decoded
    assert example.row["more_images"] == [example.row["image"]]
    assert example.task.render(example.row) == "Question: what?"


def test_the_name_of_a_task_stays_with_its_samples(make_task: MakeTask) -> None:
    one, other = instruction_benchmark([make_task("a"), make_task("b")]).train_stream
    both = one.dataset.concat(other.dataset)
    assert task_name(both) is None
    assert list(both.task_name) == ["a"] * 5 + ["b"] * 5
    assert task_name(both.subset([5, 7])) == "b"
    assert [sample[0].row["id"] for sample in both.subset([5, 0])] == ["b-train-0", "a-train-0"]


def test_avalanches_validation_split_keeps_names_and_labels(make_task: MakeTask) -> None:
    benchmark = instruction_benchmark([make_task("a"), make_task("b")], [make_task("old")])
    split = with_task_labels(benchmark_with_validation_stream(benchmark, validation_size=2, shuffle=True, seed=3))
    assert {"train", "valid", "test", "task0_train", "task0_test"} <= set(split.streams)
    for stream, size in ((split.train_stream, 3), (split.valid_stream, 2)):
        assert [task_name(experience.dataset) for experience in stream] == ["a", "b"]
        assert [experience.task_label for experience in stream] == [0, 1]
        assert [len(experience.dataset) for experience in stream] == [size, size]
    for name, train, valid in zip("ab", split.train_stream, split.valid_stream, strict=True):
        ids = sorted(sample[0].row["id"] for part in (train, valid) for sample in part.dataset)
        assert ids == [f"{name}-train-{i}" for i in range(5)]


def test_mistakes_are_named(make_task: MakeTask) -> None:
    with pytest.raises(UserError, match="at least one task"):
        instruction_benchmark([])
    with pytest.raises(UserError, match="two tasks are named 'a': give each task of a benchmark its own name"):
        instruction_benchmark([make_task("a"), make_task("b"), make_task("a")])
    with pytest.raises(UserError, match="two tasks are named 'a'"):
        instruction_benchmark([make_task("a")], [make_task("a")])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_empty_split_is_named(split: str, make_task: MakeTask) -> None:
    with pytest.raises(UserError, match=f"task 'b' has no {split} samples"):
        instruction_benchmark([make_task("a"), make_task("b", **{split: 0})])


def test_an_empty_split_of_task_0_is_named(make_task: MakeTask) -> None:
    with pytest.raises(UserError, match="task 'old' has no task0_test samples"):
        instruction_benchmark([make_task("a")], [make_task("old", test=0)])


def test_a_method_that_learns_one_task_at_a_time_says_so(make_task: MakeTask) -> None:
    first, second = instruction_benchmark([make_task("colour"), make_task("shape")]).train_stream
    mixed: Any = SimpleNamespace(dataset=first.dataset.concat(second.dataset))

    assert single_task(first, "EProj") == "colour"
    with pytest.raises(UserError, match="EProj learns one task at a time"):
        single_task(mixed, "EProj")
