"""Samples per second of tuning the bridge, and of tuning the projection alone as EProj does."""

from __future__ import annotations

from typing import Any

from avalanche.training.plugins import EvaluationPlugin
from benchmark_plugins import SilentLogger

from avalanche_cit.training import EProj, SeqFT

from .job import Job
from .loops import bare_loop, naive_loop, stock_naive, trainer_loop
from .rounds import FILLING, Compared, Side, Work, alternate, rates, times_as_fast


def compare_tuning(job: Job, rounds: int) -> Compared:
    """Tune the Q-Former with a bare loop, Trainer, Avalanche's own loop, and ours without and with the cache."""
    sides = [
        Side("avalanche", lambda: _naive(job)),
        Side("bare", lambda: _bare(job)),
        Side("ours", lambda: _ours(job, cached=False)),
        Side("trainer", lambda: _trainer(job, "bridge")),
        Side("ours, cached", lambda: _ours(job, cached=True)),
    ]
    filled = job.fill()
    seconds = alternate(sides, rounds, job.device)
    ratios = [
        times_as_fast("train_no_cache_vs_bare", 0.95, seconds, "ours", "bare"),
        times_as_fast("train_no_cache_vs_trainer", 1.0, seconds, "ours", "trainer"),
        times_as_fast("train_no_cache_vs_avalanche", 1.0, seconds, "ours", "avalanche"),
        times_as_fast("train_cache_vs_trainer", 1.15, seconds, "ours, cached", "trainer"),
    ]
    details = {"samples": job.samples, "samples per second": rates(seconds, job.samples), FILLING: filled}
    return Compared(ratios, details)


def compare_projection(job: Job, rounds: int) -> Compared:
    """Tune the projection with Trainer, and with EProj, which learns its keys within the time that is measured."""
    sides = [
        Side("trainer", lambda: _trainer(job, "projection")),
        Side("eproj, cached", lambda: _eproj(job)),
    ]
    filled = job.fill("projection")
    seconds = alternate(sides, rounds, job.device)
    ratio = times_as_fast("eproj_cache_vs_trainer", 2.0, seconds, "eproj, cached", "trainer")
    details = {"samples": job.samples, "samples per second": rates(seconds, job.samples), FILLING: filled}
    return Compared([ratio], details)


def options(job: Job) -> dict[str, Any]:
    """Return a strategy's options for the job."""
    return {
        "lr": job.lr,
        "weight_decay": job.weight_decay,
        "warmup": job.warmup,
        "max_grad_norm": job.max_grad_norm,
        "train_mb_size": job.batch_size,
        "train_epochs": job.epochs,
        "device": job.device,
        "evaluator": EvaluationPlugin(loggers=[SilentLogger()]),
    }


def _bare(job: Job) -> Work:
    model = job.load(cached=False)
    return lambda: [bare_loop(job, model, task) for task in job.tasks]


def _trainer(job: Job, trainable: str) -> Work:
    model = job.load(trainable=trainable, cached=False)
    return lambda: trainer_loop(job, model)


def _naive(job: Job) -> Work:
    strategy = stock_naive(job, job.load(cached=False))
    benchmark = job.benchmark()
    return lambda: naive_loop(strategy, benchmark)


def _ours(job: Job, *, cached: bool) -> Work:
    strategy = SeqFT(model=job.load(cached=cached), **options(job))
    benchmark = job.benchmark()
    return lambda: [strategy.train(experience) for experience in benchmark.train_stream]


def _eproj(job: Job) -> Work:
    strategy = EProj(model=job.load(trainable="projection", cached=True), **options(job))
    benchmark = job.benchmark()
    return lambda: [strategy.train(experience) for experience in benchmark.train_stream]
