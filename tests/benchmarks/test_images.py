"""Images that cannot be read: found in every kind of data, named, and left out."""

import io
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from avalanche_cit.benchmarks.images import (
    UnreadableImageError,
    decoded,
    examine_images,
    side_by_side,
    without_unreadable,
)
from avalanche_cit.benchmarks.instruction_data import FEATURES, image_paths
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.errors import UserError


def png(colour: str, side: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(stream, "PNG")
    return stream.getvalue()


BROKEN = {
    "truncated": png("red", side=64)[:-60],
    "empty": b"",
    "text": b"<html>404 Not Found</html>",
    "chunk": png("red").replace(b"IDAT", b"XDAT"),
    "header": png("red")[:20],
}


def data(images: list[Any]) -> datasets.Dataset:
    """Samples with an image each; where a list is given, with those of the list."""
    row = {"instruction": "what?", "target": "red", "references": ["red"], "task": "t", "choices": None}
    lists = [image if isinstance(image, list) else [image] for image in images]
    lists = [[i if isinstance(i, dict) else {"path": i, "bytes": None} for i in of_sample] for of_sample in lists]
    rows = [
        {**row, "id": str(i), "image": of_sample[0] if of_sample else None, "more_images": of_sample[1:] or None}
        for i, of_sample in enumerate(lists)
    ]
    return datasets.Dataset.from_list(rows, features=FEATURES)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Two good images of the same content, broken ones, and one that is not there."""
    contents = {"good": png("red"), "copy": png("red"), "blue": png("blue"), **BROKEN}
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    return {name: str(tmp_path / f"{name}.png") for name in (*contents, "missing")}


@pytest.mark.parametrize("name", [*BROKEN, "missing"])
def test_what_cannot_be_read_is_one_kind_of_error(name: str, files: dict[str, str]) -> None:
    with pytest.raises(UnreadableImageError) as from_file:
        decoded({"path": files[name], "bytes": None})
    assert len(str(from_file.value).splitlines()) == 1
    if name != "missing":
        with pytest.raises(UnreadableImageError):
            decoded({"path": None, "bytes": BROKEN[name]})


def test_what_can_be_read_becomes_rgb(files: dict[str, str]) -> None:
    image = decoded({"path": files["good"], "bytes": None})
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (8, 8), (255, 0, 0))
    embedded = decoded({"path": "elsewhere.png", "bytes": png("blue")})
    assert embedded.getpixel((0, 0)) == (0, 0, 255)


def test_every_sample_has_its_problem_and_content(files: dict[str, str]) -> None:
    found = examine_images(
        data([files[name] for name in ("good", "truncated", "copy", "blue", "missing", "good")]), "t"
    )
    assert found["problem"].isna().tolist() == [True, False, True, True, False, True]
    assert found["problem"][4] == "No such file or directory"
    good, truncated, copy, blue, missing, again = found["content"]
    assert good == copy == again
    assert len({good, truncated, blue}) == 3
    assert missing is None


def test_images_inside_the_data_are_examined_too(files: dict[str, str]) -> None:
    inside = [{"path": "a.png", "bytes": png("red")}, {"path": None, "bytes": b"no image"}, files["good"]]
    mixed = data(inside)
    assert image_paths(mixed).isna().tolist() == [True, True, False]
    found = examine_images(mixed, "t")
    assert found["problem"].isna().tolist() == [True, False, True]
    assert found["content"][0] == found["content"][2]


def test_the_order_of_selected_rows_is_kept(files: dict[str, str]) -> None:
    selected = data([files["good"], files["text"], files["blue"]]).select([2, 1])
    assert image_paths(selected).tolist() == [files["blue"], files["text"]]
    assert examine_images(selected, "t")["problem"].isna().tolist() == [True, False]


def test_a_file_is_read_once(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    examine_images(data([files["good"]] * 500 + [files["blue"]]), "title")
    shown = capsys.readouterr().err
    assert "title" in shown
    assert "2/2" in shown


def test_unreadable_samples_are_left_out_and_counted(files: dict[str, str]) -> None:
    train = data([files[name] for name in ("good", "text", "blue", "missing")])
    test = data([files["good"]])
    task = Task("t", train, test, test, prompt="{question}", score="exact_match", max_new_tokens=3)
    kept, left_out = without_unreadable(task)
    assert left_out == {"train": 2, "validation": 0, "test": 0}
    assert kept.train["id"] == ["0", "2"]
    assert kept.test is test
    assert (kept.name, kept.prompt, kept.score, kept.max_new_tokens) == ("t", "{question}", "exact_match", 3)


def test_a_split_without_a_readable_image_is_named(files: dict[str, str]) -> None:
    good, bad = data([files["good"]]), data([files["missing"]])
    task = Task("t", good, good, bad, prompt="{question}", score="exact_match", max_new_tokens=3)
    with pytest.raises(
        UserError, match=r"task 't', split 'test': every sample has an image that cannot be read \(No such file"
    ):
        without_unreadable(task)


# --- No image, and several --------------------------------------------------------------------------------------------


def test_the_index_of_a_path_is_its_sample_s_place(files: dict[str, str]) -> None:
    held = {"path": None, "bytes": png("red")}
    rows = data([files["good"], [], [files["blue"], held, files["good"]], [held], [files["copy"], files["copy"]]])

    paths = image_paths(rows)
    assert paths.index.tolist() == [0, 2, 2, 2, 3, 4, 4]
    names = ["good", "blue", None, "good", None, "copy", "copy"]
    assert [Path(path).stem if isinstance(path, str) else None for path in paths] == names
    selected = image_paths(rows.select([4, 1, 2]))
    assert selected.index.tolist() == [0, 0, 2, 2, 2]
    assert selected.tolist()[:3] == [files["copy"], files["copy"], files["blue"]]
    assert selected.isna().tolist() == [False, False, False, True, False]


def test_data_without_any_image() -> None:
    rows = data([[], []])
    assert image_paths(rows).empty
    assert examine_images(rows, "t").empty
    task = Task("t", rows, rows, rows, prompt="{question}", score="exact_match", max_new_tokens=3)
    kept, left_out = without_unreadable(task)
    assert kept.train is rows
    assert left_out == {"train": 0, "validation": 0, "test": 0}


def test_every_image_of_a_sample_is_examined(files: dict[str, str]) -> None:
    inside = [{"path": None, "bytes": content} for content in (png("blue"), b"no image", png("red"))]
    found = examine_images(data([[files["good"], files["text"]], [], [inside[0], files["good"], *inside[1:]]]), "t")

    assert found.index.tolist() == [0, 0, 2, 2, 2, 2]
    assert found["problem"].isna().tolist() == [True, False, True, True, False, True]
    assert found["file"].isna().tolist() == [False, False, True, False, True, True]
    assert found["file"].dropna().tolist() == [files["good"], files["text"], files["good"]]
    content = found["content"].tolist()
    assert content[0] == content[3] == content[5]
    assert len(set(content)) == 4


def test_a_sample_with_any_unreadable_image_is_left_out(files: dict[str, str]) -> None:
    rows = data([[files["good"], files["blue"]], [], [files["good"], files["missing"]], [files["text"], files["good"]]])
    task = Task("t", rows, rows, rows, prompt="{question}", score="exact_match", max_new_tokens=3)

    kept, left_out = without_unreadable(task)

    assert left_out == {"train": 2, "validation": 2, "test": 2}
    assert kept.train["id"][:] == ["0", "1"]


def test_pictures_side_by_side() -> None:
    red, blue = Image.new("RGB", (4, 2), "red"), Image.new("RGB", (3, 6), "blue")

    page = side_by_side([red, blue])

    assert page.size == (12 + 3, 6)
    assert [page.getpixel(place) for place in ((0, 5), (11, 0), (12, 0), (14, 5))] == [(255, 0, 0)] * 2 + [
        (0, 0, 255)
    ] * 2
    assert side_by_side([red]).tobytes() == red.tobytes()
