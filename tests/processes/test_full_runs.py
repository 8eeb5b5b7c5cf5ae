"""Whole runs of two processes in single precision score as those of one do, whose seeds differ by more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avalanche_cit.evaluation.matrix_file import MatrixFile

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
STRATEGIES = ("seqft", "replay", "ewc_tir", "eproj")
SEEDS = range(5)
SCORES = ("average_accuracy", "mft", "forgetting_chaudhry")


def carry_out(*command: str | Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([str(word) for word in command], check=True, capture_output=True, env=environment)


def scores(folder: Path) -> dict[str, float]:
    """The scores of a run."""
    summary = MatrixFile.read(folder / "matrix.json").summary()
    found = {name: summary[name] for name in SCORES}
    return {name: score for name, score in found.items() if score is not None}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, float]]]:
    """The scores of every strategy and seed, one process a run."""
    folder = tmp_path_factory.mktemp("alone")
    seeds = [str(seed) for seed in SEEDS]
    command = [sys.executable, EXPERIMENTS / "compare.py", "--workers=2", "--threads=1", f"--output={folder}"]
    carry_out(*command, "--strategy", *STRATEGIES, "--seeds", *seeds)
    runs = folder / "mini_cit1" / "tiny-base"
    return {strategy: [scores(runs / f"{strategy}-seed{seed}") for seed in SEEDS] for strategy in STRATEGIES}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_score_within_the_range_of_seeds(
    strategy: str, alone: dict[str, list[dict[str, float]]], tmp_path: Path
) -> None:
    by_accuracy = sorted(SEEDS, key=lambda seed: alone[strategy][seed]["average_accuracy"])
    seed = by_accuracy[len(by_accuracy) // 2]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    script = [EXPERIMENTS / "forgetting_matrix.py", f"--strategy={strategy}", f"--seed={seed}", "--threads=1"]
    carry_out(*launcher, *script, f"--output={tmp_path}")
    together = scores(tmp_path / f"{strategy}-seed{seed}")

    for name, score in together.items():
        of_seeds = [one[name] for one in alone[strategy]]
        print(f"{strategy}, {name}: {score:.2f} by two processes, {min(of_seeds):.2f} to {max(of_seeds):.2f} by seeds")
    accuracies = [one["average_accuracy"] for one in alone[strategy]]
    assert min(accuracies) <= together["average_accuracy"] <= max(accuracies)
    for name, score in together.items():
        of_seeds = [one[name] for one in alone[strategy]]
        assert min(of_seeds) - 1 <= score <= max(of_seeds) + 1
