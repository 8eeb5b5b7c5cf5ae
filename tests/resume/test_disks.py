"""Disks that are full or read-only: one line says so, nothing saved is lost, and the same command goes on."""

import random
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KILLED = -9
FILLED_AT = ("half written .000001.safetensors", "half written", "before generate", "before training forward")

Differences = Callable[[Path, Path], list[str]]


@pytest.fixture
def disk(server: Any, tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    server.shell(f"mount -t tmpfs -o size=24m tmpfs {shlex.quote(str(folder))}")
    yield folder
    server.shell(f"umount --lazy {shlex.quote(str(folder))}")


@pytest.fixture
def few_weights(small: dict[str, Any]) -> dict[str, Any]:
    return {**small, "strategy": "replay", "trainable": "projection"}


def saved(folder: Path) -> dict[str, bytes]:
    """All that a run can go on from: the newest checkpoint, the answers and the matrix, and the configuration."""
    newest = max(folder.glob("checkpoints/[0-9]*.json"), default=None)
    kept = [folder / name for name in ("config.yaml", "matrix.json", "matrix.csv", "metrics.jsonl")]
    if newest is not None:
        kept += [newest, max(folder.glob("checkpoints/[0-9]*.safetensors"))]
    kept += folder.glob("predictions/*/*.jsonl")
    return {str(file.relative_to(folder)): file.read_bytes() for file in kept if file.exists()}


def check_intact(before: Path, after: Path) -> None:
    now = saved(after)
    for name, content in saved(before).items():
        if name == "metrics.jsonl":
            assert now[name].startswith(content)
        else:
            assert now[name] == content, name


@pytest.mark.parametrize("of", FILLED_AT)
def test_a_full_disk(
    server: Any,
    whole: Any,
    few_weights: dict[str, Any],
    differences: Differences,
    disk: Path,
    tmp_path: Path,
    of: str,
) -> None:
    """From some moment on nothing more fits: while a checkpoint is written, the answers of a cell, or neither."""
    folder, copy, filler = disk / "run", tmp_path / "before", disk / "filler"
    fill = f"cp -a {folder} {copy}; cat /dev/zero > {filler} 2> /dev/null"
    at = 1 if "0001" in of else random.Random(of).randint(2, 5)
    failed = server.run(few_weights, folder, at=at, of=of, do=fill)
    full = server.run(few_weights, folder)  # still full

    for outcome in (failed, full):
        assert "No space left on device" in outcome.error
        assert str(folder) in outcome.error
    check_intact(copy, server.seen(folder))
    server.shell(f"rm {filler}")
    server.run(few_weights, folder).ended()
    assert differences(whole(few_weights)[0], server.seen(folder)) == []


def test_a_disk_that_is_full_of_what_is_logged(
    server: Any, whole: Any, few_weights: dict[str, Any], differences: Differences, disk: Path
) -> None:
    """Not while a checkpoint is written but between two, when a line of the metrics no longer fits."""
    config = {**few_weights, "checkpoint_steps": None, "checkpoint_minutes": None}
    folder, filler = disk / "run", disk / "filler"
    whole_page = "import sys; f = open(sys.argv[1], 'a'); f.write(' ' * (4095 - f.tell() % 4096) + chr(10))"
    fill = f'python3 -c "{whole_page}" {folder}/metrics.jsonl; cat /dev/zero > {filler} 2> /dev/null'
    failed = server.run(config, folder, at=2, of="before training forward", do=fill)

    assert "No space left on device" in failed.error
    assert failed.events.count("before training forward") == 2
    server.shell(f"rm {filler}")
    server.run(config, folder).ended()
    assert differences(whole({**few_weights})[0], server.seen(folder)) == []


def test_a_folder_that_becomes_read_only_in_the_middle(
    server: Any, whole: Any, few_weights: dict[str, Any], differences: Differences, disk: Path, tmp_path: Path
) -> None:
    folder, copy = disk / "run", tmp_path / "before"
    checkpoints = folder / "checkpoints"
    bind = f"mount --bind {checkpoints} {checkpoints} && mount -o remount,bind,ro {checkpoints}"
    failed = server.run(few_weights, folder, at=5, of="before training forward", do=f"cp -a {folder} {copy}; {bind}")

    assert "Read-only file system" in failed.error
    assert f"cannot write the checkpoint {checkpoints}" in failed.error
    check_intact(copy, server.seen(folder))
    server.shell(f"umount {checkpoints}")
    server.run(few_weights, folder).ended()
    assert differences(whole(few_weights)[0], server.seen(folder)) == []


def test_a_read_only_file_system(
    server: Any, whole: Any, few_weights: dict[str, Any], differences: Differences, disk: Path, tmp_path: Path
) -> None:
    folder = disk / "run"
    assert server.run(few_weights, folder, at=5, of="training forward").status == KILLED
    before = {file: file.read_bytes() for file in server.seen(folder).rglob("*") if file.is_file()}
    server.shell(f"mount -o remount,ro {disk}")
    failed = server.run(few_weights, folder)

    assert failed.error == f"cannot write to {folder}: Read-only file system; give another --output"
    assert {file: file.read_bytes() for file in server.seen(folder).rglob("*") if file.is_file()} == before
    server.shell(f"mount -o remount,rw {disk}")
    server.run(few_weights, folder).ended()
    assert differences(whole(few_weights)[0], server.seen(folder)) == []
