"""SIGINT and SIGTERM: the step at hand is finished and saved, and the same command goes on from there."""

import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avalanche_cit.evaluation.verify import verify_run
from avalanche_cit.training.checkpoint_file import CheckpointFolder

ROOT = Path(__file__).parents[2]
SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
ids = [number.name for number, _ in SIGNALS]

Differences = Callable[[Path, Path], list[str]]


def saved_step(folder: Path) -> int:
    clock = CheckpointFolder(folder / "checkpoints").read().training["plugins"]["Clock"]
    return clock["train_iterations"]


@pytest.mark.parametrize(("number", "status"), SIGNALS, ids=ids)
def test_in_the_middle_of_a_step(
    server: Any,
    whole: Any,
    small: dict[str, Any],
    differences: Differences,
    tmp_path: Path,
    number: int,
    status: int,
) -> None:
    config = {**small, "strategy": "replay", "checkpoint_steps": None}
    folder = tmp_path / "run"
    asked = server.run(config, folder, at=3, of="before training forward", do=int(number))

    assert asked.status == status, asked.output
    assert "stopping after this step" in asked.output
    assert saved_step(folder) == 3  # the third step, and it alone, is over; none of them was due
    assert sum(event == "after training forward" for event in asked.events) == 3
    resumed = server.run(config, folder).ended()
    assert f"resuming from step 3 of {folder} (in task 1 of 2, epoch 2)" in resumed.output
    assert sum(event == "after training forward" for event in resumed.events) == 8 - 3
    assert differences(whole({**config, "checkpoint_steps": 2})[0], folder) == []


@pytest.mark.parametrize(("number", "status"), SIGNALS, ids=ids)
def test_in_the_middle_of_an_evaluation(
    server: Any,
    whole: Any,
    small: dict[str, Any],
    differences: Differences,
    tmp_path: Path,
    number: int,
    status: int,
) -> None:
    config = {**small, "strategy": "replay"}
    expected, events = whole(config)
    folder = tmp_path / "run"
    assert events.count("after generate") == 3 * 2 * 2  # rows, cells, batches
    asked = server.run(config, folder, at=10, of="before generate", do=int(number))  # the fifth cell's second batch

    assert asked.status == status, asked.output
    assert "stopping after this step" not in asked.output
    assert asked.last == "before generate"  # at once
    resumed = server.run(config, folder).ended()
    assert resumed.events.count("after generate") == 3  # that batch, and the last cell
    assert resumed.events.count("after training forward") == 0
    assert differences(expected, folder) == []


def test_through_the_script(server: Any, small: dict[str, Any], tmp_path: Path) -> None:
    options = {**small, "output": str(tmp_path / "runs")}
    script = str(ROOT / "experiments" / "forgetting_matrix.py")
    command = [script, *(f"--{name}={value}" for name, value in options.items())]
    folder = tmp_path / "runs" / "seqft-seed0"

    first = server.script(command, at=3, of="before training forward", do=int(signal.SIGTERM))
    assert first.status == 143, first.output
    line = first.output.splitlines()[-1]
    kept, typed = line.split(": ", 1)
    assert kept == "interrupted; what is saved is kept, and this goes on with it"
    python, *again = shlex.split(typed)
    assert python.startswith("python")
    assert again == command
    assert saved_step(folder) == 3

    second = server.script(again).ended()
    assert "resuming from step 3 of " in second.output
    assert verify_run(folder) == []
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["name"].startswith("Loss_MB")] == list(range(8))

    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    third = server.script(again).ended()
    assert "resuming" not in third.output
    assert third.events.count("before training forward") == 0
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
