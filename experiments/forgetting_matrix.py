"""Tune a multimodal model on a stream of vision-language tasks and print its forgetting matrix.

    python experiments/forgetting_matrix.py [--benchmark NAME|YAML] [--strategy NAME ...] [--model NAME|FOLDER]
        [--seed N] [--output DIR] [--quick] [--config YAML] [any other option]
    torchrun --nproc_per_node N experiments/forgetting_matrix.py ...

Without options: the mini world in the order of the paper's benchmark 1, from tiny-base, by sequential tuning, replay,
and direct tuning as the reference. A finished run is not computed again.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from avalanche_cit.command_line import ConfigFile, Parser, run_main
from avalanche_cit.evaluation.comparison import ComparedRun
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.logging.report import write_report
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.processes import Processes, join_processes
from avalanche_cit.run_config import STRATEGIES, RunConfig, add_run_options, quickened
from avalanche_cit.runner import run


def main() -> None:
    """Run every strategy, print its matrix, and write one report over all."""
    parser = Parser(description="A stream of vision-language tasks in, a forgetting matrix out.")
    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of these options")
    parser.add_argument(
        "--strategy",
        type=str,
        nargs="+",
        default=["seqft", "replay", "directft"],
        help=f"one or more of: {', '.join(STRATEGIES)} (default: seqft replay directft)",
    )
    parser.add_argument("--output", type=Path, help="where run directories go (default: runs/BENCHMARK-MODEL[-quick])")
    parser.add_argument("--quick", action="store_true", help="small data, a glance at the whole path in seconds")
    add_run_options(parser, skip={"strategy"})
    options = parser.parse_args().as_dict()
    options.pop("config", None)
    strategies, output, quick = options.pop("strategy"), options.pop("output"), options.pop("quick")
    if quick:
        options = quickened(options, parser)

    configs = [RunConfig(strategy=strategy, **options).resolved() for strategy in strategies]
    names = [Path(configs[0].benchmark).stem, Path(configs[0].model).name, *(["quick"] if quick else [])]
    output = output or Path("runs") / "-".join(names)
    disable_progress_bar()  # transformers' own, for files that take no time here
    processes = join_processes(configs[0].processes, configs[0].device)
    with processes.quiet_but_main():
        carry_out(configs, output, processes)


def carry_out(configs: list[RunConfig], output: Path, processes: Processes) -> None:
    """Carry out all runs, show their matrices, and write the report."""
    console = Console(highlight=False)
    console.print(f"[bold]{configs[0].benchmark}[/bold] from {configs[0].model}, results in {output}")
    console.print(", ".join(f"{name}={value}" for name, value in configs[0].plain().items() if name != "strategy"))

    features = VisionFeatures()
    folders = [output / f"{config.strategy}-seed{config.seed}" for config in configs]
    for config, folder in zip(configs, folders, strict=True):
        file = run(config, folder, vision_features=features)
        print_matrix(console, file, ComparedRun.read(folder).samples_seen)
    report = output / "report.html"
    if processes.is_main:
        write_report(folders, report)
    console.print(f"report: {report}")


def print_matrix(console: Console, file: MatrixFile, samples_seen: int) -> None:
    """Print a matrix with its main numbers, and how many samples the strategy trained on."""
    table = Table(title=f"{file.strategy}, seed {file.seed}: score (0-100) on each task after each stage")
    table.add_column("after")
    for task in file.tasks:
        table.add_column(f"{task} (task 0)" if task in file.task0 else task, justify="right")
    for row, cells in zip(file.rows, file.scores, strict=True):
        texts = ["" if cell is None else f"{cell:.1f}" for cell in cells]
        marked = [f"[bold]{text}[/bold]" if task == row else text for task, text in zip(file.tasks, texts, strict=True)]
        table.add_row("zero-shot" if row == "initial" else row, *marked)
    console.print(table)
    shown = {
        "average accuracy": "average_accuracy",
        "mean of the diagonal (MFT)": "mft",
        "forgetting (Chaudhry)": "forgetting_chaudhry",
        "BWT (GEM)": "bwt_gem",
    }
    summary = file.summary()
    numbers = [f"{title} {summary[key]:.1f}" for title, key in shown.items() if summary[key] is not None]
    console.print(", ".join([*numbers, f"samples seen {samples_seen:,}"]), "\n")


if __name__ == "__main__":
    run_main(main)
