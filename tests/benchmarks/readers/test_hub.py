"""Data sets that ``datasets`` loads: here folders, which are loaded as those of the Hub are, without a network."""

import io
import json
import re

import datasets
import PIL.Image
import pytest

from avalanche_cit.benchmarks.benchmark_file import read_benchmark_file
from avalanche_cit.benchmarks.load import load_task
from avalanche_cit.benchmarks.readers import hub
from avalanche_cit.benchmarks.readers.hub import read_hub
from avalanche_cit.errors import UserError

COLUMNS = {"image": "image", "target": "answer"}


@pytest.fixture
def read(workspace):
    """Read a folder with a cache of its own."""

    def read(folder=None, **options):
        given = {"task": "mine", "split": "train", "columns": COLUMNS, "cache_dir": workspace.root / "cache"}
        return read_hub(**{**given, "folder": folder, **options})

    return read


@pytest.fixture
def folder(workspace):
    """Make a folder for a data set."""
    folder = workspace.root / "set"
    folder.mkdir()
    return folder


def picture(colour="red"):
    return PIL.Image.new("RGB", (3, 2), colour)


def write(folder, name="train", **columns):
    """Write columns to Parquet as they are published on the Hub: images encoded in their rows."""
    datasets.Dataset.from_dict(columns).to_parquet(folder / f"{name}.parquet")


def encoded(colour):
    buffer = io.BytesIO()
    picture(colour).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": f"{colour}.png"}


def rows(data):
    return data.remove_columns("image").to_list()


def test_columns_are_mapped(workspace, example):
    given = example("hub")
    workspace.add_images(*given.images)

    assert workspace.rows("hub", given.documents, **given.options) == [
        {
            "id": "7",
            "image": "a.png",
            "instruction": "what is it?",
            "target": "b",
            "references": ["b"],
            "task": "mine",
            "choices": ["dog", "cat"],
        }
    ]


def test_what_is_not_mapped_has_a_default(folder, read):
    write(folder, image=[encoded("red"), encoded("blue")], answer=["cat", "dog"], more=[1, 2])

    data = read(folder)

    both = {"instruction": "", "task": "mine", "choices": None, "more_images": None}
    assert rows(data) == [
        {"id": "0", "target": "cat", "references": ["cat"], **both},
        {"id": "1", "target": "dog", "references": ["dog"], **both},
    ]
    assert [data[n]["image"].getpixel((0, 0)) for n in (0, 1)] == [(255, 0, 0), (0, 0, 255)]


def test_the_most_frequent_reference_is_the_target_where_none_is_mapped(folder, read):
    write(folder, image=[encoded("red")], answers=[["dog", "cat", "cat"]])

    (row,) = rows(read(folder, columns={"image": "image", "references": "answers"}))

    assert (row["target"], row["references"]) == ("cat", ["dog", "cat", "cat"])


def test_target_and_references_may_both_be_mapped(folder, read):
    write(folder, image=[encoded("red")], answers=[["dog", "cat"]], answer=["dog"])

    (row,) = rows(read(folder, columns={**COLUMNS, "references": "answers"}))

    assert (row["target"], row["references"]) == ("dog", ["dog", "cat"])


def test_a_number_counts_the_choices_or_is_the_answer(folder, read):
    write(folder, image=[encoded("red")], answer=[1], choices=[["dog", "cat"]])

    assert rows(read(folder))[0]["target"] == "1"
    (row,) = rows(read(folder, columns={**COLUMNS, "choices": "choices"}))
    assert (row["target"], row["choices"]) == ("b", ["dog", "cat"])


def test_an_image_folder_with_class_labels(folder, read):
    """Published so: https://huggingface.co/docs/datasets/image_dataset ("ImageFolder")."""
    for name, colour in (("cat", "red"), ("dog", "blue")):
        (folder / "train" / name).mkdir(parents=True)
        picture(colour).save(folder / "train" / name / "1.png")

    data = read(folder, columns={"image": "image", "target": "label"})

    assert [row["target"] for row in rows(data)] == ["cat", "dog"]
    assert data[1]["image"].getpixel((0, 0)) == (0, 0, 255)
    assert data.data.column("image")[0].as_py() == {"bytes": None, "path": str(folder / "train" / "cat" / "1.png")}


