"""How fast tuning and evaluation are, as ratios to what a user would run instead, all measured in one run.

    python experiments/benchmark_speed.py [--quick] [--json FILE.json] [--parts NAME ...] [--model NAME|FOLDER]
        [--benchmark NAME|YAML] [--rounds N] [--samples N]

Both sides of a ratio do the same work: the same start, data, batch size, precision and number of updates. They take
turns, round after round, after one that is not counted. Printed are medians, with the least and the greatest.

Parts: ``tuning`` (the Q-Former: ours without and with the cache, a bare PyTorch loop, Hugging Face's Trainer,
Avalanche's own loop), ``projection`` (EProj and Trainer), ``evaluation`` (ours, and one sample at a time), ``run`` (a
whole run of default size, and its bare training steps), ``numbers`` (losses and answers with and without the cache),
``growth`` (time and memory per task over a stream of 50), ``cost`` (the cost model of docs/scaling.md against the
clock). What is called cached has its cache filled before; what that costs stands in the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from rich.console import Console
from rich.table import Table
from speed.cost import compare_cost
from speed.evaluation import compare_evaluation
from speed.growth import ALLOWED, grown
from speed.job import Job
from speed.rounds import Compared, Ratio
from speed.same_numbers import compare_numbers
from speed.tuning import compare_projection, compare_tuning
from speed.whole_run import compare_run
from transformers.utils.logging import disable_progress_bar

from avalanche_cit.benchmarks.catalogue import benchmark_tasks
from avalanche_cit.command_line import Parser, run_main
from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.logging.provenance import circumstances, ingredients
from avalanche_cit.run_config import RunConfig
from avalanche_cit.whole_file import write_whole


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        rounds: Rounds that are counted.
        tasks: Tasks that are tuned on in a round.
        samples: Training samples of each.
        epochs: Epochs of each.
        evaluated: Tasks that are evaluated in a round.
        questions: Test samples of each.
        runs: Whole runs.
        growth_epochs: Epochs of each of the 50 tasks.
    """

    rounds: int
    tasks: int
    samples: int
    epochs: int
    evaluated: int
    questions: int
    runs: int
    growth_epochs: int


FULL = Scale(rounds=31, tasks=1, samples=128, epochs=3, evaluated=1, questions=200, runs=5, growth_epochs=3)
QUICK = Scale(rounds=5, tasks=1, samples=64, epochs=3, evaluated=1, questions=64, runs=1, growth_epochs=1)
GROWTH_TASKS, GROWTH_SAMPLES = 50, 100
PARTS = ("tuning", "projection", "evaluation", "run", "numbers", "growth", "cost")
QUICK_PARTS = PARTS[:5]


def main() -> None:
    """Measure part after part, print all ratios and write them."""
    parser = Parser(description="Speed of tuning and evaluation, as ratios to what a user would run instead.")
    parser.add_argument(
        "--quick", action="store_true", help="no growth and no cost, about five minutes on two cores that are idle"
    )
    parser.add_argument("--json", type=Path, help="file for the ratios and all that they were made from")
    known = f"of {', '.join(PARTS)} (default: all; quick: all but the last two)"
    parser.add_argument("--parts", type=str, nargs="+", default=[], help=known)
    parser.add_argument("--model", type=str, default="tiny-base", help="start, a BLIP-2 or InstructBLIP")
    parser.add_argument("--benchmark", type=str, default="mini_cit1", help="its first tasks are used")
    parser.add_argument("--batch_size", type=int, default=64, help="samples per update")
    parser.add_argument("--rounds", type=int, help=f"rounds that count (default: {FULL.rounds}; quick: {QUICK.rounds})")
    parser.add_argument("--samples", type=int, help="training samples per task, of a whole run excepted")
    options = parser.parse_args()
    options.parts = options.parts or list(QUICK_PARTS if options.quick else PARTS)
    for part in options.parts:
        if part not in PARTS:
            raise unknown_name("part", part, PARTS)
    given = {name: options[name] for name in ("rounds", "samples") if options[name] is not None}
    if min([options.batch_size, *given.values()]) < 1:
        raise UserError("--batch_size, --rounds and --samples must be above 0")
    if options.json is not None and not options.json.parent.is_dir():
        raise UserError(f"{options.json}: there is no folder {options.json.parent}; make it first")
    disable_progress_bar()
    scale = replace(QUICK if options.quick else FULL, **given)
    ratios, details = measured(scale, options)
    print_ratios(ratios)
    if "numbers" in details:
        print(f"with and without the cache: {spelled(details['numbers'])}")
    if "growth" in details:
        print_growth(details["growth"])
    if "cost" in details:
        print_cost(details["cost"])


