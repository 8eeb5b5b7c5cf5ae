"""The comparing script with several runs at a time, in processes and on Ray, stopped and with a worker killed."""

import json
import os
import re
import runpy
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

import avalanche_cit.benchmarks.mini as mini
from avalanche_cit.evaluation.verify import verify_run
from avalanche_cit.launching.watching import stage

SCRIPT = Path(__file__).parents[2] / "experiments" / "compare.py"
COMMAND = [
    "--benchmark=two.yaml", "--strategy", "seqft", "replay", "--seeds", "0", "1", "--threads=1", "--train_samples=16",
    "--validation_samples=2", "--test_samples=4", "--epochs=2", "--batch_size=4", "--checkpoint_steps=1",
]  # fmt: skip
WAYS = {"processes": ["--workers=2"], "ray": ["--ray=local", "--workers=2"]}
TABLES = ("comparison.csv", "runs.csv", "comparison.md", "comparison.tex")


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tables and runs as they are made one after another."""
    folder = tmp_path_factory.mktemp("runs")
    definitions = yaml.safe_load((Path(mini.__path__[0]) / "definitions.yaml").read_text())
    tasks = ["vqav2", "gqa"]
    document = {"name": "two", "version": 1, "description": "Two.", "drawn_by": "mini", "tasks": tasks}
    document["definitions"] = {task: definitions[task] for task in tasks}
    (folder / "two.yaml").write_text(yaml.safe_dump(document))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", [str(SCRIPT), *COMMAND, "--output=one_by_one"])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return folder / "one_by_one"


@contextmanager
def at_a_checkpoint(output: Path, act: Callable[[Path, int], None]) -> Iterator[list[Path]]:
    """Do something to the first run that saves a checkpoint of its training meanwhile; gives the folder, in a list."""
    before = set(output.glob("*/*/*/checkpoints/0*.json"))
    seen: list[Path] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and not seen:
            for file in set(output.glob("*/*/*/checkpoints/0*.json")) - before:
                folder = file.parents[1]
                holder = folder / ".lock.holder"
                training = stage(folder).startswith("task ")
                if training and holder.exists() and not (folder / "provenance.json").exists():
                    seen.append(folder)
                    act(folder, int(holder.read_text().split()[1]))
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    yield seen
    over.set()
    thread.join()


@pytest.mark.parametrize("way", WAYS)
def test_stopped_and_with_a_worker_killed_the_table_is_that_of_one_run_after_another(
    script: Callable[..., Any], one_by_one: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, way: str
) -> None:
    output, command = tmp_path / "out", [*COMMAND, "--output=out", *WAYS[way]]
    shutil.copy(one_by_one.with_name("two.yaml"), tmp_path)
    capfd.readouterr()

    with (
        at_a_checkpoint(output, lambda folder, worker: os.kill(os.getpid(), signal.SIGTERM)) as stopped,
        pytest.raises(SystemExit) as end,
    ):
        script(*command)
    assert end.value.code == 128 + signal.SIGTERM
    (begun,) = stopped
    assert not (begun / "provenance.json").exists()
    for lock in output.rglob(".lock"):
        with FileLock(lock, blocking=False):  # no worker has been left behind
            pass
    saved = {file.parents[1] for file in output.glob("*/*/*/checkpoints/0*.json")}
    printed = capfd.readouterr()
    assert "stopping: each run saves a checkpoint after the step at hand" in printed.out
    assert printed.err.splitlines()[-1].startswith("interrupted; what is saved is kept, and this goes on with it: ")
    assert re.fullmatch(r"task (vqav2|gqa), step \d+(, evaluating)?", stage(begun))

    with at_a_checkpoint(output, lambda folder, worker: os.kill(worker, signal.SIGKILL)) as killed:
        script(*command)
    (lost,) = killed
    printed = capfd.readouterr()
    assert printed.out.count("\nlost: ") == 1
    assert f"lost: two, {lost.name.replace('-seed', ', seed ')}: its worker was " in printed.out
    assert "batch/s" not in printed.out + printed.err
    assert "resuming from step " in (begun / "output.log").read_text(encoding="utf-8")
    assert (lost / "output.log").read_text(encoding="utf-8").count("resuming from step ") == 1 + (lost in saved)

    for name in TABLES:
        assert (output / name).read_bytes() == (one_by_one / name).read_bytes(), name
    folders = [matrix.parent for matrix in output.rglob("matrix.json")]
    assert len(folders) == 4
    for folder in folders:
        assert verify_run(folder) == []
        alone = one_by_one / folder.relative_to(output)
        for name in ("metrics.jsonl", "checkpoints/final.safetensors"):
            assert (folder / name).read_bytes() == (alone / name).read_bytes(), folder / name
        assert json.loads((folder / "provenance.json").read_text())["samples_seen"] > 0


def test_a_run_that_no_node_of_ray_has_room_for_is_refused(mistake: Callable[..., str]) -> None:
    said = mistake("--ray=local", "--threads=1", "--device=cuda", "--quick")
    assert "no node of Ray has what a run needs: CPU cores (--threads): 1, GPUs: 1" in said


def test_without_ray_it_says_what_to_install(mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'avalanche_cit[ray]'" in mistake("--ray=local", "--quick")