def test_an_image_folder_with_metadata(folder, read):
    picture().save(folder / "a.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "question": "what?", "answer": "cat"}))

    (row,) = rows(read(folder, columns={**COLUMNS, "instruction": "question"}))

    assert (row["instruction"], row["target"]) == ("what?", "cat")


def test_splits_and_parts_of_them(folder, read):
    for split in ("train", "test"):
        write(folder, split, image=[encoded("red")] * 4, answer=[f"{split} {n}" for n in range(4)])

    assert [row["target"] for row in rows(read(folder, split="test"))] == [f"test {n}" for n in range(4)]
    assert [row["target"] for row in rows(read(folder, split="train[:50%]"))] == ["train 0", "train 1"]


def test_a_changed_file_is_read_again(folder, read):
    write(folder, image=[encoded("red")], answer=["cat"])
    read(folder)
    write(folder, image=[encoded("red")], answer=["dogs"])

    assert rows(read(folder))[0]["target"] == "dogs"


def test_rows_without_an_image_are_refused_or_left_out(folder, read):
    write(folder, image=[None, encoded("red")], answer=["cat", "dog"])

    with pytest.raises(UserError, match=r"set, row 0: has no image; leave such rows out with 'skip_text_only: true'"):
        read(folder)
    assert [(row["id"], row["target"]) for row in rows(read(folder, skip_text_only=True))] == [("1", "dog")]


def test_paths_must_lead_into_the_folder_or_an_image_root(workspace, folder, read):
    workspace.add_images("a.png")
    outside = str(workspace.images / "a.png")
    write(folder, image=[{"bytes": None, "path": outside}], answer=["cat"])

    with pytest.raises(UserError, match=re.escape(f"set, row 0: the image {outside!r} must be a path below")):
        read(folder)
    data = read(folder, image_roots=[workspace.images])
    assert data.data.column("image")[0].as_py() == {"bytes": None, "path": outside}


def test_a_data_set_of_the_hub_may_lie_in_the_hub_s_cache(workspace, folder, read, monkeypatch):
    picture().save(folder / "a.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "answer": "cat"}))
    asked = {}

    def load_dataset(name, config, **options):
        asked.update(options, name=name, config=config)
        return original(str(folder), split=options["split"], cache_dir=options["cache_dir"])

    original = datasets.load_dataset
    monkeypatch.setattr(hub.datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(workspace.root))

    data = read(repository="some/data", config="main", revision="abc")

    assert rows(data)[0]["target"] == "cat"
    assert data[0]["image"].size == (3, 2)
    wanted = {"name": "some/data", "config": "main", "revision": "abc", "split": "train"}
    assert asked == {**wanted, "cache_dir": str(workspace.root / "cache" / "datasets")}
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(workspace.root / "none"))
    with pytest.raises(UserError, match="some/data, row 0: names the image file"):
        read(repository="some/data", cache_dir=workspace.root / "new")


BENCHMARK = """
name: mine
version: 1
description: A folder that datasets loads.
tasks: [animals]
definitions:
  animals:
    reader: hub
    prompt: What is it?
    score: exact_match
    max_new_tokens: 5
    splits:
      train: &set {folder: set, split: train, columns: {image: image, target: answer}}
      validation: *set
      test: {folder: set, split: "train[1:]", skip_text_only: true, columns: {image: image, target: answer}}
"""


def test_a_benchmark_file_maps_columns(workspace, folder):
    write(folder, image=[encoded("red"), None, encoded("red")], answer=["cat", "dog", "cow"])
    file = workspace.root / "mine.yaml"
    file.write_text(BENCHMARK)
    definition = read_benchmark_file(file).definitions["animals"]

    with pytest.raises(UserError, match="row 1: has no image"):
        load_task(definition, data_root=workspace.root, cache_dir=workspace.root / "cache")
    write(folder, image=[encoded("red")] * 3, answer=["cat", "dog", "cow"])
    task = load_task(definition, data_root=workspace.root, cache_dir=workspace.root / "cache")

    assert task.train["target"][:] == ["cat", "dog", "cow"]
    assert task.test["target"][:] == ["dog", "cow"]
    file.write_text(BENCHMARK.replace("{image: image, target: answer}}", "[image]}", 1))
    with pytest.raises(UserError, match="'columns' must map texts to texts"):
        read_benchmark_file(file)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": "image", "answer": "answer"},
            r"task 'mine', .*'columns': unknown field 'answer': .*Known: id, image",
        ),
        ({"target": "answer"}, "'columns' must name the columns of 'image', and of 'target' or 'references'"),
        ({"image": "image", "instruction": "answer"}, "must name the columns of 'image', and of 'target' or 'refe"),
        ({"image": "image", "target": "answr"}, "set: unknown column 'answr': did you mean 'answer'"),
    ],
)
def test_wrong_columns_are_named(folder, read, columns, message):
    write(folder, image=[encoded("red")], answer=["cat"])

    with pytest.raises(UserError, match=message):
        read(folder, columns=columns)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("answer", None, "the field 'target' must be a text or a whole number, not null"),
        ("answer", [1.5], "the field 'target' must be a text or a whole number, not a list"),
        ("answers", ["cat", None], r"the field 'references\[1\]' must be a text, not null"),
        ("answers", [], "the field 'references' must be a list of one or more texts, not an empty list"),
        ("choice", 2, "the right choice is 2; it must count one of the 2 choices, from 0"),
        ("label", 5, "the class label is 5; there are 2 classes, from 0"),
        ("image", {"bytes": None, "path": None}, "the field 'image' must be an image"),
    ],
)
def test_a_wrong_value_is_named_with_its_row(folder, read, column, value, message):
    wrong = {
        "image": encoded("red"),
        "answer": "cat",
        "answers": ["cat"],
        "choice": 0,
        "choices": ["a", "b"],
        "label": 1,
    }
    wrong[column] = value
    data = datasets.Dataset.from_dict({name: [value] for name, value in wrong.items()})
    if column == "label":
        info = data.info.copy()
        info.features["label"] = datasets.ClassLabel(names=["cat", "dog"])
        data = datasets.Dataset(data.data, info=info)
    data.to_parquet(folder / "train.parquet")
    columns = {"image": "image", "target": column if column in ("choice", "label") else "answer"}
    columns |= {"references": "answers"} if column == "answers" else {}
    columns |= {"choices": "choices"} if column == "choice" else {}

    with pytest.raises(UserError, match=rf"set, row 0: {message}"):
        read(folder, columns=columns)


