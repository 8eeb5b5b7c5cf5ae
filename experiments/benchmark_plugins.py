"""What the methods cost: the time of their training steps and importance passes as ratios to SeqFT's, in one run.

    python experiments/benchmark_plugins.py [--model NAME|FOLDER] [--benchmark NAME|YAML] [--samples N] [--rounds N]
        [--output FILE.json]

Every strategy first learns one task; then all of them train on a second one in turn, round after round, so that
whatever else slows the machine down falls on all alike. Printed are medians over the rounds of the ratio to SeqFT in
the same round, with the least and the greatest.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from avalanche_cit.benchmarks import load_benchmark
from avalanche_cit.command_line import Parser, run_main
from avalanche_cit.errors import UserError
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.models.lmm import LMM
from avalanche_cit.training import AGEM, EWC, MAS, TIR, EWCImportance, LwF, MASImportance, Replay, SeqFT

METHODS: dict[str, Callable[..., SeqFT]] = {
    "seqft": SeqFT,
    "ewc": lambda **options: EWC(lambda_=1.0, **options),
    "mas": lambda **options: MAS(lambda_=1.0, **options),
    "tir": lambda **options: TIR(lambda_=1e4, **options),
    "lwf": lambda **options: LwF(lambda_=1.0, **options),
    "agem": lambda **options: AGEM(memory_size=64, **options),
    "replay": lambda **options: Replay(memory_size=64, **options),
}
ALLOWED = {"ewc": 1.10, "mas": 1.10, "tir": 1.10, "lwf": 1.6, "agem": 2.3, "importance pass, per batch": 1.5}


class EpochTimer(SupervisedPlugin):  # type: ignore[misc]
    """Measures the seconds of each epoch of training, data loading included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._begin = 0.0

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._begin = now(strategy.device)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        self.seconds.append(now(strategy.device) - self._begin)


def main() -> None:
    """Time every method in turn, round after round."""
    parser = Parser(description="The time that methods take, as ratios to sequential tuning.")
    parser.add_argument("--model", type=str, default="tiny-base", help="start")
    parser.add_argument("--benchmark", type=str, default="mini_cit1", help="its first two tasks are used")
    parser.add_argument("--samples", type=int, default=320, help="training samples per task")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each method that are timed")
    parser.add_argument("--batch_size", type=int, default=64, help="samples per optimizer step")
    parser.add_argument("--output", type=Path, help="JSON file of all ratios")
    options = parser.parse_args()
    if min(options.samples, options.rounds, options.batch_size) < 1:
        raise UserError("--samples, --rounds and --batch_size must be above 0")
    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {"train": options.samples, "validation": 8, "test": 8}
    benchmark = load_benchmark(options.benchmark, sizes=sizes)
    features = VisionFeatures()
    strategies, timers = {}, {}
    for name, method in METHODS.items():
        timers[name] = EpochTimer()
        strategies[name] = method(
            model=LMM.from_pretrained(options.model, vision_features=features),
            train_mb_size=options.batch_size,
            plugins=[timers[name]],
            evaluator=EvaluationPlugin(loggers=[SilentLogger()]),
            device=device,
        )
        strategies[name].train(benchmark.train_stream[0])
        timers[name].seconds.clear()
    ratios: dict[str, list[float]] = {name: [] for name in (*METHODS, *PASSES) if name != "seqft"}
    for round_ in range(options.rounds):
        for strategy in strategies.values():
            strategy.train(benchmark.train_stream[1])
        base = timers["seqft"].seconds[round_]
        for name in METHODS.keys() - {"seqft"}:
            ratios[name].append(timers[name].seconds[round_] / base)
        dataset = benchmark.train_stream[1].dataset
        for title, importance in PASSES.items():
            begin = now(strategies["seqft"].device)
            importance.estimate(strategies["seqft"], dataset)
            ratios[title].append((now(strategies["seqft"].device) - begin) / base)
    print_ratios(ratios)
    if options.output is not None:
        options.output.write_text(json.dumps(ratios, indent=2) + "\n", encoding="utf-8")


PASSES = {
    "importance pass, per batch": EWCImportance(),
    "importance pass of MAS, per batch": MASImportance(),
    "importance pass, per sample": EWCImportance(per_sample=True),
}


class SilentLogger(SupervisedPlugin):  # type: ignore[misc]
    """Takes what is logged and drops it."""

    def log_metrics(self, metric_values: list[Any]) -> None:
        """Drop."""


def now(device: torch.device) -> float:
    """Return the time, once all work on a GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def print_ratios(ratios: dict[str, list[float]]) -> None:
    """Print medians and ranges, beside what is asked of each method."""
    table = Table(title="time of an epoch, as a ratio to SeqFT's in the same round")
    for column in ("method", "median", "least", "greatest", "asked"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, values in ratios.items():
        asked = f"<= {ALLOWED[name]:.2f}" if name in ALLOWED else ""
        table.add_row(name, *(f"{f(values):.2f}" for f in (statistics.median, min, max)), asked)
    Console().print(table)


if __name__ == "__main__":
    run_main(main)
