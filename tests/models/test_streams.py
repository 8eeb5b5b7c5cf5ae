"""Every family learns a stream of two tasks under sequential tuning, replay, TIR and EProj, and fills the matrix.

The table in docs/families.md is made from these tests: no cell is claimed that they do not run.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from zoo import ZOO, checkpoint

from avalanche_cit.benchmarks import Task, instruction_benchmark
from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.models import LMM
from avalanche_cit.training import TIR, EProj, Replay, SeqFT

STRATEGIES: dict[str, Callable[..., SeqFT]] = {
    "seqft": SeqFT,
    "replay": lambda **common: Replay(memory_size=4, **common),
    "ewc_tir": lambda **common: TIR(lambda_=1e5, **common),
    "eproj": lambda **common: EProj(threshold=1.0, **common),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", ZOO)
def test_a_stream_of_two_tasks(
    family: str, strategy: str, tasks: dict[str, Task], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    benchmark = instruction_benchmark([tasks["shape"], tasks["caption"]])
    model = LMM.from_pretrained(
        checkpoint(family, tmp_path_factory), trainable="projection" if strategy == "eproj" else "bridge"
    )
    start = {name: weight.clone() for name, weight in model.named_parameters()}
    matrix = ForgettingMatrix(benchmark, predictions=tmp_path)
    tuned = STRATEGIES[strategy](
        model=model, lr=1e-2, train_mb_size=8, evaluator=EvaluationPlugin(matrix, loggers=[]), eval_loss=False
    )

    for experience in benchmark.train_stream:
        tuned.train(experience)
        tuned.eval(benchmark.test_stream)

    assert [len(row) for row in matrix.scores] == [2, 2, 2]
    assert all(score is not None for row in matrix.scores[1:] for score in row)
    frozen = {name for name, weight in start.items() if name not in model.trainable_state()}
    moved = {
        name for name, weight in model.named_parameters() if name in start and not torch.equal(weight, start[name])
    }
    assert not moved & frozen
    assert moved or strategy == "eproj"
    if strategy == "eproj":
        assert len(model.router.projection.experts) == 3
        first, last = (answers(tmp_path / row / "shape.jsonl") for row in ("shape", "caption"))
        same = [
            a["prediction"] == b["prediction"] for a, b in zip(first, last, strict=True) if b["expert"] == b["right"]
        ]
        assert same
        assert all(same)


def test_the_table_claims_what_these_tests_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    table = page.partition("<!-- families -->\n")[2].partition("<!-- /families -->")[0].splitlines()
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if "---" not in line]
    assert head[1:] == list(STRATEGIES)
    assert {family: cells for family, *cells in rows} == {family: ["ok"] * len(STRATEGIES) for family in ZOO}


def answers(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
