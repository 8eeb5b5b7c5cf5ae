"""What the readers share: image paths, the most frequent answer, and the cache's fingerprint."""

import os
import re

import pytest

from avalanche_cit.benchmarks.readers import READERS
from avalanche_cit.benchmarks.readers._common import ImageFolder, most_frequent
from avalanche_cit.benchmarks.readers._records import Record
from avalanche_cit.benchmarks.readers.gqa import read_gqa
from avalanche_cit.errors import UserError


@pytest.fixture
def record(tmp_path):
    return Record({"question_id": 5}, tmp_path / "a.json", "questions[17]", "question_id")


@pytest.mark.parametrize(
    ("answers", "expected"), [(["a"], "a"), (["a", "b", "b"], "b"), (["b", "a", "a", "b"], "b"), (["", "a", ""], "")]
)
def test_most_frequent_answer(answers, expected):
    assert most_frequent(answers) == expected


def test_image_paths_are_absolute_and_below_the_folder(workspace, record, monkeypatch):
    workspace.add_images("a.png", "sub/b.png")
    monkeypatch.chdir(workspace.root)

    folder = ImageFolder(workspace.images.relative_to(workspace.root))

    assert folder.path("a.png", record) == str(workspace.images / "a.png")
    assert folder.path("./sub//b.png", record) == str(workspace.images / "sub" / "b.png")


@pytest.mark.parametrize("name", ["../a.png", "sub/../../a.png", "/etc/passwd"])
def test_image_paths_cannot_leave_the_folder(workspace, record, name):
    (workspace.root / "a.png").touch()

    with pytest.raises(UserError, match=re.escape(f"a.json, questions[17] (question_id 5): the image {name!r} must")):
        ImageFolder(workspace.images).path(name, record)


@pytest.mark.parametrize("name", ["b.png", "sub", "sub/a.png", "none/a.png", "", ".", "a.png/c", "a\0.png", "b" * 999])
def test_a_missing_image_is_named_with_its_record(workspace, record, name):
    workspace.add_images("a.png", "sub/b.png")

    with pytest.raises(UserError, match=re.escape(f"questions[17] (question_id 5): the image {name!r} is not in")):
        ImageFolder(workspace.images).path(name, record)


def test_a_folder_is_looked_at_once(workspace, record):
    workspace.add_images("a.png", "b.png")
    folder = ImageFolder(workspace.images)
    folder.path("a.png", record)

    os.remove(workspace.images / "b.png")

    assert folder.path("b.png", record).endswith("b.png")


@pytest.mark.parametrize(
    "pattern", ["a.jpg", "{image}.jpg", "{}.jpg", "{image_id", "{image_id}{split}", "{image_id:{x}}", "{image_id.real}"]
)
def test_a_pattern_must_use_the_image_id_alone(workspace, pattern):
    with pytest.raises(UserError, match=re.escape(f"image pattern {pattern!r}: must use {{image_id}} alone")):
        ImageFolder(workspace.images, pattern)


@pytest.mark.parametrize(("pattern", "image_id"), [("{image_id:012d}.jpg", "x"), ("{image_id:c}", 10**30)])
def test_a_pattern_that_does_not_take_the_id_is_named(workspace, record, pattern, image_id):
    with pytest.raises(UserError, match=re.escape(f"the image pattern {pattern!r} does not take {image_id!r}")):
        ImageFolder(workspace.images, pattern).path(image_id, record)


@pytest.fixture
def read(workspace, example):
    """Read one GQA file with one cache."""
    workspace.add_images("2354786.jpg")
    file = workspace.write("gqa", example("gqa").documents["annotations"])

    def read(**options):
        given = {"task": "mine", "images": workspace.images, "annotations": file, "cache_dir": workspace.root / "cache"}
        return read_gqa(**{**given, **options})

    return read


def test_an_unchanged_file_is_not_read_again(workspace, read):
    read()
    os.remove(workspace.images / "2354786.jpg")

    assert read()["target"][:] == ["yes"]


def test_a_changed_file_is_read_again(workspace, read):
    read()
    file = workspace.root / "gqa.json"
    before = file.stat()
    file.write_text(file.read_text().replace('"yes"', '"no!"'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))

    assert file.stat().st_size == before.st_size
    assert read()["target"][:] == ["no!"]


def test_other_options_are_other_rows(workspace, read):
    workspace.add_images("2354786.png")
    read()

    assert read(task="other")["task"][:] == ["other"]
    assert read(image_pattern="{image_id}.png").data.column("image")[0].as_py()["path"].endswith(".png")


OPTIONS = [
    ("vqa_v2", {}, {"image_pattern": "{image_id}.png"}),
    ("a_okvqa", {}, {"image_pattern": "{image_id}.png"}),
    ("karpathy_captions", {"split": "test", "rows": "caption"}, {"split": "test", "rows": "image"}),
    ("karpathy_captions", {"split": "train", "rows": "image"}, {"split": "test", "rows": "image"}),
    (
        "karpathy_captions",
        {"split": "train", "rows": "image"},
        {"split": "train", "rows": "image", "restval": True},
    ),
    ("textcaps", {"rows": "caption"}, {"rows": "image"}),
    ("ocr_vqa", {"split": "val"}, {"split": "train"}),
    *((reader, {}, {"task": "other"}) for reader in READERS),
    *((reader, {}, {"images": "other"}) for reader in READERS),
]


@pytest.mark.parametrize(("reader", "first", "second"), OPTIONS)
def test_no_rows_come_from_the_cache_of_other_options(workspace, example, reader, first, second):
    given = example(reader)
    documents = given.documents
    if reader == "karpathy_captions":
        (image,) = documents["annotations"]["images"]
        for number, split in enumerate(["train", "restval"]):
            sentences = [{"raw": split, "sentid": 100 + number}]
            changed = {"split": split, "imgid": 8 + number, "sentences": sentences}
            documents["annotations"]["images"].append({**image, **changed})
    if reader == "ocr_vqa":
        documents["annotations"]["x"] = {**documents["annotations"]["0123"], "split": 1}
    files = {name: workspace.write(name, content) for name, content in documents.items()}
    images = [*given.images, "42.png", "x.png"]
    workspace.add_images(*images, *(f"other/{name}" for name in images))

    def rows(cache, options):
        options = {"task": "mine", **given.options, **options}
        folder = workspace.images / options.pop("images", ".")
        return READERS[reader](cache_dir=workspace.root / cache, images=folder, **files, **options).data.to_pylist()

    assert rows("cache", first) != rows("cache", second)
    assert rows("cache", second) == rows("another cache", second)
