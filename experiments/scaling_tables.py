"""Make the tables of docs/scaling.md: what the cost model says of a published model, and what was measured.

python experiments/benchmark_speed.py --json docs/results/benchmark_speed.json
python experiments/scaling_tables.py [--json FILE.json] [--docs FILE]
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import InstructBlipConfig

from avalanche_cit.benchmarks.catalogue import find_benchmark
from avalanche_cit.command_line import Parser, run_main
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.checked_json import read_json
from avalanche_cit.evaluation.comparison import markdown
from avalanche_cit.models.cost import (
    ByPart,
    Tokens,
    cached_values,
    forward_operations,
    generation_operations,
    training_operations,
    weights,
)
from avalanche_cit.whole_file import write_whole

DOCS = Path(__file__).parents[1] / "docs"
CAPTION = Tokens(instruction=6, prompt=6, answer=14)
QUESTION = Tokens(instruction=16, prompt=16, answer=3)
EPOCHS, BATCH = 5, 256
HALF, SINGLE = 2, 4
"""Bytes of a number in bf16, and in float32."""
PEAK, USED = 312e12, 0.4
"""Operations per second of an A100 in bf16, and the share of them that is put to use."""
NETWORK = 25e9
"""Bytes per second and GPU between machines."""
METHODS = {
    "SeqFT, replay": "0",
    "LwF": "4",
    "EWC, MAS": "8",
    "TIR": "9",
    "TIR, while training": "13",
}
"""Bytes per trainable weight, beside 16 of weight, gradient and AdamW's two moments."""


@dataclass(frozen=True)
class Data:
    """A task's sizes.

    Attributes:
        train, test: Samples.
        images: Distinct images of both.
        tokens: Lengths of a sample.
    """

    train: int
    test: int
    images: int
    tokens: Tokens


@dataclass(frozen=True)
class Work:
    """Operations of a run by phase, and optimizer steps."""

    filling: int
    training: int
    evaluation: int
    steps: int


def main() -> None:
    """Write every table between its marks."""
    parser = Parser(description="The tables of docs/scaling.md.")
    measured = DOCS / "results" / "benchmark_speed.json"
    parser.add_argument("--json", type=Path, default=measured, help="what benchmark_speed.py wrote")
    parser.add_argument("--docs", type=Path, default=DOCS / "scaling.md", help="the file with the tables")
    options = parser.parse_args()
    text = options.docs.read_text(encoding="utf-8")
    found = read_json(options.json) if options.json.exists() else {}
    write_whole(options.docs, filled(text, tables(found)))
    print(f"written: {options.docs}")


def filled(text: str, made: Mapping[str, str]) -> str:
    """Return a page with its tables, each between ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        UserError: The page has no place for one of them.
    """
    for name, table in made.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if place.search(text) is None:
            raise UserError(f"the page has no lines '<!-- {name} -->' and '<!-- /{name} -->' for the table to stand in")
        text = place.sub(lambda found, table=table: found[1] + table + found[2], text)  # type: ignore[misc]
    return text


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Return all tables by name; those of what has not been measured say so.

    Args:
        found: What benchmark_speed.py wrote, or nothing.
    """
    config, details = instructblip_xl(), found.get("details", {})
    made = {
        "parts": parts_table(config),
        "cache": cache_table(config),
        "methods": methods_table(config),
        "gpus": gpus_table(config),
        "tasks": tasks_table(config),
    }
    ratios = {name: details[name] for name in found.get("ratios", {})}
    made["ratios"] = ratios_table(ratios) if ratios else NOT_YET
    made["check"] = check_table(details["cost"]) if "cost" in details else NOT_YET
    made["growth"] = growth_table(details["growth"]) if "growth" in details else NOT_YET
    return made


NOT_YET = "Not measured yet.\n"


# --- What is worked out -----------------------------------------------------------------------------------------------


def instructblip_xl() -> InstructBlipConfig:
    """Return the configuration of InstructBLIP with FlanT5-XL: transformers' defaults but for what its file names."""
    text = {
        "model_type": "t5",
        "vocab_size": 32128,
        "d_model": 2048,
        "d_kv": 64,
        "d_ff": 5120,
        "num_layers": 24,
        "num_heads": 32,
        "feed_forward_proj": "gated-gelu",
    }
    return InstructBlipConfig(qformer_config={"vocab_size": 30523}, text_config=text, num_query_tokens=32)


