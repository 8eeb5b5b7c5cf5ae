"""The contact sheet, by what stands on it."""

from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from avalanche_cit.benchmarks.instruction_data import FEATURES
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.logging.contact_sheet import contact_sheet
from avalanche_cit.logging.plots import save_figure


def data(folder: Path, count: int, *, mode: str = "RGB", target: str = "red {i}") -> datasets.Dataset:
    rows = []
    for i in range(count):
        path = folder / f"{mode}{i}.png"
        Image.new(mode, (64, 48), 10 * i if mode == "L" else (10 * i, 0, 0)).save(path)
        text = target.format(i=i)
        row = {"id": str(i), "image": str(path), "instruction": f"what costs ${i} or $9?", "target": text}
        rows.append(row | {"more_images": None, "references": [text], "task": "t", "choices": ["cat", "dog"]})
    return datasets.Dataset.from_list(rows, features=FEATURES)


def task(name: str, test: datasets.Dataset, **fields: str) -> Task:
    prompt = fields.get("prompt", "Question: {question} Options: {options}")
    return Task(name, test.select([0]), test.select([0, 1]), test, prompt=prompt, score="exact", max_new_tokens=5)


def test_counts_prompts_and_targets(tmp_path: Path) -> None:
    figure = contact_sheet("mini", [task("one", data(tmp_path, 12)), task("two", data(tmp_path, 3))], per_task=4)
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "mini, test split"
    assert texts[1:3] == ["one", "train 1  ·  validation 2  ·  test 12  ·  scored by exact"]
    assert texts[3].replace("\n", " ") == "Question: what costs $0 or $9? Options: (a) cat (b) dog"
    # Four of twelve, evenly strided, then the three there are.
    assert [text for text in texts if text.startswith("red")] == [
        "red 0",
        "red 3",
        "red 6",
        "red 9",
        "red 0",
        "red 1",
        "red 2",
    ]
    shown = [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]
    assert shown == [0, 30, 60, 90, 0, 10, 20]
    assert not any(text.get_parse_math() for text in figure.texts)  # dollars are no formulas
    save_figure(figure, tmp_path / "sheet.png")


def test_long_and_empty_texts(tmp_path: Path) -> None:
    tasks = [task("long", data(tmp_path, 2, target="word " * 99)), task("empty", data(tmp_path, 2, target=""))]
    texts = [text.get_text() for text in contact_sheet("mini", tasks).texts]
    long = next(text for text in texts if text.startswith("word"))
    assert long.count("\n") == 3
    assert long.endswith("…")
    assert texts.count("(empty)") == 2


def test_grey_pictures_stay_grey(tmp_path: Path) -> None:
    figure = contact_sheet("mini", [task("grey", data(tmp_path, 3, mode="L"))])
    pixels = np.asarray(figure.axes[2].images[0].get_array())
    assert pixels.shape == (48, 64, 3)
    assert (pixels == 20).all()


def test_a_picture_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    rows = data(tmp_path, 3)
    (tmp_path / "RGB1.png").write_bytes(b"no image")
    (tmp_path / "RGB2.png").unlink()
    figure = contact_sheet("mini", [task("one", rows)])
    assert [len(axes.images) for axes in figure.axes] == [1, 0, 0]
    said = [axes.texts[0].get_text().replace("\n", " ") for axes in figure.axes[1:]]
    assert said[0].startswith("unreadable: cannot identify image file")
    assert said[1] == "unreadable: No such file or directory"


def test_several_pictures_stand_side_by_side_and_none_says_so(tmp_path: Path) -> None:
    rows = data(tmp_path, 2).cast_column("image", datasets.Image(decode=False)).to_list()
    both = [
        rows[0] | {"image": rows[1]["image"], "more_images": [rows[0]["image"]]},
        rows[1] | {"image": None},
    ]
    figure = contact_sheet("mini", [task("one", datasets.Dataset.from_list(both, features=FEATURES))] * 2, per_task=2)
    first, second = figure.axes[:2]
    pixels = np.asarray(first.images[0].get_array())
    assert pixels.shape == (48, 128, 3)
    assert (pixels[:, :64, 0] == 10).all()
    assert (pixels[:, 64:, 0] == 0).all()
    assert not second.images
    assert second.texts[0].get_text() == "no image"
    save_figure(figure, tmp_path / "sheet.png")


def test_another_split(tmp_path: Path) -> None:
    figure = contact_sheet("mini", [task("one", data(tmp_path, 12))], split="validation")
    assert len(figure.axes) == 2
