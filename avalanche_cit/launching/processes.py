"""Runs in processes of this machine, several at a time. One that is killed takes no other with it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from avalanche_cit.launching.worker import Assignment, Ended, carry_out
from avalanche_cit.models.feature_cache import VisionFeatures


@dataclass
class _Worker:
    """A process, its end of the line, its place among the workers, and the run that it has."""

    process: BaseProcess
    line: Any
    place: int
    folder: Path | None = None


class WorkerProcesses:
    """Workers that are fresh processes of this machine; each takes one run after another.

    CPU threads and GPUs are shared out among them: with fewer workers than GPUs each has several, with more they take
    them in turn.

    Args:
        count: How many runs at a time.
        gpus: The GPUs to share out, as ``CUDA_VISIBLE_DEVICES`` names them; empty: what each run's device says.

    Attributes:
        threads: CPU threads of a run that has no number of its own.

    Example:
        >>> workers = WorkerProcesses(4, gpus=visible_gpus())
    """

    elsewhere = True

    def __init__(self, count: int, gpus: Sequence[str] = ()) -> None:
        self.threads = max(1, torch.get_num_threads() // count)
        self._count = count
        self._gpus = gpus
        self._workers: list[_Worker] = []

    @property
    def free(self) -> bool:
        """Whether a run can be started."""
        return sum(worker.folder is not None for worker in self._workers) < self._count

    def start(self, assignment: Assignment) -> None:
        """Give a run to a worker that has none."""
        idle = [worker for worker in self._workers if worker.folder is None and worker.process.is_alive()]
        worker = idle[0] if idle else self._new_worker()
        worker.folder = assignment.folder
        with suppress(OSError):  # it is dead already: `wait` finds it so
            worker.line.send(assignment)

    def wait(self, seconds: float) -> list[Ended]:
        """Wait until a run ends, or some seconds; return what became of those that have ended."""
        busy = [worker for worker in self._workers if worker.folder is not None]
        connection.wait([end for worker in busy for end in (worker.line, worker.process.sentinel)], seconds)
        return [self._take(worker) for worker in busy if worker.line.poll() or not worker.process.is_alive()]

    def stop(self) -> None:
        """Have every run save a checkpoint after the step at hand, and wait until all have."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()

    def close(self) -> None:
        """End all workers, a run that is under way at once."""
        for worker in self._workers:
            worker.line.close()  # one that waits for a run ends by that
            if worker.folder is not None:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    def _new_worker(self) -> _Worker:
        self._workers = [worker for worker in self._workers if worker.process.is_alive()]
        place = min(set(range(self._count)) - {worker.place for worker in self._workers})
        environment = {"OMP_NUM_THREADS": str(self.threads)}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(share(self._gpus, place, self._count))
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,), name=f"worker {place + 1}")
        with _inherited(environment), _ctrl_c_is_the_parents():
            process.start()
        theirs.close()
        worker = _Worker(process, ours, place)
        self._workers.append(worker)
        return worker

    def _take(self, worker: _Worker) -> Ended:
        """Return what a worker says about its run, or that it died without a word."""
        assert worker.folder is not None
        ended = Ended(worker.folder, worker_lost=True)
        if worker.line.poll():
            with suppress(EOFError, OSError):
                ended = worker.line.recv()
        worker.folder = None
        if not ended.worker_lost:
            return ended
        worker.process.join()
        worker.line.close()
        self._workers.remove(worker)
        return ended if ended.failure else Ended(ended.folder, _died(worker.process.exitcode), worker_lost=True)


def share(gpus: Sequence[str], place: int, count: int) -> Sequence[str]:
    """Return the GPUs of one worker.

    Example:
        >>> [share(["0", "1", "2"], place, count=2) for place in range(2)]
        [['0', '2'], ['1']]
        >>> [share(["0", "1"], place, count=3) for place in range(3)]
        [['0'], ['1'], ['0']]
    """
    return gpus[place % len(gpus) :: count]


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _work(line: Any) -> None:
    """Carry out one run after another, until the parent process has no more, or is gone."""
    os.setpgrp()  # Ctrl-C reaches the parent alone, which asks each worker once
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    features = VisionFeatures()
    with suppress(EOFError, OSError):
        while True:
            ended = carry_out(line.recv(), features)
            line.send(ended)
            if ended.worker_lost:
                break


def _end_with_the_parent() -> None:
    """Have the run saved when the parent process dies, so that the same command can go on with it."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _died(status: int | None) -> str:
    if status is not None and status < 0:
        return f"its worker was killed by {signal.Signals(-status).name}"
    return f"its worker ended with status {status}"


@contextmanager
def _inherited(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a process that is started meanwhile: libraries read them as they are imported."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _ctrl_c_is_the_parents() -> Iterator[None]:
    """Have a process that is started meanwhile ignore Ctrl-C, which reaches it until it has a group of its own."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