def cit1() -> list[Data]:
    """Return the sizes of the tasks of ``cit1``: the samples as its files are expected to hold them.

    OCR-VQA's are rounded from what its paper says: a million questions about 207,572 images, a tenth of them tested.
    """
    expected = {name: task.expected for name, task in find_benchmark("cit1").definitions.items()}
    images = {"flickr30k": 30_014, "textcaps": 25_119, "vqav2": 123_287, "ocrvqa": 186_815, "gqa": 72_538}
    rounded = {"train": 800_000, "test": 100_000}
    return [
        Data(
            **{split: (expected[name] or rounded)[split] for split in ("train", "test")},
            images=images[name],
            tokens=CAPTION if name in ("flickr30k", "textcaps") else QUESTION,
        )
        for name in find_benchmark("cit1").tasks
    ]


def long_stream(tasks: int) -> list[Data]:
    """Return tasks of one size: 10,000 samples to train on and 1,000 to test, each with an image of its own."""
    return [Data(train=10_000, test=1_000, images=11_000, tokens=QUESTION)] * tasks


def work(
    config: Any, stream: Sequence[Data], *, trainable: str = "bridge", cached: bool, whole_matrix: bool = True
) -> Work:
    """Return the operations of a run.

    Args:
        config: Of the model.
        stream: Sizes of its tasks.
        trainable, cached: See `training_operations`.
        whole_matrix: Evaluate all tasks before the first one and after each, rather than each once after its training.
    """
    filling = evaluation = training = steps = 0
    rows = len(stream) + 1 if whole_matrix else 1
    for task in stream:
        every_time = training_operations(config, task.tokens, trainable=trainable)
        once = training_operations(config, task.tokens, trainable=trainable, cached=cached)
        answer = generation_operations(config, task.tokens).total
        vision, qformer = every_time.vision - once.vision, every_time.bridge - once.bridge
        filling += task.images * vision + (task.train + task.test) * qformer
        training += EPOCHS * task.train * once.total
        evaluation += rows * task.test * (answer - vision - qformer)
        steps += EPOCHS * -(-task.train // BATCH)
    return Work(filling, training, evaluation, steps)


def hours(operations: float, gpus: int) -> float:
    """Return how long GPUs take for operations that are shared out evenly."""
    return operations / (gpus * PEAK * USED) / 3600


def synchronising(steps: int, trainable: int, gpus: int) -> float:
    """Return the hours for which GPUs send and receive gradients in single precision, around a ring."""
    return steps * 2 * (gpus - 1) / gpus * trainable * SINGLE / NETWORK / 3600


def parts_table(config: Any) -> str:
    """Return weights and operations of each part."""
    columns: dict[str, tuple[ByPart, float, str]] = {
        "weights, M": (weights(config), 1e6, ",.0f"),
        "forward, G": (forward_operations(config, QUESTION), 1e9, ",.1f"),
        "training, G": (training_operations(config, QUESTION), 1e9, ",.1f"),
        "training, cached, G": (training_operations(config, QUESTION, cached=True), 1e9, ",.1f"),
        "EProj, cached, G": (training_operations(config, QUESTION, trainable="projection", cached=True), 1e9, ",.1f"),
        "answering, cached, G": (generation_operations(config, QUESTION, cached=True), 1e9, ",.1f"),
    }
    rows = {"vision tower": "vision", "bridge": "bridge", "language model": "language", "all": "total"}
    cells = {
        title: [format(getattr(numbers, row) / unit, shape) for row in rows.values()]
        for title, (numbers, unit, shape) in columns.items()
    }
    return markdown(pd.DataFrame(cells, index=list(rows)))


def cache_table(config: Any) -> str:
    """Return what the cache takes and how fast it is read."""
    stream, rows = cit1(), {}
    for trainable, title in (("bridge", "image, where the bridge is tuned"), ("projection", "sample, for EProj")):
        each = HALF * cached_values(config, trainable=trainable)
        count = sum(task.images if trainable == "bridge" else task.train + task.test for task in stream)
        once = training_operations(config, QUESTION, trainable=trainable, cached=True).total
        read = each * PEAK * USED / once
        rows[title] = [f"{each / 1e3:,.1f}", f"{count:,}", f"{each * count / 1e9:,.0f}", f"{read / 1e6:,.0f}"]
    columns = ["kB each", "in cit1", "GB in all", "MB/s read per GPU"]
    return markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


def methods_table(config: Any) -> str:
    """Return the memory of each method."""
    trainable = weights(config).bridge
    rows = {name: [each, f"{int(each) * trainable / 1e9:.2f}"] for name, each in METHODS.items()}
    return markdown(pd.DataFrame.from_dict(rows, orient="index", columns=["bytes per trainable weight", "GB"]))


def gpus_table(config: Any) -> str:
    """Return the hours of a run on cit1."""
    rows = {}
    for title, trainable, cached in (
        ("bridge", "bridge", False),
        ("bridge, cached", "bridge", True),
        ("EProj, cached", "projection", True),
    ):
        done = work(config, cit1(), trainable=trainable, cached=cached)
        tuned = weights(config).bridge if trainable == "bridge" else projection_weights(config)
        for gpus in (1, 8, 64):
            apart = [hours(part, gpus) for part in (done.filling, done.training, done.evaluation)]
            apart.append(synchronising(done.steps, tuned, gpus))
            rows[f"{title}: {gpus} GPU{'s' * (gpus > 1)}"] = [f"{part:,.1f}" for part in (*apart, sum(apart))]
    columns = ["filling the cache, h", "training, h", "6 rows of evaluation, h", "gradients between GPUs, h", "all, h"]
    return markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


def tasks_table(config: Any) -> str:
    """Return how a run grows with the number of its tasks."""
    rows = {}
    for count in (5, 10, 20, 50, 100):
        whole = work(config, long_stream(count), cached=True)
        current = work(config, long_stream(count), cached=True, whole_matrix=False)
        figures = [hours(part, 8) for part in (whole.filling, whole.training, whole.evaluation, current.evaluation)]
        rows[str(count)] = [f"{figure:,.2f}" for figure in figures] + [f"{count * (count + 1):,}"]
    columns = ["filling the cache, h", "training, h", "whole matrix, h", "current task only, h", "cells of the matrix"]
    return markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


def projection_weights(config: Any) -> int:
    """Return how many weights EProj copies per task."""
    return int((config.qformer_config.hidden_size + 1) * config.get_text_config().hidden_size)


# --- What is measured -------------------------------------------------------------------------------------------------


def ratios_table(ratios: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the ratios: medians, ranges, and what is asked."""
    rows = {}
    for name, ratio in ratios.items():
        figures = [f"{ratio[kind]:.2f}" for kind in ("value", "least", "greatest")]
        rows[f"`{name}`"] = [*figures, ratio["asked"], "yes" if ratio["met"] else "no"]
    return markdown(
        pd.DataFrame.from_dict(rows, orient="index", columns=["median", "least", "greatest", "asked", "met"])
    )


def check_table(cost: Mapping[str, Any]) -> str:
    """Return the cost model's errors at each size."""
    rows = {}
    for size, parts in cost["sizes"].items():
        for part, cell in parts.items():
            figures = [f"{cell['operations'] / 1e6:,.1f}", f"{cell['seconds'] * 1e3:.3f}"]
            predicted = cell["operations"] / cost["operations per second"]
            rows[f"{size}: {part}"] = [*figures, f"{predicted * 1e3:.3f}", f"{cell['error']:+.0%}"]
    columns = ["operations, M", "measured, ms", "predicted, ms", "error"]
    speed = f"\nFitted: {cost['operations per second'] / 1e9:.1f} G operations per second.\n"
    return markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns)) + speed


def growth_table(growth: Mapping[str, Any]) -> str:
    """Return how time and memory per task have grown over a stream of many."""
    rows = {}
    for strategy, one in growth.items():
        ratios = [f"{one['growth'][kind]:.2f}" for kind in ("seconds", "megabytes")]
        rows[strategy] = [str(len(one["seconds"])), *ratios, f"{one['seconds'][-1]:.2f}", f"{one['megabytes'][-1]:.0f}"]
    columns = ["tasks", "time, last / first", "memory, last / first", "last task, s", "last task, MB"]
    return markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


if __name__ == "__main__":
    run_main(main)
