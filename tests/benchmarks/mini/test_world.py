"""The drawn world on disk and read back: counts, references, prompts, true answers, and the same bytes every time."""

import hashlib
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avalanche_cit.benchmarks import Task, load_benchmark
from avalanche_cit.benchmarks.mini.draw import draw_scene
from avalanche_cit.benchmarks.mini.language import park_captions, table_captions, wall_captions
from avalanche_cit.benchmarks.mini.scenes import Scene, sample_scene
from avalanche_cit.benchmarks.mini.world import VERSION, draw_task
from avalanche_cit.benchmarks.scenario import task_name
from avalanche_cit.errors import UserError

SEED, SIZES = 5, {"train": 16, "validation": 4, "test": 8}  # of the fixture world
DOMAINS = {
    **{"flickr30k": "park", "textcaps": "wall", "vqav2": "room", "ocrvqa": "book", "gqa": "gallery"},
    **{"vizwiz": "photo", "textvqa": "street", "okvqa": "kitchen", "aokvqa": "beach", "coco": "table"},
}
CAPTIONS = {"flickr30k": park_captions, "textcaps": wall_captions, "coco": table_captions}
REFERENCES = {
    **dict.fromkeys(CAPTIONS, 5),
    **dict.fromkeys(("vqav2", "vizwiz", "textvqa", "okvqa"), 10),
    **dict.fromkeys(("ocrvqa", "gqa", "aokvqa"), 1),
}
TINY = {"train": 3, "validation": 1, "test": 2}


def splits_of(task: Task) -> dict[str, Any]:
    return {"train": task.train, "validation": task.validation, "test": task.test}


def scenes_of(task: str) -> dict[str, list[Scene]]:
    """The scenes of the fixture world, drawn again."""
    rng = np.random.default_rng((VERSION, SEED, list(DOMAINS).index(task)))
    return {split: [sample_scene(DOMAINS[task], split, rng) for _ in range(size)] for split, size in SIZES.items()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- Read back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOMAINS)
def test_rows_read_back(name: str, world: dict[str, Task]) -> None:
    task = world[name]
    data = splits_of(task)
    assert {split: len(rows) for split, rows in data.items()} == SIZES
    rows = [row for split in data.values() for row in split]
    assert len({row["image"].tobytes() for row in rows}) == len(rows)
    for split in data.values():
        assert len(set(split["id"])) == len(split)
    for row in rows:
        assert row["task"] == name
        assert len(row["references"]) == REFERENCES[name]
        assert row["target"] in row["references"]
        assert (row["image"].size, row["image"].mode) == ((64, 64), "RGB")
        assert (row["choices"] is not None) == (name == "aokvqa")
        if name == "aokvqa":
            assert len(row["choices"]) == 4
        assert (row["instruction"] == "") == (name in CAPTIONS)


@pytest.mark.parametrize("name", DOMAINS)
def test_what_is_on_disk_is_true_of_its_picture(
    name: str, world: dict[str, Task], true_answer: Callable[[Scene, str], str]
) -> None:
    for split, scenes in scenes_of(name).items():
        for row, scene in zip(splits_of(world[name])[split], scenes, strict=True):
            assert scene.split == split
            assert row["image"].tobytes() == draw_scene(scene).tobytes()
            if name in CAPTIONS:
                assert row["references"] == CAPTIONS[name](scene)
                continue
            target = row["choices"]["abcd".index(row["target"])] if row["choices"] else row["target"]
            assert target == true_answer(scene, row["instruction"])
            assert row["references"].count(row["target"]) > len(row["references"]) / 2


def test_annotators_disagree_now_and_then(world: dict[str, Task]) -> None:
    for name in ("vqav2", "textvqa", "okvqa", "vizwiz"):
        shares = [row["references"].count(row["target"]) for row in world[name].train]
        assert min(shares) < 10 <= max(shares), name


def test_answer_formats_differ_between_tasks(world: dict[str, Task]) -> None:
    """No two question tasks have the same set of training targets, and only one answers by letters."""
    targets = {name: set(task.train["target"]) for name, task in world.items() if name not in CAPTIONS}
    assert len({frozenset(texts) for texts in targets.values()}) == len(targets)
    assert [name for name, texts in targets.items() if texts <= set("abcd")] == ["aokvqa"]
    assert all(text.endswith(".") for name in CAPTIONS for text in world[name].train["target"])


