"""Time and memory of each task in a stream of many: both have to stay what they were."""

from __future__ import annotations

import dataclasses
import gc
import math
import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import psutil
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import EvaluationPlugin
from benchmark_plugins import SilentLogger, now

from avalanche_cit.benchmarks.catalogue import benchmark_tasks
from avalanche_cit.benchmarks.scenario import instruction_benchmark
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.building import make_strategy
from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.processes import Processes
from avalanche_cit.run_config import RunConfig

from .job import Job

STRATEGIES = ("seqft", "replay", "ewc_tir", "eproj")
KINDS = 9
"""Tasks of `mini_cit2`, task 0's members among them: as many domains."""
ALLOWED = 1.10
_MB = 2**20


def grown(model: str, tasks: int, samples: int, epochs: int, strategies: Sequence[str] = STRATEGIES) -> dict[str, Any]:
    """Return seconds and megabytes per task for each strategy, and how they have grown.

    Each strategy has a process of its own, so that no memory is left over from another one.

    Args:
        model: The start.
        tasks: Length of the stream.
        samples: Training samples per task.
        epochs: Epochs per task.
        strategies: Their names.
    """
    found = {}
    for strategy in strategies:
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=fresh) as process:
            found[strategy] = process.submit(grow, strategy, model, tasks, samples, epochs).result()
    return found


def grow(strategy: str, model: str, tasks: int, samples: int, epochs: int) -> dict[str, Any]:
    """Tune one strategy on many tasks, evaluating each right after its training alone."""
    config = RunConfig(strategy=strategy, model=model, epochs=epochs, test_samples=20).resolved()
    stream = many_tasks(tasks, {"train": samples, "validation": 1, "test": 20})
    benchmark = instruction_benchmark(stream)
    assert config.lr is not None
    job = Job(config.model, stream, config.batch_size, epochs, torch.device(config.device), lr=config.lr)
    RNGManager.set_random_seeds(config.seed)
    lmm = job.load(trainable=str(config.trainable), cached=True)
    memory = Memory()
    evaluator = EvaluationPlugin(ForgettingMatrix(benchmark), loggers=[SilentLogger()])
    tuning = make_strategy(config, lmm, benchmark, [memory], evaluator, Processes())
    seconds = []
    for experience, test in zip(benchmark.train_stream, benchmark.test_stream, strict=True):
        gc.collect()
        memory.begin()
        begin = now(job.device)
        tuning.train(experience)
        seconds.append(now(job.device) - begin)
        tuning.eval([test])
    growth = {"seconds": growth_of(seconds), "megabytes": growth_of(memory.peaks)}
    return {"growth": growth, "seconds": seconds, "megabytes": memory.peaks}


def many_tasks(count: int, sizes: dict[str, int]) -> list[Task]:
    """Return tasks of the mini world, whose domains come round every `KINDS` tasks, drawn anew each time."""
    tasks: list[Task] = []
    for seed in range(math.ceil(count / KINDS)):
        members, sequence = benchmark_tasks("mini_cit2", seed=seed, sizes=sizes)
        tasks += [dataclasses.replace(task, name=f"{task.name}-{seed}") for task in (*members, *sequence)]
    return tasks[:count]


def growth_of(values: Sequence[float]) -> float:
    """Return the ratio of the last tasks' mean to that of the first ones that have tasks before them.

    Both means are over one round of domains, or over half of the stream where it is shorter than two.
    """
    window = min(KINDS, (len(values) - 1) // 2)
    return statistics.mean(values[-window:]) / statistics.mean(values[1 : 1 + window])


class Memory(SupervisedPlugin):  # type: ignore[misc]
    """Notes the most memory that each task held at the end of an update: on a GPU, or of this process.

    Attributes:
        peaks: Megabytes by task.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peaks: list[float] = []

    def begin(self) -> None:
        """Begin a task."""
        self.peaks.append(0.0)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """Look at it."""
        used = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _of_this_process()
        self.peaks[-1] = max(self.peaks[-1], used / _MB)


def _of_this_process() -> int:
    """Bytes; on Linux without what is a file's and can be read again, such as the pages of a cache on disk."""
    info = psutil.Process().memory_info()
    return int(info.rss - info.shared if psutil.LINUX else info.rss)
