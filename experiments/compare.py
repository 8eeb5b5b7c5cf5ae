"""Compare strategies over seeds and orders of tasks, in one table.

    python experiments/compare.py [--benchmark NAME|YAML ...] [--strategy NAME ...] [--seeds N ...]
        [--model NAME|FOLDER] [--output DIR] [--quick] [--workers N] [--ray local|ADDRESS] [--config YAML]
        [any other option]

Runs go to DIR/BENCHMARK/MODEL/STRATEGY-seedN/; finished ones are used again, unfinished ones go on. Several benchmarks
with the same tasks are several orders of them, and are also pooled. A method's own options stand in the YAML file::

    strategies: {ewc: {lambda_: 100.0}, eproj: {threshold: 0.4}}

Written into DIR after every run: runs.csv (a line per run), comparison.csv, .md and .tex; in the end comparison.png and
report.html. Several runs at a time, on one machine or many: docs/many_runs.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import jsonargparse
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from avalanche_cit.benchmarks.catalogue import find_benchmark
from avalanche_cit.command_line import ConfigFile, Parser, run_main, this_command
from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.evaluation.comparison import (
    REFERENCES,
    ComparedRun,
    Comparison,
    compare,
    estimators,
    latex,
    markdown,
    observations,
)
from avalanche_cit.launching import InThisProcess, RayTasks, WorkerProcesses, Workers, carry_out_all, name_of
from avalanche_cit.launching.processes import visible_gpus
from avalanche_cit.logging.plots import plot_comparison, save_figure
from avalanche_cit.logging.report import NAMES, write_report
from avalanche_cit.models.loading import SHIPPED
from avalanche_cit.processes import Processes, be_alone
from avalanche_cit.run_config import STRATEGIES, RunConfig, add_run_options, check_has_option, quickened
from avalanche_cit.runner import open_run
from avalanche_cit.whole_file import whole_file, write_whole

OF_ALL_RUNS = (
    "strategy",
    "benchmark",
    "model",
    "seed",
    "stream",
    "task0",
    "train_samples",
    "validation_samples",
    "test_samples",
    "bf16",
    "dtype",
    "device",
    "cache_features",
    "data_root",
    "image_root",
    "on_bad_sample",
)
"""Options that one strategy cannot have for itself: its runs would start from, or be measured on, something else."""

COLUMNS = {
    **NAMES,
    **{f"{name}_relative": f"{title}, % of DirectFT" for name, title in NAMES.items()},
    "superficial": "superficial forgetting",
    "task0_average_last": "task 0: average at the end",
    "task0_forgetting": "task 0: forgetting",
    "routing_accuracy": "routing accuracy",
    "oracle_average_accuracy": "average accuracy, routed right",
    "samples_seen": "samples seen",
}


@dataclass(frozen=True)
class Plan:
    """What the command line asks for.

    Attributes:
        runs: Every run by its folder, resolved and checked.
        output: The folder of all.
        tuning: How the options were chosen.
        workers: How many runs at a time; None: one, or as many as Ray has cores for.
        ray: Address of Ray, where it carries the runs out.
    """

    runs: dict[Path, RunConfig]
    output: Path
    tuning: str
    workers: int | None
    ray: str | None


def main() -> None:
    """Run what is missing, print the tables, and write them."""
    plan = planned_runs(make_parser())
    for folder, config in plan.runs.items():
        if folder.exists():
            open_run(config, folder, Processes())  # refuses a run of other options, before hours of work

    try:
        plan.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {plan.output}: {error.strerror}; give another --output") from None

    disable_progress_bar()  # transformers' own, for files that take no time here
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, 140)  # a log has no edge to fold tables at
    finished: dict[Path, ComparedRun] = {}

    def when_finished(folder: Path) -> None:
        finished[folder] = ComparedRun.read(folder)
        write(plan, finished)

    failures = carry_out_all(plan.runs, make_workers(plan, console), console, when_finished)

    if finished:
        show(plan, finished, console)
    if failures:
        listed = "; ".join(f"{name_of(plan.runs[folder])}: {failure}" for folder, failure in failures.items())
        raise UserError(
            f"{len(failures)} of {len(plan.runs)} runs are not finished: {listed}; "
            f"what is saved is kept, and this goes on with them: {this_command()}"
        )


def make_parser() -> Parser:
    """Return the parser of the command line: the script's own options, and those of a run."""
    parser = Parser(description="Strategies x seeds x orders of tasks in, one table out.")
    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of these options")
    benchmarks = "names or YAML files; several with the same tasks are orders of them"
    parser.add_argument("--benchmark", type=str, nargs="+", default=["mini_cit1"], help=benchmarks)
    strategies = ["seqft", "replay", "ewc", "ewc_tir", "eproj", "directft", "jointft"]
    known = f"one or more of: {', '.join(STRATEGIES)}; with eproj comes seqft_projection"
    parser.add_argument("--strategy", type=str, nargs="+", default=strategies, help=known)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--output", type=Path, help="where all goes (default: comparison[-quick])")
    parser.add_argument("--quick", action="store_true", help="small data, a glance at the whole path")
    own = "options of single strategies, in YAML: {ewc: {lambda_: 100.0}}"
    parser.add_argument("--strategies", type=dict[str, dict[str, Any]], default={}, help=own)
    tuning = "how learning rates and lambdas were chosen, for the captions"
    parser.add_argument("--tuning", type=str, default="as given, not tuned", help=tuning)
    at_a_time = "runs at a time, each in a process of its own (default: 1, in this one; with --ray as many as fit)"
    parser.add_argument("--workers", type=int | None, help=at_a_time)
    address = "let Ray carry the runs out: local starts it here; auto, HOST:PORT or ray://HOST:PORT joins a cluster"
    parser.add_argument("--ray", type=str | None, metavar="ADDRESS", help=address)
    add_run_options(parser, skip={"strategy", "benchmark", "seed", "stream"})
    return parser


