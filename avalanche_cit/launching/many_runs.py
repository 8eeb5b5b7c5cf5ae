"""Many runs, by whatever workers: a lost worker's run goes on in another, and one that fails keeps no other from it."""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.live import Live

from avalanche_cit.benchmarks.catalogue import find_benchmark
from avalanche_cit.errors import Interrupted
from avalanche_cit.launching.watching import overview
from avalanche_cit.launching.worker import Assignment, Ended
from avalanche_cit.run_config import RunConfig
from avalanche_cit.training.interruption import stop_on_signals

WORKERS_PER_RUN = 4
"""Workers that one run may lose, less one: whatever kills each of them is in the run itself."""


class Workers(Protocol):
    """What carries out runs.

    Attributes:
        elsewhere: Whether in other processes, so that this one can show how far they are.
        threads: CPU threads of a run that has no number of its own.
    """

    elsewhere: bool
    threads: int

    @property
    def free(self) -> bool:
        """Whether a run can be started."""

    def start(self, assignment: Assignment) -> None:
        """Start a run, where there is room for it."""

    def wait(self, seconds: float) -> list[Ended]:
        """Wait until a run ends, or some seconds; return what became of those that have ended."""

    def stop(self) -> None:
        """Have every run save a checkpoint after the step at hand, and wait until all have."""

    def close(self) -> None:
        """End all workers, a run that is under way at once."""


def carry_out_all(
    runs: Mapping[Path, RunConfig],
    workers: Workers,
    console: Console,
    when_finished: Callable[[Path], None],
) -> dict[Path, str]:
    """Carry out runs, each by its run directory; those that are finished already are left as they are.

    SIGINT and SIGTERM have every run save a checkpoint after its optimizer step and raise `Interrupted`.

    Args:
        runs: What to run, by run directory.
        workers: What carries them out.
        console: Where it is said which run starts, is lost, fails or ends.
        when_finished: Called with the folder of each run that is finished.

    Returns:
        Why, in one line, of each run that could not be finished.

    Raises:
        Interrupted: A signal asked the process to end.

    Example:
        >>> failures = carry_out_all({Path("runs/seqft-seed0"): config}, WorkerProcesses(2), Console(), print)
    """
    names = {folder: name_of(config) for folder, config in runs.items()}
    finished = [folder for folder in runs if _is_finished(folder)]
    for folder in finished:
        when_finished(folder)
    waiting = deque(folder for folder in runs if folder not in finished)
    running: list[Path] = []
    lost: Counter[Path] = Counter()
    failures: dict[Path, str] = {}

    def begin(folder: Path) -> None:
        console.print(f"run {list(runs).index(folder) + 1} of {len(runs)}: {names[folder]}")
        running.append(folder)
        workers.start(Assignment(folder, runs[folder], workers.threads, again=lost[folder] > 0))

    def end(ended: Ended) -> None:
        folder = ended.folder
        running.remove(folder)
        if not ended.failure:
            finished.append(folder)
            when_finished(folder)
            console.print(f"finished, {len(finished)} of {len(runs)}: {names[folder]}")
            return
        lost[folder] += ended.worker_lost
        if ended.worker_lost and lost[folder] < WORKERS_PER_RUN:
            waiting.append(folder)
            console.print(f"lost: {names[folder]}: {ended.failure}; another one will go on with it")
            return
        failures[folder] = ended.failure
        if ended.worker_lost:
            failures[folder] += f", and so were {WORKERS_PER_RUN - 1} before it"
        console.print(f"failed: {names[folder]}: {failures[folder]}")

    shown = Live(console=console, auto_refresh=False, transient=True) if workers.elsewhere else nullcontext()
    with stop_on_signals() as stop:
        try:
            with shown as live:
                while waiting or running:
                    while waiting and workers.free:
                        begin(waiting.popleft())
                    if live is not None:
                        told = f"{len(finished)} of {len(runs)} runs are finished, {len(waiting)} wait"
                        live.update(overview(told, {names[folder]: folder for folder in running}), refresh=True)
                    for ended in workers.wait(1.0):
                        end(ended)
        except KeyboardInterrupt:  # an `Interrupted`, or what Ray makes of it
            if workers.elsewhere:
                console.print("stopping: each run saves a checkpoint after the step at hand; once more stops at once")
            workers.stop()
            raise Interrupted(stop.requested or signal.SIGINT) from None
        finally:
            workers.close()
    return failures


def name_of(config: RunConfig) -> str:
    """Return what a run is called on the terminal: ``mini_cit1, replay, seed 0``."""
    return f"{find_benchmark(config.benchmark).name}, {config.strategy}, seed {config.seed}"


def _is_finished(folder: Path) -> bool:
    """Whether nothing of a run is left to do; its report is the last that it writes."""
    return (folder / "provenance.json").exists() and (folder / "report.html").exists()
