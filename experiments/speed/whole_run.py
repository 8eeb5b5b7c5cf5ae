"""What a whole run of the matrix costs beside its bare training steps.

The run is the real one, and all of it counts: loading, training, every row of evaluation, checkpoints, files, report.
Before each of its tasks its clock stops, and the bare loop trains on that task; so both sides take turns within a run.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from avalanche.core import SupervisedPlugin
from benchmark_plugins import now

from avalanche_cit import building, runner
from avalanche_cit.building import load_tasks
from avalanche_cit.run_config import QUICK, RunConfig
from avalanche_cit.training.templates import InstructionTuning

from .job import Job
from .loops import bare_loop
from .rounds import FILLING, Compared, Ratio


class Turns(SupervisedPlugin):  # type: ignore[misc]
    """Lets a bare loop train on each task of a run before the run does, and keeps both clocks.

    Args:
        job: What the bare loop does.

    Attributes:
        run: Seconds of the run: until its first task, then from each task to the next.
        bare: Seconds of the bare loop on each task.
    """

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.model = job.load(cached=True)
        for experience in job.benchmark().train_stream:
            self.model.prepare(experience.dataset)
        self.run: list[float] = []
        self.bare: list[float] = []
        self._begin = 0.0

    def start(self) -> None:
        """Start the run's clock."""
        self._begin = now(self.job.device)

    def stop(self) -> None:
        """Stop it."""
        self.run.append(now(self.job.device) - self._begin)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Train on the task without it."""
        self.stop()
        task = self.job.tasks[strategy.experience.current_experience]
        begin = now(self.job.device)
        with torch.random.fork_rng():
            bare_loop(self.job, self.model, task)
        self.bare.append(now(self.job.device) - begin)
        self.start()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a run that is timed is not continued."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`."""


def compare_run(config: RunConfig, runs: int) -> Compared:
    """Carry out whole runs, the cache being filled on both sides.

    Args:
        config: The run; every choice made.
        runs: How many of them.
    """
    job = job_of(config)
    filled = job.fill()
    small = dataclasses.replace(config, **QUICK)
    taking_turns(small, job_of(small))  # warms both sides up
    found = [taking_turns(config, job) for _ in range(runs)]
    whole = [sum(turns.run) / sum(turns.bare) for turns in found]
    by_task = [run / bare for turns in found for run, bare in zip(turns.run[1:], turns.bare, strict=True)]
    ratio = Ratio("run_vs_bare_steps", by_task, statistics.median(whole), 1.25, at_most=True)
    details = {
        "samples trained on": job.samples,
        "whole runs": whole,
        "seconds of a run": [sum(turns.run) for turns in found],
        "seconds until the first task": [turns.run[0] for turns in found],
        "seconds of the bare steps": [sum(turns.bare) for turns in found],
        FILLING: filled,
    }
    return Compared([ratio], details)


def job_of(config: RunConfig) -> Job:
    """Return what a run trains on, as the bare loop takes it."""
    assert config.lr is not None
    return Job(
        model=config.model,
        tasks=load_tasks(config)[1],
        batch_size=config.batch_size,
        epochs=config.epochs,
        device=torch.device(config.device),
        warmup=config.warmup,
        lr=config.lr,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
    )


def taking_turns(config: RunConfig, job: Job) -> Turns:
    """Carry out a run whose tasks the bare loop trains on too, and return both clocks."""
    turns = Turns(job)

    def make_strategy(*given: Any) -> InstructionTuning:
        *parts, plugins, evaluator, processes = given
        return building.make_strategy(*parts, [*plugins, turns], evaluator, processes)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(runner, "make_strategy", make_strategy):
        turns.start()
        job.run(config, Path(folder) / "run")
        turns.stop()
    return turns
