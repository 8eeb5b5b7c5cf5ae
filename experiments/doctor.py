"""Examine a benchmark's data before training on it: what is missing, broken, repeated, or not as published.

    python experiments/doctor.py --benchmark NAME_OR_YAML [--data-root FOLDER] [--image-root FOLDER ...] [--decode]
        [--model NAME_OR_FOLDER] [--output FOLDER]

Every problem of every task is listed, one line each. Written into the output folder: report.json, with checksums of all
annotation files and a few rendered samples, and samples.png. Exit status: 0 clean, 1 warnings, 2 errors.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import AutoTokenizer

from avalanche_cit.benchmarks.benchmark_file import BenchmarkFile
from avalanche_cit.benchmarks.catalogue import arrow_dir, data_folder, find_benchmark
from avalanche_cit.benchmarks.doctor import CountTokens, TaskReport, examine_task, exit_status
from avalanche_cit.benchmarks.load import load_task
from avalanche_cit.command_line import Parser, add_image_root, run_main
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.scores import SCORES
from avalanche_cit.logging.contact_sheet import contact_sheet
from avalanche_cit.logging.plots import save_figure
from avalanche_cit.models.loading import model_folder

STATUS = {0: "clean", 1: "warnings", 2: "errors"}


def main() -> None:
    """Examine every task, print what was found, and write it."""
    parser = Parser(description="Counts, images, questions, answers and checksums of a benchmark's data.")
    parser.add_argument("--benchmark", type=str, required=True, help="name of a benchmark, or its YAML file")
    parser.add_argument("--data_root", type=Path, help="folder of the data, if not where the YAML file says")
    add_image_root(parser)
    parser.add_argument("--decode", action="store_true", help="read every image, in parallel")
    parser.add_argument("--model", type=str, help="measure answers in tokens of this model (default: in words)")
    parser.add_argument("--output", type=Path, help="where the report goes (default: doctor-BENCHMARK)")
    parser.add_argument("--seed", type=int, default=0, help="seed of drawn data")
    options = parser.parse_args()

    found = find_benchmark(options.benchmark)
    names = [*found.task0, *found.tasks]
    root = data_folder(found, names, seed=options.seed, data_root=options.data_root)
    image_roots = [Path(folder) for folder in options.image_root]
    count_tokens = None if options.model is None else token_counter(options.model)
    reports = [
        examine_task(
            found.definitions[name],
            data_root=root,
            cache_dir=arrow_dir(),
            scores=SCORES,
            image_roots=image_roots,
            count_tokens=count_tokens,
            decode=options.decode,
        )
        for name in names
    ]
    status = exit_status(reports)
    output = options.output or Path(f"doctor-{found.name}")
    print_reports(found, reports)
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_json(found, root, reports, status, output / "report.json")
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror}; give another --output") from error
    tasks = [
        load_task(
            found.definitions[report.name],
            data_root=root,
            cache_dir=arrow_dir(),
            image_roots=image_roots,
            keep_missing_images=True,
        )
        for report in reports
        if all(split.samples for split in report.splits.values())
    ]
    written = [f"report: {output / 'report.json'}"]
    if tasks:
        save_figure(contact_sheet(found.name, tasks), output / "samples.png")
        written.append(f"samples: {output / 'samples.png'}")
    print(f"{STATUS[status]}; {', '.join(written)}")
    sys.exit(status)


def token_counter(model: str) -> CountTokens:
    """Return what counts a model's tokens, special ones left out."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_folder(model))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the tokenizer of {model}: {error}") from error
    return lambda texts: [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def print_reports(found: BenchmarkFile, reports: Sequence[TaskReport]) -> None:
    """Print a table of counts, then every problem in a line of its own."""
    table = Table(title=f"{found.name}, version {found.version}")
    for column in ("task", "split"):
        table.add_column(column)
    for column in ("samples", "expected", "errors", "warnings"):
        table.add_column(column, justify="right")
    for report in reports:
        for name, split in report.splits.items():
            severities = [problem.severity for problem in report.problems if problem.split == name]
            counts = [split.samples, split.expected, severities.count("error"), severities.count("warning")]
            label = f"{report.name} (task 0)" if report.name in found.task0 else report.name
            table.add_row(Text(label), name, *("-" if count is None else f"{count:,}" for count in counts))
    console = Console(markup=False, highlight=False)
    console.print(table)
    for report in reports:
        for problem in report.problems:
            place = f"{report.name} {problem.split}".strip()
            console.print(Text(f"{problem.severity}: {place}: {problem.text}"), soft_wrap=True)


def write_json(found: BenchmarkFile, root: Path, reports: Sequence[TaskReport], status: int, file: Path) -> None:
    """Write everything that was found out."""
    document = {
        "benchmark": found.name,
        "version": found.version,
        "data_root": str(root),
        "status": STATUS[status],
        "tasks": [dataclasses.asdict(report) for report in reports],
    }
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
