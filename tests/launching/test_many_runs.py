"""Which runs are begun again and which are given up, and how threads and GPUs are shared out."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from rich.console import Console

from avalanche_cit.launching import WorkerProcesses, carry_out_all, processes
from avalanche_cit.launching.many_runs import WORKERS_PER_RUN
from avalanche_cit.launching.processes import share, visible_gpus
from avalanche_cit.launching.watching import stage
from avalanche_cit.launching.worker import Assignment, Ended
from avalanche_cit.run_config import RunConfig


class Scripted:
    """Workers of which each run says what becomes of it, time after time; nothing where it finishes."""

    elsewhere = False
    threads = 1

    def __init__(self, fates: dict[str, list[Ended]], count: int = 1) -> None:
        self.fates = fates
        self.count = count
        self.given: list[Assignment] = []
        self.begun: Counter[str] = Counter()
        self.running: list[Assignment] = []
        self.closed = False

    @property
    def free(self) -> bool:
        return len(self.running) < self.count

    def start(self, assignment: Assignment) -> None:
        self.given.append(assignment)
        self.running.append(assignment)

    def wait(self, seconds: float) -> list[Ended]:
        folder = self.running.pop(0).folder
        fates = self.fates.get(folder.name, [])
        return [fates.pop(0) if fates else Ended(folder)]

    def stop(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self.closed = True


def carried_out(workers: Scripted) -> tuple[list[str], dict[Path, str], str]:
    runs = {Path(f"nowhere/{name}"): RunConfig(strategy="seqft", seed=i) for i, name in enumerate("abc")}
    console = Console(record=True, width=200, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    finished: list[Path] = []
    failures = carry_out_all(runs, workers, console, finished.append)
    assert workers.closed
    return [folder.name for folder in finished], failures, console.export_text()


def lost(name: str, times: int) -> dict[str, list[Ended]]:
    return {name: [Ended(Path(f"nowhere/{name}"), "its worker was killed by SIGKILL", worker_lost=True)] * times}


def test_a_lost_workers_run_goes_on_after_the_others() -> None:
    workers = Scripted(lost("a", 1))
    finished, failures, told = carried_out(workers)
    assert (finished, failures) == (["b", "c", "a"], {})
    assert [(given.folder.name, given.again) for given in workers.given] == [
        ("a", False), ("b", False), ("c", False), ("a", True),
    ]  # fmt: skip
    assert "lost: mini_cit1, seqft, seed 0: its worker was killed by SIGKILL; another one will go on with it" in told


def test_a_run_that_loses_every_worker_is_given_up() -> None:
    workers = Scripted(lost("b", 100))
    finished, failures, told = carried_out(workers)
    assert finished == ["a", "c"]
    reason = f"its worker was killed by SIGKILL, and so were {WORKERS_PER_RUN - 1} before it"
    assert failures == {Path("nowhere/b"): reason}
    assert f"failed: mini_cit1, seqft, seed 1: {reason}" in told
    assert sum(given.folder.name == "b" for given in workers.given) == WORKERS_PER_RUN


def test_a_users_mistake_is_not_tried_again() -> None:
    workers = Scripted({"a": [Ended(Path("nowhere/a"), "the disk is full")]}, count=2)
    finished, failures, _ = carried_out(workers)
    assert (finished, failures) == (["b", "c"], {Path("nowhere/a"): "the disk is full"})
    assert len(workers.given) == 3


@pytest.mark.parametrize(
    ("gpus", "count", "shares"),
    [("012", 2, ["02", "1"]), ("01", 3, ["0", "1", "0"]), ("0", 1, ["0"]), ("0123", 4, ["0", "1", "2", "3"])],
)
def test_gpus_are_shared_out(gpus: str, count: int, shares: list[str]) -> None:
    assert ["".join(share(list(gpus), place, count)) for place in range(count)] == shares


def test_only_visible_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8932f937")
    assert visible_gpus() == ["3", "GPU-8932f937"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ["0", "1"]


@pytest.mark.parametrize(("threads", "count", "each"), [(8, 3, 2), (8, 16, 1), (1, 1, 1)])
def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch, threads: int, count: int, each: int) -> None:
    monkeypatch.setattr(processes.torch, "get_num_threads", lambda: threads)
    assert WorkerProcesses(count).threads == each


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "starting"),
        ('{"step": 3, "task": "gq', "starting"),
        ('{"step": 3, "task": null, "phase": "eval"}\n', "before the first task"),
        ('{"step": 3, "task": "gqa", "phase": "train"}\n', "task gqa, step 3"),
        ('{"step": 4, "task": "gqa", "phase": "eval"}\n{"step": 5, "ta', "task gqa, step 4, evaluating"),
        (" " * 5000 + '\n{"step": 6, "task": "gqa", "phase": "train"}\n', "task gqa, step 6"),
    ],
)
def test_how_far_a_run_is(tmp_path: Path, text: str, told: str) -> None:
    assert stage(tmp_path) == "starting"
    (tmp_path / "metrics.jsonl").write_text(text)
    assert stage(tmp_path) == told