def planned_runs(parser: Parser) -> Plan:
    """Return what the command line asks for, every run of it resolved and checked."""
    options = parser.parse_args().as_dict()
    options.pop("config", None)
    benchmarks, strategies, seeds, output, quick, own, tuning = (
        options.pop(name) for name in ("benchmark", "strategy", "seeds", "output", "quick", "strategies", "tuning")
    )
    workers, ray = (options.pop(name) for name in ("workers", "ray"))
    be_alone()
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}: it must be at least 1")
    if ray is not None and options["device"].startswith("cuda:"):
        raise UserError(f"device is {options['device']}, but Ray gives each run its GPU: give --device cuda")
    if quick:
        options = quickened(options, parser)
    output = output or Path("comparison-quick" if quick else "comparison")
    names = {benchmark: find_benchmark(benchmark).name for benchmark in benchmarks}
    if len(set(names.values())) < len(names):
        listed = ", ".join(f"{benchmark} ({name})" for benchmark, name in names.items())
        raise UserError(f"two benchmarks have the same name: {listed}; give each its own 'name'")
    own = checked_options(own)
    runs = {}
    for benchmark, name in names.items():
        for seed in seeds:
            for strategy in with_projection(strategies):
                given = options | own.get(strategy, {}) | {"strategy": strategy, "benchmark": benchmark, "seed": seed}
                folder = output / name / Path(options["model"]).name / f"{strategy}-seed{seed}"
                runs[folder] = RunConfig(**given).resolved()
    if not runs:
        raise UserError("there is nothing to compare: give at least one benchmark, one strategy and one seed")
    return Plan(runs, output, tuning, workers, ray)


def make_workers(plan: Plan, console: Console) -> Workers:
    """Return what carries the runs out, as the command line asks."""
    config = next(iter(plan.runs.values()))  # all have the same device
    if plan.ray is not None:
        return RayTasks(plan.ray, plan.workers, config.threads, gpu=config.device == "cuda")
    if plan.workers is None or plan.workers == 1:
        return InThisProcess()
    if plan.workers > (cores := os.cpu_count() or 1):
        console.print(f"note: {plan.workers} runs at a time share {cores} CPU core{'s' * (cores > 1)}")
    return WorkerProcesses(plan.workers, gpus=visible_gpus() if config.device == "cuda" else ())


def checked_options(own: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the options of single strategies with their types checked.

    Raises:
        UserError: A strategy or an option does not exist, is the same for all runs, or has a wrong value.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RunConfig, skip=set(OF_ALL_RUNS))
    checked = {}
    for strategy, options in own.items():
        if strategy not in STRATEGIES:
            raise unknown_name("strategy", strategy, STRATEGIES)
        for name in options:
            check_has_option(strategy, name)
            if name in OF_ALL_RUNS:
                raise UserError(
                    f"strategies, {strategy}: '{name}' is the same for all runs; give it beside 'strategies'"
                )
            if name not in RunConfig.__dataclass_fields__:
                known = [field for field in RunConfig.__dataclass_fields__ if field not in OF_ALL_RUNS]
                raise unknown_name(f"option of strategy {strategy}", name, known)
        try:
            checked[strategy] = parser.parse_object(dict(options), defaults=False).as_dict()
        except jsonargparse.ArgumentError as error:
            raise UserError(f"strategies, {strategy}: {error}") from None
    return checked


