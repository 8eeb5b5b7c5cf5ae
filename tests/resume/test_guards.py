"""What goes wrong in the middle of a run: one line says so, nothing saved is lost, and the same command goes on."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from avalanche_cit.models.loading import model_folder
from avalanche_cit.training.checkpoint_file import CheckpointFolder

KILLED = -9

Differences = Callable[[Path, Path], list[str]]


def files(folder: Path) -> dict[str, bytes]:
    """All files but the note of who has the lock, which ends with the process."""
    kept = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock.holder")
    return {str(file.relative_to(folder)): file.read_bytes() for file in kept}


@pytest.fixture
def reds(small: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Options of a run over a benchmark of one task, whose images and annotations are files."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for split, size in {"train": 16, "validation": 2, "test": 4}.items():
        questions = {}
        for i in range(size):
            Image.new("RGB", (16, 16), (15 * i, 0, 0)).save(root / "images" / f"{split}{i}.png")
            questions[f"{split}{i}"] = {"imageId": f"{split}{i}", "question": "what colour?", "answer": "red"}
        (root / f"{split}.json").write_text(json.dumps(questions))
    splits = {
        split: {"images": "images", "image_pattern": "{image_id}.png", "annotations": f"{split}.json"}
        for split in ("train", "validation", "test")
    }
    definition = {"reader": "gqa", "prompt": "{question}", "score": "exact_match", "max_new_tokens": 4}
    about = {"name": "reds", "version": 1, "description": "One task.", "data_root": "data", "tasks": ["reds"]}
    file = tmp_path / "reds.yaml"
    file.write_text(yaml.safe_dump({**about, "definitions": {"reds": {**definition, "splits": splits}}}))
    return {**small, "benchmark": str(file), "batch_size": 4, "cache_features": False}


# --- Data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_vanished_image(
    server: Any,
    whole: Any,
    reds: dict[str, Any],
    differences: Differences,
    tmp_path: Path,
    split: str,
    workers: int,
) -> None:
    config = {**reds, "data_workers": workers}
    image, aside, folder = tmp_path / "data" / "images" / f"{split}3.png", tmp_path / "aside.png", tmp_path / "run"
    failed = server.run(config, folder, at=3, of="before training forward", do=f"mv {image} {aside}")

    newest = CheckpointFolder(folder / "checkpoints").newest
    assert newest is not None
    assert failed.error == (
        f"task 'reds', sample '{split}3': cannot read the image {image}: No such file or directory; mend the file, or "
        f"leave such samples out with --on-bad-sample skip; saved so far: {newest}"
    )
    shutil.move(aside, image)
    server.run(config, folder).ended()
    assert differences(whole(config)[0], folder) == []


@pytest.mark.parametrize("of", ["before training forward", "before generate"])
def test_a_killed_worker(
    server: Any, whole: Any, reds: dict[str, Any], differences: Differences, tmp_path: Path, of: str
) -> None:
    config, folder = {**reds, "data_workers": 2}, tmp_path / "run"
    kill = "set -- $(cat /proc/$PPID/task/$PPID/children); kill -9 $1; sleep 1"
    failed = server.run(config, folder, at=3, of=of, do=kill)

    assert failed.error.startswith(
        "a process that loads data died, often for want of memory: try fewer --data-workers ("
    )
    assert re.search(r"DataLoader worker \(pid \d+\) is killed by signal: Killed", failed.error)
    assert f"saved so far: {CheckpointFolder(folder / 'checkpoints').newest}" in failed.error
    server.run({**config, "data_workers": 0}, folder).ended()
    assert differences(whole(config)[0], folder) == []


def test_other_data_are_refused(
    server: Any, whole: Any, reds: dict[str, Any], differences: Differences, tmp_path: Path
) -> None:
    folder, annotations = tmp_path / "run", tmp_path / "data" / "train.json"
    assert server.run(reds, folder, at=6, of="before training forward").status == KILLED
    text, before = annotations.read_text(), files(folder)
    annotations.write_text(text.replace("red", "crimson", 1))
    refused = server.run(reds, folder)

    assert "the run was begun with other data or another model: data reds train differ; restore them" in refused.error
    assert files(folder) == before
    annotations.write_text(text)
    server.run(reds, folder).ended()
    assert differences(whole(reds)[0], folder) == []


def test_other_weights_are_refused(
    server: Any, whole: Any, small: dict[str, Any], differences: Differences, tmp_path: Path
) -> None:
    model, folder = tmp_path / "model", tmp_path / "run"
    shutil.copytree(model_folder("tiny-base"), model)
    config = {**small, "model": str(model)}
    assert server.run(config, folder, at=6, of="before training forward").status == KILLED
    before, stored = files(folder), model / "model.safetensors"
    content = stored.read_bytes()
    weights = load_file(stored)
    first = weights[sorted(weights)[0]]
    first.view(-1)[0] += 1
    save_file(weights, stored, metadata={"format": "pt"})
    refused = server.run(config, folder)

    assert "was begun with other data or another model: model fingerprint differ; restore them" in refused.error
    assert files(folder) == before
    stored.write_bytes(content)
    server.run(config, folder).ended()
    assert differences(whole(config)[0], folder) == []


# --- Numbers and options ----------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number(server: Any, small: dict[str, Any], tmp_path: Path) -> None:
    config, folder = {**small, "lr": 1e30, "checkpoint_steps": 1}, tmp_path / "run"
    error = server.run(config, folder).error

    newest = CheckpointFolder(folder / "checkpoints").newest
    said = r"task 'vqav2', training iteration (\d+): the loss is (\S+), .*: (.*); saved so far: (.*)"
    found = re.fullmatch(said, error)
    assert found is not None, error
    assert found[2] in ("nan", "inf")
    assert len(found[3].split(", ")) == small["batch_size"]
    assert found[4] == str(newest)
    state = CheckpointFolder(folder / "checkpoints").read().training
    assert state["plugins"]["Clock"]["train_iterations"] == int(found[1]) > 0
    assert all(weight.isfinite().all() for weight in state["weights"].values())


def test_other_options_are_refused_and_those_that_change_no_number_are_not(
    server: Any, whole: Any, small: dict[str, Any], differences: Differences, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert server.run(small, folder, at=6, of="before training forward").status == KILLED
    before = files(folder)
    refused = server.run({**small, "lr": 0.5, "epochs": 3}, folder)

    assert refused.error == (
        f"{folder} holds a run with other options: epochs (2 there, 3 now), lr (0.001 there, 0.5 now); give another "
        "--output, or delete that folder"
    )
    assert files(folder) == before
    changed = {**small, "data_workers": 2, "checkpoint_steps": 1, "checkpoint_minutes": None}
    assert "resuming from step 4 " in server.run(changed, folder, at=4, of="generate").output
    server.run(changed, folder).ended()
    assert differences(whole(small)[0], folder) == []


# --- Damaged checkpoints ----------------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("of", "at", "suffix"),
    [
        ("before training forward", 8, "json"),  # goes on after the first task's evaluation
        ("before training forward", 8, "safetensors"),
        ("before generate", 6, "safetensors"),  # in the first task
        ("before generate", 7, "json"),  # in the first task's evaluation
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    server: Any,
    whole: Any,
    small: dict[str, Any],
    differences: Differences,
    tmp_path: Path,
    of: str,
    at: int,
    suffix: str,
) -> None:
    config, folder = {**small, "strategy": "replay"}, tmp_path / "run"
    assert server.run(config, folder, at=at, of=of).status == KILLED
    newest = max((folder / "checkpoints").glob(f"[0-9]*.{suffix}"))
    damage(newest)
    # a checkpoint more, and then it is killed again
    resumed = server.run(config, folder, at=2, of="after replace checkpoints/")

    assert resumed.status == KILLED, resumed.output
    assert "note: a damaged checkpoint is passed over (" in resumed.output
    assert newest.name in resumed.output
    assert "resuming from step" in resumed.output
    again = server.run(config, folder).ended()
    assert "note: a damaged" not in again.output
    assert differences(whole(config)[0], folder) == []


def test_all_checkpoints_damaged(
    server: Any, whole: Any, small: dict[str, Any], differences: Differences, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    checkpoints = folder / "checkpoints"
    assert server.run(small, folder, at=7, of="before training forward").status == KILLED
    whole_ones = files(checkpoints)
    for path in checkpoints.glob("[0-9]*.safetensors"):
        damage(path)
    before = files(folder)
    refused = server.run(small, folder)

    assert refused.error.startswith("no checkpoint is whole (")
    assert f"delete {checkpoints} to begin the run anew" in refused.error
    assert files(folder) == before
    for name, content in whole_ones.items():
        (checkpoints / name).write_bytes(content)
    server.run(small, folder).ended()
    assert differences(whole(small)[0], folder) == []
