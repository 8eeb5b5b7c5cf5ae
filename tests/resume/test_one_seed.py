"""One seed decides a run, bit for bit, in whatever process and with however many data-loader workers it runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

KILLED = -9
LORA = {"lora": {"r": 4}, "epochs": 1}

Differences = Callable[[Path, Path], list[str]]


@pytest.mark.parametrize("options", [{"strategy": "replay"}, LORA], ids=["replay", "LoRA"])
def test_the_seed_decides(
    server: Any, whole: Any, small: dict[str, Any], differences: Differences, tmp_path: Path, options: dict[str, Any]
) -> None:
    expected, _ = whole({**small, **options})
    server.run({**small, **options}, tmp_path / "again").ended()
    server.run({**small, **options, "seed": 1}, tmp_path / "other").ended()

    assert differences(expected, tmp_path / "again") == []
    other = differences(expected, tmp_path / "other")
    for name in ("checkpoints/final.safetensors", "metrics.jsonl", "predictions/gqa/gqa.jsonl"):
        assert any(line.startswith(f"{name}: ") for line in other)


def test_lora_adapters_survive_a_kill(
    server: Any, whole: Any, small: dict[str, Any], differences: Differences, tmp_path: Path
) -> None:
    """They are drawn when the model is loaded: in a resumed run too, and as they were."""
    config = {**small, **LORA}
    assert server.run(config, tmp_path / "run", at=4, of="training forward").status == KILLED
    server.run(config, tmp_path / "run").ended()
    assert differences(whole(config)[0], tmp_path / "run") == []


def test_workers_change_nothing(
    server: Any, whole: Any, small: dict[str, Any], differences: Differences, tmp_path: Path
) -> None:
    config = {**small, "strategy": "replay"}
    expected, _ = whole(config)
    server.run({**config, "data_workers": 2}, tmp_path / "run").ended()
    assert differences(expected, tmp_path / "run") == []


def test_deterministic_algorithms(
    server: Any, whole: Any, small: dict[str, Any], differences: Differences, tmp_path: Path
) -> None:
    """Every operation of training and evaluation has one on a CPU; the result is the one that it has anyway."""
    config = {**small, "strategy": "replay"}
    server.run({**config, "deterministic": True}, tmp_path / "run").ended()
    assert differences(whole(config)[0], tmp_path / "run") == []
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["deterministic"] is True


def test_a_resumed_run_keeps_its_number_of_threads(
    server: Any, whole: Any, small: dict[str, Any], differences: Differences, tmp_path: Path
) -> None:
    expected, _ = whole(small)
    config = {**small, "threads": None}
    folder = tmp_path / "run"
    assert server.run(config, folder, at=4, of="training forward", threads=1).status == KILLED
    assert yaml.safe_load((folder / "config.yaml").read_text())["threads"] == 1
    server.run(config, folder, threads=2).ended()
    assert json.loads((folder / "provenance.json").read_text())["hardware"]["threads"] == 1
    assert differences(expected, folder) == []

    server.run(config, tmp_path / "two", threads=2, at=1, of="training forward")
    assert yaml.safe_load((tmp_path / "two" / "config.yaml").read_text())["threads"] == 2