CAPTION = "A short image description."
PROMPTS = {  # what is asked, what is answered, and how that is scored
    "flickr30k": (
        CAPTION,
        "a small purple triangle , a large green star and a large yellow star stand in the park .",
        "cider_x10",
    ),
    "textcaps": (CAPTION, "a purple sign that says lake is below an orange square .", "cider_x10"),
    "vqav2": ("Question: where is the cross? Short answer:", "bottom left", "vqa_accuracy"),
    "ocrvqa": ("Question: what is the title of this book? Short answer:", "early ship", "exact_match"),
    "gqa": ("Question: is the pink box above the pink heart? Short answer:", "yes", "exact_match"),
    "vizwiz": ("Question: can you please tell me what this is? Short answer:", "unanswerable", "vqa_accuracy"),
    "textvqa": ("Question: what does the bottom sign say? Short answer:", "stop", "vqa_accuracy"),
    "okvqa": ("Question: which fruit has the color of the heart? Short answer:", "peach", "vqa_accuracy"),
    "aokvqa": (
        "Question: what is at the middle center? Options: (a) triangle (b) circle (c) cross (d) heart Short answer:",
        "d",
        "multiple_choice",
    ),
    "coco": (CAPTION, "one heart on a wooden table .", "cider_x10"),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_prompt_snapshot(name: str, world: dict[str, Task]) -> None:
    row = world[name].test[0]
    assert (world[name].render(row), row["target"], world[name].score) == PROMPTS[name]


# --- Benchmarks -------------------------------------------------------------------------------------------------------

ORDERS = {
    "mini_cit1": (["flickr30k", "textcaps", "vqav2", "ocrvqa", "gqa"], []),
    "mini_cit1_reversed": (["gqa", "ocrvqa", "vqav2", "textcaps", "flickr30k"], []),
    "mini_cit2": (["flickr30k", "vizwiz", "textvqa", "gqa"], ["okvqa", "aokvqa", "textcaps", "vqav2", "ocrvqa"]),
    "mini_cit2_reversed": (
        ["gqa", "textvqa", "vizwiz", "flickr30k"],
        ["okvqa", "aokvqa", "textcaps", "vqav2", "ocrvqa"],
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_benchmarks_have_the_orders_of_the_paper(name: str, world: dict[str, Task]) -> None:
    benchmark = load_benchmark(name, seed=SEED, sizes=SIZES)
    sequence, task0 = ORDERS[name]
    expected = {"train": sequence, "validation": sequence, "test": sequence}
    if task0:
        expected |= {"task0_train": task0, "task0_test": task0}
    streams = benchmark.streams
    assert {key: [task_name(exp.dataset) for exp in stream] for key, stream in streams.items()} == expected
    for key, stream in streams.items():
        assert [len(exp.dataset) for exp in stream] == [SIZES[key.removeprefix("task0_")]] * len(stream)


def test_task0_can_be_left_away(world: dict[str, Task]) -> None:
    assert set(load_benchmark("mini_cit2", seed=SEED, sizes=SIZES, task0=False).streams) == {
        "train",
        "validation",
        "test",
    }


# --- Drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", DOMAINS)
def test_the_same_seed_and_sizes_give_the_same_bytes(task: str, tmp_path: Path) -> None:
    for name, seed in {"one": 0, "same": 0, "other": 1}.items():
        draw_task(task, tmp_path / name, seed=seed, sizes=TINY)
    one, same, other = (files_of(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one.keys() == other.keys()
    assert sum(path.endswith(".png") for path in one) == sum(TINY.values())
    assert not {one[path] for path in one if path.endswith(".png")} & set(other.values())


CHECKSUMS = {
    "flickr30k": "0a2b77c94bc63c0d",
    "textcaps": "990514d43557e7f5",
    "vqav2": "6190f6b304aa6813",
    "ocrvqa": "b772adfa1fc7986f",
    "gqa": "3720b9a907a45fcd",
    "vizwiz": "74b59e68766c3131",
    "textvqa": "25142b45a7475fd5",
    "okvqa": "765627814366016d",
    "aokvqa": "94e8fb4c995788ab",
    "coco": "95303ef1ed90c54d",
}


@pytest.mark.parametrize("task", DOMAINS)
def test_version_2_draws_this_world(task: str, tmp_path: Path) -> None:
    """Whoever changes what a seed draws raises `VERSION`, and then this table: older results no longer compare."""
    draw_task(task, tmp_path, seed=0, sizes=TINY)
    files = {path: content for path, content in files_of(tmp_path).items() if path.endswith(".json")}
    digest = hashlib.sha256(b"".join(files[path] for path in sorted(files))).hexdigest()[:16]
    assert digest == CHECKSUMS[task]


def test_what_is_drawn_is_not_drawn_again(tmp_path: Path) -> None:
    draw_task("gqa", tmp_path, seed=0, sizes=TINY)
    (tmp_path / "gqa" / "train.json").write_text("mine")
    draw_task("gqa", tmp_path, seed=0, sizes=TINY)
    assert (tmp_path / "gqa" / "train.json").read_text() == "mine"


def test_a_broken_off_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt in the middle, then the same again in the same process."""

    def interrupted(scene: Scene) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("avalanche_cit.benchmarks.mini.world.draw_scene", interrupted)
        with pytest.raises(KeyboardInterrupt):
            draw_task("gqa", tmp_path, seed=0, sizes=TINY)
    assert list(tmp_path.iterdir()) == []
    draw_task("gqa", tmp_path, seed=0, sizes=TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["gqa"]


def test_two_processes_may_draw_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)

    def draw() -> None:
        start.wait()
        for task in ("vizwiz", "flickr30k"):
            draw_task(task, tmp_path / "shared", seed=0, sizes=TINY)

    processes = [context.Process(target=draw, daemon=True) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    for task in ("vizwiz", "flickr30k"):
        draw_task(task, tmp_path / "alone", seed=0, sizes=TINY)
    assert files_of(tmp_path / "shared") == files_of(tmp_path / "alone")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "vqav3"}, "unknown task of the mini world 'vqav3': did you mean 'vqav2'?"),
        ({"seed": -1}, "the seed of the mini world is -1: it must be 0 or above"),
        ({"sizes": TINY | {"test": 0}}, "0 test samples of the mini world: draw at least 1"),
        ({"sizes": TINY | {"valid": 3}}, "unknown split 'valid': did you mean 'validation'?"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments = {"task": "gqa", "seed": 0, "sizes": TINY} | changes
    with pytest.raises(UserError) as caught:
        draw_task(arguments.pop("task"), tmp_path / "world", **arguments)
    assert message in str(caught.value)
    assert not (tmp_path / "world").exists()
