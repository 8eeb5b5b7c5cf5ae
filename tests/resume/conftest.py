"""A server that carries out runs and breaks them off, runs that nothing interrupts, and how to tell two runs apart."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from avalanche_cit.evaluation.verify import verify_run

SMALL = {
    "train_samples": 16,
    "validation_samples": 4,
    "test_samples": 4,
    "epochs": 2,
    "batch_size": 8,
    "eval_batch_size": 2,
    "threads": 1,
    "checkpoint_steps": 2,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its exit status (negative: of which signal it died), what it did, and what it printed."""

    status: int
    events: list[str]
    output: str

    @property
    def error(self) -> str:
        """The one line that a user's mistake ends in."""
        assert self.status == 2, self.output
        errors = [line for line in self.output.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, self.output
        assert "Traceback" not in self.output
        assert "Exception ignored" not in self.output
        return errors[0].removeprefix("error: ")

    @property
    def last(self) -> str:
        return self.events[-1]

    def ended(self) -> "Outcome":
        """Check that the run reached its end."""
        assert self.status == 0, self.output
        return self


class Server:
    """Runs in processes of their own, see `kill_server`. It has mounts of its own, which end with it."""

    def __init__(self, logs: Path) -> None:
        self._log = str(logs / "run")
        root = subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
        own_mounts = ["unshare", "--mount"] if root else ["unshare", "--map-root-user", "--mount"]
        program = str(Path(__file__).with_name("kill_server.py"))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([*own_mounts, sys.executable, program], text=True, bufsize=1, **pipes)

    def run(
        self,
        config: dict[str, Any],
        folder: Path,
        *,
        at: int | None = None,
        of: str = "",
        do: int | str = 9,
        threads: int = 1,
    ) -> Outcome:
        """Carry out a run, or go on with it; at its `at`-th event with `of` in its name do something to it."""
        action = {"at": at, "of": of, "do": do}
        return self._ask({"config": config, "folder": str(folder), "log": self._log, "threads": threads, **action})

    def script(self, argv: list[str], *, at: int | None = None, of: str = "", do: int = 9) -> Outcome:
        """Run a script as from the command line; events as for `run`."""
        return self._ask({"argv": argv, "log": self._log, "threads": 1, "at": at, "of": of, "do": do})

    def shell(self, command: str) -> None:
        """Carry out a command among the server's own mounts."""
        done = self._ask({"shell": command})
        assert done.status == 0, done.output

    def seen(self, path: Path) -> Path:
        """The path under which the tests see what the server sees under `path`, its mounts included."""
        return Path(f"/proc/{self.process.pid}/root{path}")

    def _ask(self, question: dict[str, Any]) -> Outcome:
        self.process.stdin.write(json.dumps(question) + "\n")
        answer = self.process.stdout.readline()
        assert answer, "the kill server has ended"
        return Outcome(**json.loads(answer))


@pytest.fixture(scope="session")
def server(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.process.stdin.close()
    server.process.wait(timeout=60)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a run that takes seconds: two tasks, two epochs of two steps each, a checkpoint every other step."""
    about = {"name": "short", "version": 1, "description": "Two tasks.", "drawn_by": "mini"}
    definitions = str(resources.files("avalanche_cit.benchmarks") / "mini" / "definitions.yaml")
    file = tmp_path_factory.mktemp("benchmark") / "short.yaml"
    file.write_text(yaml.safe_dump({**about, "tasks": ["vqav2", "gqa"], "definitions": definitions}))
    return {**SMALL, "strategy": "seqft", "benchmark": str(file)}


@pytest.fixture(scope="session")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, list[str]]]:
    """Carry out a run that nothing interrupts, once; returns its folder, and what happened in it."""
    made: dict[str, tuple[Path, list[str]]] = {}

    def whole(config: dict[str, Any]) -> tuple[Path, list[str]]:
        key = json.dumps(config, sort_keys=True)
        if key not in made:
            folder = tmp_path_factory.mktemp("whole") / config["strategy"]
            made[key] = folder, server.run(config, folder).ended().events
        return made[key]

    return whole


@pytest.fixture(scope="session")
def differences() -> Callable[[Path, Path], list[str]]:
    """List the bits in which two finished runs differ, and what is wrong with the second one by itself."""

    def differences(expected: Path, folder: Path) -> list[str]:
        one, other = results(expected), results(folder)
        found = [_difference(name, one.get(name), other.get(name)) for name in sorted({**one, **other})]
        left = [path.name for path in folder.rglob("*") if "unfinished" in path.name]
        return [line for line in found if line] + verify_run(folder) + [f"{name} was left behind" for name in left]

    return differences


def results(folder: Path) -> dict[str, bytes]:
    """All that a run is for: the matrix, every logged number, the answers and the weights."""
    names = ("matrix.json", "matrix.csv", "metrics.jsonl", "checkpoints/final.safetensors")
    files = [*(folder / name for name in names), *(folder / "predictions").rglob("*")]
    read = {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}
    assert read.keys() >= set(names), f"{folder} holds only {', '.join(read)}"
    return read


def _difference(name: str, one: bytes | None, other: bytes | None) -> str | None:
    if one == other:
        return None
    if one is None or other is None:
        return f"{name}: is in one of the runs alone"
    pairs = enumerate(zip(one, other, strict=False))
    first = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    differ = sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
    places = f"{one[first : first + 40]!r} and {other[first : first + 40]!r}"
    return f"{name}: {differ} of {len(one)} bytes ({len(other)} in the other), the first at {first}: {places}"
