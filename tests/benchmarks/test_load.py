"""Tasks of a benchmark file: their data are read from below the data root, all of them or some."""

import json
import re
from dataclasses import replace

import pytest

from avalanche_cit.benchmarks.benchmark_file import TaskDefinition
from avalanche_cit.benchmarks.load import load_task, read_split
from avalanche_cit.errors import UserError


@pytest.fixture
def data_root(tmp_path):
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    questions = {}
    for number in range(10):
        (root / "images" / f"{number}.jpg").touch()
        (root / "images" / f"{number}.png").touch()
        questions[f"q{number}"] = {"imageId": str(number), "question": f"what is {number}?", "answer": "cat"}
    (root / "gqa.json").write_text(json.dumps(questions))
    return root


@pytest.fixture
def definition():
    """Define a task of GQA."""
    files = {"annotations": "gqa.json", "images": "images"}
    return TaskDefinition(
        name="gqa",
        reader="gqa",
        prompt="Question: {question} Short answer:",
        score="exact_match",
        max_new_tokens=10,
        splits={"train": files, "validation": files, "test": {**files, "image_pattern": "{image_id}.png"}},
    )


@pytest.fixture
def load(definition, data_root, tmp_path):
    """Load the task."""
    return lambda **options: load_task(definition, data_root=data_root, cache_dir=tmp_path / "cache", **options)


def test_a_task_is_loaded_with_its_paths_below_the_data_root(load, data_root):
    task = load()

    assert (task.name, task.score, task.max_new_tokens) == ("gqa", "exact_match", 10)
    assert task.render({"instruction": "what?", "choices": None}) == "Question: what? Short answer:"
    assert task.train["task"][0] == "gqa"
    assert [len(task.train), len(task.validation), len(task.test)] == [10, 10, 10]
    assert task.train.data.column("image")[3].as_py()["path"] == str(data_root / "images" / "3.jpg")
    assert task.test.data.column("image")[3].as_py()["path"] == str(data_root / "images" / "3.png")