def test_what_cannot_be_loaded_is_one_line(folder, read, capsys):
    (folder / "train.jsonl").write_text('{"answer": 1}\n{"answer": ')
    with pytest.raises(UserError, match=r"set: the split 'train' cannot be loaded \(.+\); check the name") as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    assert "Failed to load" not in capsys.readouterr().err
    (folder / "train.jsonl").write_text('{"answer": 1}')
    with pytest.raises(UserError, match=r"set: the split 'valid' cannot be loaded \(.*train"):
        read(folder, split="valid")


def test_text_that_is_no_unicode_is_named(folder, read):
    (folder / "train.jsonl").write_bytes(b'{"image": "a.png", "answer": "\x80"}\n')

    with pytest.raises(UserError, match=r"set: cannot be read \(.*utf-8"):
        read(folder)


def test_folders_that_are_empty_or_missing(folder, read):
    with pytest.raises(UserError, match="set: the split 'train' cannot be loaded"):
        read(folder)
    with pytest.raises(UserError, match=re.escape(f"{folder / 'none'}: no such folder; check 'folder'")):
        read(folder / "none")


@pytest.mark.parametrize("both", [True, False])
def test_either_a_repository_or_a_folder(folder, read, both):
    with pytest.raises(UserError, match="task 'mine', reader 'hub': give either 'repository' or 'folder'"):
        read(folder if both else None, repository="some/data" if both else None)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("null\n", 1),
        ("null", 1),
        ("\n \n null\n{}\n", 3),
        ("\ufeffnull\n", 1),
        ('[null, {"a": 1}]', 1),
        ('[\n  null,\n  {"a": 1}]', 2),
        ('{"a": 1}\nnull\n{"a": 2}\n', 2),
    ],
)
def test_a_row_that_is_null_is_refused(workspace, read, content, line):
    """Arrow does not survive it where it is the first row of a block."""
    folder = workspace.root / "rows" / "data"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"train\.jsonl, line {line}: the row is null; it must be a JSON object$"):
        read(folder.parent)


def test_nulls_inside_of_rows_are_read(workspace, example):
    workspace.add_images("a.png")
    case = example("hub")
    (row,) = case.documents["folder"]
    text = json.dumps([{**row, "more": [None, None], "null": "null"}], indent=1)
    rows = workspace.rows("hub", {"folder": text.encode()}, **case.options)
    assert [row["target"] for row in rows] == ["b"]  # the letter of choice 1
