"""Two processes do what one does: the same losses, penalties, weights and answers, and one run directory."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.processes import Processes, started_processes
from avalanche_cit.run_config import RunConfig

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "experiments" / "forgetting_matrix.py"
SMALL = ["--train-samples=24", "--validation-samples=4", "--test-samples=6", "--epochs=2", "--batch-size=8"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
FAST = ("seqft", "replay", "lwf", "ewc_tir", "eproj")
OF_IMPORTANCE = ("ewc", "ewc_per_sample", "mas", "mas_tir", "ewc_max")
SLOW = ("micro_batches", "by_length", "jointft", "directft", "similarity_replay", "seqft_projection", "eproj_reusing")
SLOW += OF_IMPORTANCE


def started(*command: str | Path, **variables: str) -> subprocess.Popen[str]:
    """Start a command as a launcher on a fresh machine would, with one thread a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **variables}
    pipe = subprocess.PIPE
    return subprocess.Popen([str(word) for word in command], stdout=pipe, stderr=pipe, text=True, env=environment)


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a command, and return its status and what it printed."""
    out, errors = process.communicate(timeout=900)
    return process.returncode, out, errors


def apart(one: Any, other: Any) -> float:
    """The largest difference, relative to the largest number."""
    first, second = (torch.as_tensor(numbers, dtype=torch.float64).flatten() for numbers in (one, other))
    return float((first - second).abs().max() / first.abs().max())


# ---- twenty steps in float64 ----


class Steps:
    """What `steps.py` keeps, of one process and of two, one run of it for the fast strategies and one for the slow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, strategy: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        names = FAST if strategy in FAST else SLOW
        one, two = self.folder / f"one-{len(names)}", self.folder / f"two-{len(names)}"
        if not one.exists():
            for folder, launcher in ((one, [sys.executable]), (two, TWO)):
                folder.mkdir()
                status, _, errors = finished(started(*launcher, HERE / "steps.py", folder, *names))
                assert status == 0, errors
        read = [torch.load(folder / f"{strategy}-rank{rank}.pt") for folder, rank in ((one, 0), (two, 0), (two, 1))]
        return read[0], read[1:]

    def answers(self, strategy: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
        names = FAST if strategy in FAST else SLOW
        folders = [self.folder / f"{kind}-{len(names)}" / f"{strategy}-rank0" for kind in ("one", "two")]
        one, two = ({str(f.relative_to(d)): f.read_bytes() for f in d.rglob("*.jsonl")} for d in folders)
        return one, two


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    return Steps(tmp_path_factory.mktemp("steps"))


@pytest.mark.parametrize("strategy", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_two_processes_train_as_one_does(steps: Steps, strategy: str) -> None:
    alone, together = steps.of(strategy)

    assert alone["processes"] == 1
    assert [part["processes"] for part in together] == [2, 2]
    assert len(alone["losses"]) == (19 if strategy == "jointft" else 20)
    assert len({round(loss, 12) for loss in alone["losses"]}) > 10
    for part in together:
        assert apart(alone["losses"], part["losses"]) < 1e-6
        assert part["weights"].keys() == alone["weights"].keys()
        for step, weights in alone["weights"].items():
            for name, weight in weights.items():
                assert apart(weight, part["weights"][step][name]) < 1e-6, (step, name)
    first, second = (part["weights"] for part in together)
    assert all(torch.equal(w, second[step][name]) for step, weights in first.items() for name, w in weights.items())


@pytest.mark.parametrize(
    "strategy", ["lwf", "ewc_tir", *(pytest.param(n, marks=pytest.mark.slow) for n in OF_IMPORTANCE)]
)
def test_two_processes_log_the_penalty_of_one(steps: Steps, strategy: str) -> None:
    alone, together = steps.of(strategy)

    assert len(alone["penalties"]) == 10
    assert all(penalty > 0 for penalty in alone["penalties"][1:])
    for part in together:
        assert apart(alone["penalties"], part["penalties"]) < 1e-6


@pytest.mark.parametrize("strategy", ["ewc_tir", *(pytest.param(n, marks=pytest.mark.slow) for n in OF_IMPORTANCE)])
def test_two_processes_estimate_the_importance_that_one_does(steps: Steps, strategy: str) -> None:
    alone, together = steps.of(strategy)
    largest = max(float(part.abs().max()) for part in alone["importance"][0])
    counted = [i for i, part in enumerate(alone["importance"][0]) if float(part.abs().max()) > 1e-16 * largest]

    assert len(counted) > len(alone["importance"][0]) / 2  # some weights have none, but for rounding
    for part in together:
        for i in counted:
            assert apart(alone["importance"][0][i], part["importance"][0][i]) < 1e-4


def test_two_processes_find_the_keys_that_one_does(steps: Steps) -> None:
    alone, together = steps.of("eproj")

    assert len(alone["keys"]) == 4
    for part in together:
        assert apart(torch.cat(alone["keys"]), torch.cat(part["keys"])) < 1e-6


@pytest.mark.parametrize("strategy", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_evaluation_is_shared_and_every_answer_is_there_once(steps: Steps, strategy: str) -> None:
    one, two = steps.answers(strategy)

    assert len(one) == 2
    assert [len(lines.splitlines()) for lines in one.values()] == [9, 9]
    assert two == one


# ---- a run ----


def small_run(folder: Path, *options: str, launcher: list[str] = TWO) -> subprocess.Popen[str]:
    return started(*launcher, SCRIPT, f"--output={folder}", *SMALL, *options)


def logged(folder: Path, name: str) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["value"] for line in lines if line["name"].startswith(name) and line["phase"] == "train"]


def test_a_run_of_two_processes_leaves_one_run_directory_and_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    options = ("--strategy", "ewc_tir", "--lambda_=100")
    status, out, errors = finished(small_run(tmp_path / "whole", *options))
    assert status == 0, errors
    assert out.count("ewc_tir, seed 0") == 1  # one process prints
    alone = small_run(tmp_path / "alone", *options, launcher=[sys.executable])
    ended = small_run(tmp_path / "ended", *options, "--checkpoint-steps=1")
    checkpoints = tmp_path / "ended" / "ewc_tir-seed0" / "checkpoints"
    while len(list(checkpoints.glob("*.json"))) < 2 or int(max(checkpoints.glob("*.json")).stem) < 20:
        assert ended.poll() is None, ended.communicate()
        time.sleep(0.05)
    ended.send_signal(signal.SIGTERM)
    assert finished(ended)[0] != 0
    assert not (checkpoints.parent / "provenance.json").exists()
    status, out, errors = finished(small_run(tmp_path / "ended", *options, "--checkpoint-steps=1"))
    assert status == 0, errors
    assert "resuming from step" in out
    assert finished(alone)[0] == 0

    whole, again, one = (tmp_path / name / "ewc_tir-seed0" for name in ("whole", "ended", "alone"))
    files = sorted(str(file.relative_to(whole)) for file in whole.rglob("*.jsonl"))
    assert len(files) == 1 + 6 * 5
    for file in (*files, "matrix.json", "checkpoints/final.safetensors"):
        assert (whole / file).read_bytes() == (again / file).read_bytes(), file
    assert {str(file.relative_to(one)) for file in one.rglob("*")} == {
        str(f.relative_to(whole)) for f in whole.rglob("*")
    }
    losses, own = logged(one, "Loss_MB"), logged(whole, "Loss_MB")
    assert len(losses) == len(own) == 5 * 2 * 3
    # in float32 Adam makes whole steps of rounding errors where gradients are zero, so the two drift apart slowly
    assert losses[:6] == pytest.approx(own[:6], rel=1e-2)
    assert sum(losses) == pytest.approx(sum(own), rel=0.1)
    assert sum(logged(one, "penalty")) == pytest.approx(sum(logged(whole, "penalty")), rel=0.5)
    assert sum(logged(whole, "penalty")) > 0
    assert MatrixFile.read(one / "matrix.json").scores[0] == MatrixFile.read(whole / "matrix.json").scores[0]


# ---- what is refused ----


def test_what_is_not_proved_is_refused_in_a_line(tmp_path: Path) -> None:
    status, _, errors = finished(small_run(tmp_path, "--strategy", "agem"))

    assert status != 0
    assert "error: AGEMPlugin is not proved to be right in several processes, so it is refused" in errors
    assert all(not file.read_text() for file in tmp_path.rglob("*.jsonl"))


def test_the_launcher_that_starts_a_single_process_is_found_out(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2"]
    status, _, errors = finished(small_run(tmp_path, "--processes=2", launcher=launcher))

    assert status != 0
    assert "error: 2 processes are asked for, and 1 started: begin with `torchrun --nproc_per_node 2 ...`" in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_engines_that_are_not_proved_are_refused(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    with pytest.raises(UserError, match="is not proved to train right here"):
        RunConfig(strategy="seqft").resolved()


@pytest.mark.parametrize("option", [{"device_map": "auto"}, {"quantization": "4bit", "lora": {"r": 4}}])
def test_options_that_are_not_proved_are_refused(option: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=f"{next(iter(option))} is not proved to be right in several processes"):
        RunConfig(strategy="seqft", **option).resolved()
    assert RunConfig(strategy="seqft").resolved().processes == 2


def test_more_processes_than_asked_for_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert started_processes() == started_processes(4) == 4
    with pytest.raises(UserError, match="2 processes are asked for, and 4 started"):
        started_processes(2)


@pytest.mark.parametrize("script", ["compare.py", "tune.py"])
def test_commands_for_one_process_are_not_started_twice(script: str, tmp_path: Path) -> None:
    command = (sys.executable, SCRIPT.with_name(script), f"--output={tmp_path / 'out'}")
    status, _, errors = finished(started(*command, WORLD_SIZE="2"))

    assert status == 2
    assert errors.startswith("error: this command is for one process")
    assert not (tmp_path / "out").exists()


# ---- shares ----


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("samples", [1, 2, 7])
def test_shares_are_all_samples_each_once(count: int, samples: int) -> None:
    shares = [Processes(count, rank).share(range(samples)) for rank in range(count)]

    assert sorted(sample for share in shares for sample in share) == list(range(samples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
