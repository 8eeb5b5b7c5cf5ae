"""JSONLinesLogger under a real Avalanche strategy, and on its own."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from avalanche.benchmarks import tensors_benchmark
from avalanche.evaluation.metric_results import AlternativeValues
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from matplotlib.figure import Figure

from avalanche_cit.logging.json_lines import JSONLinesLogger


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def values(path: Path) -> list[object]:
    return [line["value"] for line in read(path)]


def test_step_task_and_phase_follow_the_strategy(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    data = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long)) for _ in range(2)]
    benchmark = tensors_benchmark(train_tensors=data, test_tensors=data, task_labels=[0, 0])
    model = torch.nn.Linear(3, 2)
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        train_mb_size=2,
        evaluator=EvaluationPlugin(
            loss_metrics(minibatch=True, experience=True, stream=True),
            loggers=[JSONLinesLogger(path=path, task_names=["captions"])],
        ),
    )
    strategy.eval(benchmark.test_stream)
    for experience in benchmark.train_stream:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)

    lines = read(path)
    assert {frozenset(line) for line in lines} == {frozenset({"step", "task", "phase", "name", "value"})}
    # Two experiences of two steps each, the first one named and the second known by its index; evaluations of two
    # experiences and their stream come before, between and after.
    got = [(line["step"], line["task"], line["phase"]) for line in lines]
    assert got == [
        *[(0, None, "eval")] * 3,
        (0, "captions", "train"),
        (1, "captions", "train"),
        *[(2, "captions", "eval")] * 3,
        (2, 1, "train"),
        (3, 1, "train"),
        *[(4, 1, "eval")] * 3,
    ]
    assert all(("train_phase" in str(line["name"])) == (line["phase"] == "train") for line in lines)


def test_numbers_only_and_never_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = JSONLinesLogger(path=path)
    for value in (1.5, 2, float("nan"), float("inf"), torch.tensor(0.25), AlternativeValues("many", 7)):
        logger.log_single_metric("kept", value, 0)
    for other in (Figure(), "text", torch.zeros(2), None, True):
        logger.log_single_metric("skipped", other, 0)
    assert values(path) == [1.5, 2, None, None, 0.25, 7]
    assert "NaN" not in path.read_text()


def test_each_line_is_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = JSONLinesLogger(path=path)
    logger.log_single_metric("loss", 1.0, 0)
    assert values(path) == [1.0]


@pytest.mark.parametrize("cut_off", ["", '{"step": 1, "ta'])
def test_appends_to_an_earlier_run_and_drops_a_cut_off_line(tmp_path: Path, cut_off: str) -> None:
    path = tmp_path / "metrics.jsonl"
    JSONLinesLogger(path=path).log_single_metric("loss", 1.0, 0)
    with path.open("a") as file:
        file.write(cut_off)
    JSONLinesLogger(path=path).log_single_metric("loss", 2.0, 1)
    assert values(path) == [1.0, 2.0]


def test_survives_pickling(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = JSONLinesLogger(path=path)
    logger.log_single_metric("loss", 1.0, 0)
    pickle.loads(pickle.dumps(logger)).log_single_metric("loss", 2.0, 1)
    assert values(path) == [1.0, 2.0]
