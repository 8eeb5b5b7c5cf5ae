"""Compare strategies over seeds and orders of tasks, in one table.

    python experiments/compare.py [--benchmark NAME|YAML ...] [--strategy NAME ...] [--seeds N ...]
        [--model NAME|FOLDER] [--output DIR] [--quick] [--config YAML] [any other option]

Runs go to DIR/BENCHMARK/MODEL/STRATEGY-seedN/; finished ones are used again, unfinished ones go on. Several benchmarks
with the same tasks are several orders of them, and are also pooled. A method's own options stand in the YAML file::

    strategies: {ewc: {lambda_: 100.0}, eproj: {threshold: 0.4}}

Written into DIR: runs.csv (a line per run), comparison.csv, .md, .tex and .png, and report.html.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
from avalanche_cit.command_line import ConfigFile, Parser, run_main
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
from avalanche_cit.logging.plots import plot_comparison, save_figure
from avalanche_cit.logging.report import NAMES, write_report
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.models.loading import SHIPPED
from avalanche_cit.processes import Processes
from avalanche_cit.run_config import STRATEGIES, RunConfig, add_run_options, check_has_option, quickened
from avalanche_cit.runner import open_run, run

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


def main() -> None:
    """Run what is missing, print the tables, and write them."""
    runs, output, tuning = planned_runs(make_parser())
    for folder, config in runs.items():
        if folder.exists():
            open_run(config, folder, Processes())  # refuses a run of other options, before hours of work

    disable_progress_bar()  # transformers' own, for files that take no time here
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, 140)  # a log has no edge to fold tables at
    features = VisionFeatures()
    for number, (folder, config) in enumerate(runs.items(), start=1):
        benchmark = folder.parent.parent.name
        console.print(f"run {number} of {len(runs)}: {benchmark}, {config.strategy}, seed {config.seed}")
        run(config, folder, vision_features=features)

    compared = [ComparedRun.read(folder) for folder in runs]
    note = f"Learning rates and lambdas: {tuning}."
    if used := estimators(compared):
        note += f" Importance: {used}."
    write(output, compared, note, console)
    write_report(list(runs), output / "report.html")
    console.print(f"tables: {output / 'comparison.md'}, plot: {output / 'comparison.png'}")
    console.print(f"report: {output / 'report.html'}")


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
    add_run_options(parser, skip={"strategy", "benchmark", "seed", "stream"})
    return parser


def planned_runs(parser: Parser) -> tuple[dict[Path, RunConfig], Path, str]:
    """Return every run by its folder, resolved and checked; the folder of all; and how the options were chosen."""
    options = parser.parse_args().as_dict()
    options.pop("config", None)
    benchmarks, strategies, seeds, output, quick, own, tuning = (
        options.pop(name) for name in ("benchmark", "strategy", "seeds", "output", "quick", "strategies", "tuning")
    )
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
    return runs, output, tuning


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


def write(output: Path, runs: Sequence[ComparedRun], note: str, console: Console) -> None:
    """Print all tables, and write them with the plot."""
    comparisons = compare(runs)
    pages, sources = ["# Comparison\n"], ["% needs \\usepackage{booktabs}\n"]
    for comparison in comparisons:
        heading = f"{' + '.join(comparison.benchmarks)} from {comparison.model}"
        pages.append(f"## {heading}\n")
        console.print(Text(f"\n{heading}", style="bold"))
        for kind, (title, table) in tables(comparison, note).items():
            print_table(console, title, table)
            pages.append(f"{title}\n\n{markdown(table)}")
            label = f"tab:{'-'.join(comparison.benchmarks)}-{Path(comparison.model).name}-{kind}"
            sources.append(latex(table, caption=f"{heading}: {title}", label=label))
    observations(runs).to_csv(output / "runs.csv", index=False)
    pd.concat([comparison.flat() for comparison in comparisons]).to_csv(output / "comparison.csv", index=False)
    (output / "comparison.md").write_text("\n".join(pages), encoding="utf-8")
    (output / "comparison.tex").write_text("\n".join(sources), encoding="utf-8")
    save_figure(plot_comparison(comparisons, caption=note), output / "comparison.png")


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
