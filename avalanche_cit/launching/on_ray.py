"""Runs as tasks of Ray, on this machine or on a cluster whose nodes share a file system."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from avalanche_cit.errors import UserError
from avalanche_cit.launching.worker import Assignment, Ended, carry_out
from avalanche_cit.models.feature_cache import VisionFeatures


class RayTasks:
    """Workers that are processes of Ray. Every node must see the working folder and the data under the same paths.

    Args:
        address: ``local`` starts Ray on this machine; ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT`` joins a cluster.
        count: How many runs at a time; None: as many as there are CPU cores for.
        threads: CPU threads of a run, for which as many cores are set aside; None: the cores shared out among the runs
            at a time, or one where their number is not given.
        gpu: Whether a run needs a GPU; they are shared out like the cores, at least one for each run.

    Attributes:
        threads: CPU threads of a run that has no number of its own.

    Raises:
        UserError: Ray is not installed, there is no cluster at the address, or no node of it has the cores or the GPU.

    Example:
        >>> workers = RayTasks("local", count=2, threads=None, gpu=False)
    """

    elsewhere = True

    def __init__(self, address: str, count: int | None, threads: int | None, *, gpu: bool) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise UserError("--ray needs Ray, which is not installed: pip install 'avalanche_cit[ray]'") from None
        self._ray = ray
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address == "local":
            options["include_dashboard"] = False
            options["num_cpus"] = max(torch.get_num_threads(), (count or 1) * (threads or 1))
        try:
            ray.init(address=address, **options)
        except Exception as error:  # a machine that is too slow is a plain Exception to Ray
            raise UserError(f"cannot join Ray at '{address}': {error}") from error
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(node.get("CPU", 0)) for node in nodes]
        devices = [int(node.get("GPU", 0)) for node in nodes]
        self.threads = threads or max(1, min(max(cores), sum(cores) // (count or sum(cores))))
        self._count = count or max(1, sum(cores) // self.threads)
        gpus = max(1, min(max(devices), sum(devices) // self._count)) if gpu else 0
        if not any(c >= self.threads and g >= gpus for c, g in zip(cores, devices, strict=True)):
            ray.shutdown()
            raise UserError(f"no node of Ray has what a run needs: CPU cores (--threads): {self.threads}, GPUs: {gpus}")
        self._task = ray.remote(num_cpus=self.threads, num_gpus=gpus, max_retries=0)(_task)
        self._folders: dict[Any, Path] = {}

    @property
    def free(self) -> bool:
        """Whether a run can be started."""
        return len(self._folders) < self._count

    def start(self, assignment: Assignment) -> None:
        """Hand a run to Ray, which starts it where there is room."""
        self._folders[self._task.remote(assignment, os.getcwd())] = assignment.folder

    def wait(self, seconds: float) -> list[Ended]:
        """Wait until a run ends, or some seconds; return what became of those that have ended."""
        ready, _ = self._ray.wait(list(self._folders), num_returns=1, timeout=seconds)
        return [self._take(task) for task in ready]

    def stop(self) -> None:
        """Have every run save a checkpoint after the step at hand, and wait until all have."""
        tasks = list(self._folders)
        for task in tasks:
            self._ray.cancel(task)  # in a run that is under way it is what Ctrl-C would be
        if tasks:
            self._ray.wait(tasks, num_returns=len(tasks))

    def close(self) -> None:
        """Leave the cluster, or end the one that was started; a run that is under way ends at once."""
        self._ray.shutdown()

    def _take(self, task: Any) -> Ended:
        """Return what a task says about its run, or why it cannot."""
        folder = self._folders.pop(task)
        try:
            ended: Ended = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            return Ended(folder, str(error).strip().splitlines()[-1])
        except self._ray.exceptions.RayError as error:
            return Ended(folder, f"its worker was lost ({type(error).__name__})", worker_lost=True)
        return ended


def _task(assignment: Assignment, working_folder: str) -> Ended:
    os.chdir(working_folder)
    return carry_out(assignment, VisionFeatures())
