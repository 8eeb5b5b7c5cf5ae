"""The tuning script: which trials it asks for, what it writes, mistakes; and two trials for real."""

import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from avalanche_cit import runner
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.run_config import STRATEGIES

Script = Callable[..., dict[str, Any]]
SCRIPT = Path(__file__).parents[2] / "experiments" / "tune.py"
GRIDS = """
seqft: {lr: [0.001, 0.01, 0.1]}
ewc: {lambda_: [1.0, 10.0, 100.0], start_from: seqft}
eproj: {threshold: [0.2, 0.4, 0.8]}
directft: {lr: [0.001, 0.01, 0.1]}
"""


@pytest.fixture
def script(script: Script, tmp_path: Path) -> Script:
    """Run the script with a file of grids in its folder."""
    (tmp_path / "grids.yaml").write_text(GRIDS)
    return partial(script, "--grids", "grids.yaml")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list:
    """Put a stand-in in the place of the runner; returns the trials it is asked for."""
    calls: list = []

    def run(config, folder, *, vision_features=None):
        calls.append((config, str(folder)))
        folder.mkdir(parents=True, exist_ok=True)
        goodness = {
            "seqft": lambda: -abs(config.lr - 0.01),
            "ewc": lambda: config.lambda_,
            "eproj": lambda: config.threshold,
            "directft": lambda: config.lr,
        }
        accuracy = 50.0 + goodness[config.strategy]() + (2 if config.seed == 101 else 0)
        rows, last = ["initial", "a", "b"], [accuracy - 1, accuracy + 1]
        none: list[float | None] = [None, None]
        alone = [none, [accuracy, None], [None, accuracy]]
        kind = STRATEGIES[config.strategy]
        return MatrixFile(
            kind, "short", config.strategy, config.model, config.seed, ["a", "b"], [], ["exact_match"] * 2,
            rows, alone if kind == "independent" else [none, none, last], {}, complete=True,
        )  # fmt: skip

    monkeypatch.setattr(runner, "run", run)
    return calls


def test_trials_run_on_validation_with_seeds_of_their_own(script, asked: list) -> None:
    script("--strategy", "seqft", "--output", "out", "--epochs", "2")

    assert [folder for _, folder in asked] == [
        f"out/mini_cit1/tiny-base/seqft-lr={value}-seed100" for value in ("0.001", "0.01", "0.1")
    ]
    assert {(c.stream, c.seed, c.strategy, c.epochs) for c, _ in asked} == {("validation", 100, "seqft", 2)}
    assert [c.lr for c, _ in asked] == [0.001, 0.01, 0.1]


def test_penalties_start_from_what_was_chosen_for_sequential_tuning(script, asked: list, tmp_path: Path) -> None:
    script("--strategy", "ewc", "--output", "out", "--further", "2", "--epochs", "2")

    tried = [(c.strategy, c.lr, c.lambda_) for c, _ in asked]
    assert tried[:3] == [("seqft", 0.001, None), ("seqft", 0.01, None), ("seqft", 0.1, None)]
    assert tried[3:] == [("ewc", 0.01, value) for value in (1.0, 10.0, 100.0, 1000.0, 10000.0)]
    chosen = yaml.safe_load((tmp_path / "out" / "mini_cit1-tiny-base.yaml").read_text())
    assert chosen == {
        "benchmark": ["mini_cit1"],
        "model": "tiny-base",
        "epochs": 2,
        "tuning": "chosen on the validation stream by average accuracy, seeds 100",
        "strategies": {"seqft": {"lr": 0.01}, "ewc": {"lr": 0.01, "lambda_": 10000.0}},
    }
    trials = yaml.safe_load((tmp_path / "out" / "mini_cit1-tiny-base.trials.yaml").read_text())
    assert trials["seqft"] == {
        "option": "lr", "with": {}, "chosen": 0.01, "scores": {0.001: 49.99, 0.01: 50.0, 0.1: 49.91},
    }  # fmt: skip
    assert trials["ewc"]["with"] == {"lr": 0.01}
    assert trials["ewc"]["note"] == "still on the edge after 2 values more"


def test_a_grid_ends_where_the_option_does(script, asked: list, tmp_path: Path) -> None:
    script("--strategy", "eproj", "--output", "out")

    assert [c.threshold for c, _ in asked] == [0.2, 0.4, 0.8]
    trials = yaml.safe_load((tmp_path / "out" / "mini_cit1-tiny-base.trials.yaml").read_text())
    assert trials["eproj"]["chosen"] == 0.8
    assert "on the edge of what is possible: threshold is 1.6" in trials["eproj"]["note"]


def test_direct_tuning_counts_by_each_task_alone(script, asked: list, tmp_path: Path) -> None:
    script("--strategy", "directft", "--output", "out", "--further", "0")

    trials = yaml.safe_load((tmp_path / "out" / "mini_cit1-tiny-base.trials.yaml").read_text())
    assert trials["directft"]["scores"] == {0.001: 50.0, 0.01: 50.01, 0.1: 50.1}


def test_several_seeds_count_by_their_mean(script, asked: list, tmp_path: Path) -> None:
    script("--strategy", "seqft", "--seeds", "100", "101", "--output", "out")

    assert [c.seed for c, _ in asked] == [100, 101] * 3
    trials = yaml.safe_load((tmp_path / "out" / "mini_cit1-tiny-base.trials.yaml").read_text())
    assert trials["seqft"]["scores"] == {0.001: 50.99, 0.01: 51.0, 0.1: 50.91}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "ewcc"], "unknown strategy of a grid 'ewcc': did you mean 'ewc'?"),
        (["--grids", "grid.yaml"], "grid.yaml: no such file"),
        (["--further", "-1"], "--further of at least 0"),
        (["--model", "tiny-bass"], "did you mean 'tiny-base'?"),
        (["--stream", "test"], "unknown option '--stream'"),
    ],
)
def test_a_mistake_is_one_line(mistake, asked: list, arguments, message) -> None:
    assert message in mistake(*arguments)
    assert asked == []


def test_what_is_chosen_is_a_configuration_of_the_comparison(script, tmp_path: Path, monkeypatch) -> None:
    small = ["--train_samples=8", "--validation_samples=4", "--test-samples=4", "--epochs=1", "--batch-size=4"]
    (tmp_path / "grids.yaml").write_text("seqft: {lr: [0.0001, 0.001]}\n")
    script(*small, "--benchmark", "mini_cit1", "--output", "out", "--further", "0")

    trial = tmp_path / "out" / "mini_cit1" / "tiny-base" / "seqft-lr=0.001-seed100"
    scores = MatrixFile.read(trial / "matrix.json").scores
    trials = yaml.safe_load((tmp_path / "out" / "mini_cit1-tiny-base.trials.yaml").read_text())
    assert trials["seqft"]["scores"][0.001] == pytest.approx(sum(scores[-1]) / 5, abs=0.01)

    compare = runpy.run_path(str(SCRIPT.with_name("compare.py")))
    chosen = str(tmp_path / "out" / "mini_cit1-tiny-base.yaml")
    monkeypatch.setattr("sys.argv", ["compare.py", "--config", chosen, "--strategy", "seqft", "--seeds", "0"])
    plan = compare["planned_runs"](compare["make_parser"]())
    assert "seeds 100" in plan.tuning
    (config,) = plan.runs.values()
    assert config.lr == trials["seqft"]["chosen"]
    assert (config.train_samples, config.epochs, config.batch_size) == (8, 1, 4)