def measured(scale: Scale, options: Any) -> tuple[list[Ratio], dict[str, Any]]:
    """Measure all parts that are asked for, and write what was found after each."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tasks = benchmark_tasks(options.benchmark, sizes={"train": scale.samples, "test": scale.questions}, task0=False)[1]

    def job(count: int) -> Job:  # each with a cache of its own
        return Job(options.model, tasks[:count], options.batch_size, scale.epochs, device)

    config = RunConfig(strategy="seqft", benchmark=options.benchmark, model=options.model, task0=False)
    parts: dict[str, Callable[[], Compared | dict[str, Any]]] = {
        "tuning": lambda: compare_tuning(job(scale.tasks), scale.rounds),
        "projection": lambda: compare_projection(job(scale.tasks), scale.rounds),
        "evaluation": lambda: compare_evaluation(job(scale.evaluated), scale.rounds),
        "run": lambda: compare_run(config.resolved(), scale.runs),
        "numbers": lambda: compare_numbers(job(1)),
        "growth": lambda: grown(options.model, GROWTH_TASKS, GROWTH_SAMPLES, scale.growth_epochs),
        "cost": lambda: compare_cost(scale.rounds, device),
    }
    ratios: list[Ratio] = []
    details: dict[str, Any] = {"scale": vars(scale), "start": options.model, "benchmark": options.benchmark}
    details |= ingredients(job(0).load(cached=False), tasks[: scale.tasks]) | circumstances(seed=0)
    for number, part in enumerate(options.parts, start=1):
        print(f"{part} ({number} of {len(options.parts)})", flush=True)
        found = parts[part]()
        if isinstance(found, Compared):
            ratios += found.ratios
            details |= {ratio.key: ratio.plain() for ratio in found.ratios}
            found = found.details
        details[part] = found
        if options.json is not None:  # what was found so far
            so_far = {"ratios": {ratio.key: ratio.value for ratio in ratios}, "details": details}
            write_whole(options.json, json.dumps(so_far, indent=2) + "\n")
    return ratios, details


def print_ratios(ratios: list[Ratio]) -> None:
    """Print medians and ranges, beside what is asked."""
    title = "how many times as fast; of a run, how many times its bare steps' time"
    table = Table(title=title, caption="cache: filled before the clock starts, on both sides of a run")
    for column in ("", "median", "least", "greatest", "asked", ""):
        table.add_column(column, justify="left" if column == "" else "right")
    for ratio in ratios:
        figures = (f"{figure:.2f}" for figure in (ratio.value, min(ratio.rounds), max(ratio.rounds)))
        table.add_row(ratio.key, *figures, ratio.demand, "" if ratio.met else "not reached")
    Console().print(table)


def print_growth(found: dict[str, Any]) -> None:
    """Print how time and memory per task have grown."""
    table = Table(title=f"last tasks of {GROWTH_TASKS} / first ones, at most {ALLOWED:.2f} asked")
    for column in ("strategy", "time per task", "memory", "seconds of the last task", "MB of the last task"):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for strategy, one in found.items():
        growth = (f"{one['growth'][kind]:.2f}" for kind in ("seconds", "megabytes"))
        table.add_row(strategy, *growth, f"{one['seconds'][-1]:.2f}", f"{one['megabytes'][-1]:.0f}")
    Console().print(table)


def print_cost(found: dict[str, Any]) -> None:
    """Print the errors of the cost model."""
    table = Table(title=f"predicted time / measured - 1, at {found['operations per second']:.2e} operations per second")
    sizes = list(found["sizes"].items())
    for column in ("", *sizes[0][1]):
        table.add_column(column, justify="left" if column == "" else "right")
    for size, parts in sizes:
        table.add_row(size, *(f"{cell['error']:+.0%}" for cell in parts.values()))
    Console().print(table)


def spelled(figures: dict[str, Any]) -> str:
    """Return figures with their names, as one line."""
    return ", ".join(
        f"{name} {figure:.1e}" if isinstance(figure, float) else f"{name} {figure:,}"
        for name, figure in figures.items()
    )


if __name__ == "__main__":
    run_main(main)