def test_absolute_image_paths_need_an_image_root(load, data_root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for ending in ("jpg", "png"):
        (other / f"0.{ending}").touch()
    questions = json.loads((data_root / "gqa.json").read_text())
    questions["q0"]["imageId"] = str(other / "0")
    (data_root / "gqa.json").write_text(json.dumps(questions))

    with pytest.raises(UserError, match="--image-root"):
        load()
    task = load(image_roots=[other])

    assert task.train.data.column("image")[0].as_py()["path"] == str(other / "0.jpg")
    with pytest.raises(UserError, match="--image-root"):  # the rows that were allowed are not in the way of refusal
        load()


def test_optional_files_are_below_the_data_root_too(data_root, tmp_path):
    definition = TaskDefinition(
        name="captions",
        reader="llava_questions",
        prompt="{question}",
        score="cider",
        max_new_tokens=10,
        splits={
            split: {"annotations": "a.json", "images": "images", "captions": "c.json"}
            for split in ("train", "validation", "test")
        },
    )
    (data_root / "a.json").write_text(json.dumps([{"question_id": 1, "image": "0.jpg", "text": "?", "answer": "one"}]))
    captions = [{"id": n, "image_id": 1, "caption": text} for n, text in enumerate(["one", "uno"])]
    images = [{"id": 1, "file_name": "0.jpg"}]
    (data_root / "c.json").write_text(json.dumps({"images": images, "annotations": captions}))

    task = load_task(definition, data_root=data_root, cache_dir=tmp_path / "cache")

    assert task.test["references"][:] == [["one", "uno"]]


def test_a_limit_strides_evenly_over_its_split_alone(load):
    task = load(limit={"train": 4, "test": 99})

    assert task.train["id"][:] == ["q0", "q2", "q5", "q7"]
    assert len(task.validation) == 10
    assert len(task.test) == 10


def test_splits_read_alike_share_one_cache_file(load, tmp_path):
    load()

    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"valid": 3}, "unknown split to limit 'valid': did you mean 'validation'?"),
        ({"train": 0}, "task 'gqa': the limit of 'train' is 0; keep at least one row"),
    ],
)
def test_a_wrong_limit_is_refused(load, limit, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load(limit=limit)


def test_missing_data_is_named(load, data_root):
    (data_root / "gqa.json").unlink()

    with pytest.raises(UserError, match=re.escape(f"{data_root / 'gqa.json'}: no such file")):
        load()


# --- Held out ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_questions_an_image(data_root):
    """Ask two questions on each of ten images, the second ones after all the first."""
    questions = {
        f"q{number}": {"imageId": str(number % 10), "question": f"what is {number}?", "answer": "cat"}
        for number in range(20)
    }
    (data_root / "gqa.json").write_text(json.dumps(questions))


def test_every_nth_image_is_held_out_with_all_its_samples(definition, data_root, tmp_path, two_questions_an_image):
    held_out = replace(definition, splits={**definition.splits, "validation": {"one_image_in": 4}})

    task = load_task(held_out, data_root=data_root, cache_dir=tmp_path / "cache")

    assert task.validation["id"][:] == ["q3", "q7", "q13", "q17"]
    assert task.train["id"][:] == [f"q{number}" for number in range(20) if number % 10 not in (3, 7)]
    assert len(task.test) == 20
    cut = load_task(held_out, data_root=data_root, cache_dir=tmp_path / "cache", limit={"validation": 2, "train": 4})
    assert cut.validation["id"][:] == ["q3", "q13"]
    assert len(cut.train) == 4


def test_too_few_images_to_hold_one_out(definition, data_root, tmp_path):
    held_out = replace(definition, splits={**definition.splits, "validation": {"one_image_in": 11}})

    with pytest.raises(UserError, match="task 'gqa': has 10 training images, one in 11 holds out none; lower"):
        load_task(held_out, data_root=data_root, cache_dir=tmp_path / "cache")


def samples(*images):
    """Lines of JSON Lines, each with the images of its list."""
    fields = {"instruction": "?", "target": "cat"}
    return "\n".join(
        json.dumps({**fields, "id": str(i), "image": ([*of_sample] or [None])[0], "more_images": of_sample[1:]})
        for i, of_sample in enumerate(images)
    )


@pytest.fixture
def parts(data_root, tmp_path):
    """Hold one in two out of the samples of some images; ids of train and validation."""

    def parts(*images):
        (data_root / "own.jsonl").write_text(samples(*images))
        files = {"annotations": "own.jsonl", "images": "images"}
        splits = {"train": files, "validation": {"one_image_in": 2}, "test": files}
        own = TaskDefinition("own", "json_lines", "{question}", "exact_match", 10, splits)
        task = load_task(own, data_root=data_root, cache_dir=tmp_path / "cache")
        return task.train["id"][:], task.validation["id"][:]

    return parts


def test_samples_without_an_image_are_held_out_one_by_one(parts):
    assert parts([], [], [], []) == (["0", "2"], ["1", "3"])
    assert parts(["0.jpg"], [], ["0.jpg"], [], ["1.jpg"], []) == (["0", "2", "3", "5"], ["1", "4"])


def test_samples_that_share_an_image_stay_together(parts):
    """0.jpg with 1.jpg, 1.jpg with 2.jpg: all three are one group, whose samples are 0, 2, 3 and 5."""
    images = [["0.jpg"], ["3.jpg"], ["1.jpg", "0.jpg"], ["2.jpg"], ["4.jpg", "5.jpg"], ["1.jpg", "2.jpg"], ["5.jpg"]]

    assert parts(*images) == (["0", "2", "3", "4", "5", "6"], ["1"])


# --- Missing images ---------------------------------------------------------------------------------------------------


def test_missing_images_are_kept_on_demand_alone(definition, load, data_root, tmp_path):
    (data_root / "images" / "3.jpg").unlink()

    kept = load(keep_missing_images=True)

    assert len(kept.train) == 10
    for read in (load, lambda: read_split(definition, "train", data_root=data_root, cache_dir=tmp_path / "cache")):
        with pytest.raises(UserError, match=r"gqa\.json, record 'q3': the image '3\.jpg' is not in"):
            read()  # what was kept is not taken for whole data
