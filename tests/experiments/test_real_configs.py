"""The configurations for real weights: each one is complete and resolved, and runs on a tiny model of its family."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from zoo import checkpoint

from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.models.families import FAMILIES

SCRIPT = Path(__file__).parents[2] / "experiments" / "compare.py"
CONFIGS = sorted((SCRIPT.parent / "configs" / "real").glob("*.yaml"))
TINY = {
    "Salesforce/blip2-flan-t5-xl": "blip2_t5",
    "Salesforce/instructblip-flan-t5-xl": "instructblip_t5",
    "llava-hf/llava-1.5-7b-hf": "llava",
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl",
}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_every_run_of_it_is_resolved(config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = runpy.run_path(str(SCRIPT))
    own = "benchmark" in yaml.safe_load(config.read_text())
    data = [] if own else ["--benchmark", "cit1"]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "--config", str(config), *data, "--data-root", str(tmp_path)])

    asked = list(names["planned_runs"](names["make_parser"]()).runs.values())
    named = yaml.safe_load(config.read_text())["strategy"]
    assert {run.strategy for run in asked} >= set(named)
    for run in asked:
        assert run.dtype == "bfloat16"
        assert run.trainable == (None if run.lora else "projection" if "proj" in run.strategy else "bridge")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_it_runs_on_a_tiny_model_of_its_family(
    config: Path, script: Callable[..., Any], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    written = yaml.safe_load(config.read_text())
    folder = checkpoint(TINY[written["model"]], tmp_path_factory)
    small = ["--benchmark", "digits", "--no_task0", "--train_samples=4", "--validation_samples=2", "--test_samples=2"]
    sizes = ["--epochs=1", "--batch_size=4", "--micro_batch_size=2", "--memory_fraction=0.5", "--data_workers=0"]
    strategies = [name for name in ("seqft", "ewc_tir", "eproj") if name in written["strategy"]]

    script(
        "--config", str(config), *small, *sizes, "--model", str(folder), "--strategy", *strategies,
        "--output", str(tmp_path / "out"), "--device", "cpu", "--threads", "1",
    )  # fmt: skip

    for strategy in strategies:
        run = tmp_path / "out" / "digits" / folder.name / f"{strategy}-seed0"
        assert MatrixFile.read(run / "matrix.json").complete
        values = [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"name": "Loss_MB' in line]
        assert "NaN" not in "".join(values)
    assert torch.get_num_threads() == 1


def test_every_architecture_named_in_the_docs_is_known() -> None:
    listed = (SCRIPT.parents[1] / "docs" / "models.md").read_text()
    for family in FAMILIES:
        assert f"`{family}`" in listed