def with_projection(strategies: Sequence[str]) -> list[str]:
    """Return the strategies, each once, with sequential tuning of the projection before EProj, its like."""
    named = list(dict.fromkeys(strategies))
    eproj = [i for i, name in enumerate(named) if name in ("eproj", "eproj_expand")]
    if eproj and "seqft_projection" not in named:
        named.insert(eproj[0], "seqft_projection")
    return named


def write(plan: Plan, finished: Mapping[Path, ComparedRun]) -> None:
    """Write the tables of the runs that are finished, each file as a whole."""
    runs, note = in_order(plan, finished)
    comparisons = compare(runs)
    pages, sources = ["# Comparison\n"], ["% needs \\usepackage{booktabs}\n"]
    for comparison in comparisons:
        pages.append(f"## {heading(comparison)}\n")
        for kind, (title, table) in tables(comparison, note).items():
            pages.append(f"{title}\n\n{markdown(table)}")
            label = f"tab:{'-'.join(comparison.benchmarks)}-{Path(comparison.model).name}-{kind}"
            sources.append(latex(table, caption=f"{heading(comparison)}: {title}", label=label))
    with whole_file(plan.output / "runs.csv") as unfinished:
        observations(runs).to_csv(unfinished, index=False)
    with whole_file(plan.output / "comparison.csv") as unfinished:
        pd.concat([comparison.flat() for comparison in comparisons]).to_csv(unfinished, index=False)
    write_whole(plan.output / "comparison.md", "\n".join(pages))
    write_whole(plan.output / "comparison.tex", "\n".join(sources))


def show(plan: Plan, finished: Mapping[Path, ComparedRun], console: Console) -> None:
    """Print all tables of the runs that are finished, and write the plot and the report."""
    runs, note = in_order(plan, finished)
    comparisons = compare(runs)
    for comparison in comparisons:
        console.print(Text(f"\n{heading(comparison)}", style="bold"))
        for title, table in tables(comparison, note).values():
            print_table(console, title, table)
    save_figure(plot_comparison(comparisons, caption=note), plan.output / "comparison.png")
    write_report([folder for folder in plan.runs if folder in finished], plan.output / "report.html")
    console.print(f"tables: {plan.output / 'comparison.md'}, plot: {plan.output / 'comparison.png'}")
    console.print(f"report: {plan.output / 'report.html'}")


def in_order(plan: Plan, finished: Mapping[Path, ComparedRun]) -> tuple[list[ComparedRun], str]:
    """Return the finished runs in the order in which they are asked for, and what a table's title says about them."""
    runs = [finished[folder] for folder in plan.runs if folder in finished]
    note = f"Learning rates and lambdas: {plan.tuning}."
    if used := estimators(runs):
        note += f" Importance: {used}."
    if len(runs) < len(plan.runs):
        note += f" So far {len(runs)} of {len(plan.runs)} runs."
    return runs, note


def heading(comparison: Comparison) -> str:
    """Return what stands above a comparison's tables."""
    return f"{' + '.join(comparison.benchmarks)} from {comparison.model}"


def tables(comparison: Comparison, note: str) -> dict[str, tuple[str, pd.DataFrame]]:
    """Return the tables of a comparison by kind, with their titles; those without a number are left out."""
    over = f"{'seed' if len(comparison.seeds) == 1 else 'seeds'} {', '.join(map(str, comparison.seeds))}"
    if len(comparison.benchmarks) > 1:
        over += f" x {len(comparison.benchmarks)} orders (zero-shot counts once per seed)"
    means = "Mean ± standard deviation over n runs, " if comparison.count.max() > 1 else "One run a row, "
    about = f"{means}{over}. {note}"
    if comparison.model in SHIPPED:
        about += f" The language model of {comparison.model} saw the answer formats as text only."
    against = comparison.mean["intransigence"].drop(index=[*REFERENCES], errors="ignore")
    if "directft" in comparison.mean.index and against.isna().any():
        about += " Intransigence is empty where directft was run with other options."
    found = {
        "numbers": (about, comparison.main_table().rename(columns=COLUMNS)),
        "conventions": (f"All other conventions, {over}.", comparison.other_table().rename(columns=COLUMNS)),
        "tasks": (f"Last row by task, {over}.", comparison.last_row_table()),
    }
    return {kind: (title, table) for kind, (title, table) in found.items() if table.size}


def print_table(console: Console, title: str, table: pd.DataFrame) -> None:
    """Print a table of texts under its title."""
    shown = Table()
    shown.add_column("", no_wrap=True)
    for column in table.columns:
        shown.add_column(Text(column), justify="right")
    for name, cells in zip(table.index, table.itertuples(index=False), strict=True):
        shown.add_row(Text(name), *(Text(cell) for cell in cells))
    console.print(title, soft_wrap=True)
    console.print(shown)


if __name__ == "__main__":
    run_main(main)
