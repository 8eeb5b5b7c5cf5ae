"""Avalanche's own metrics, loggers and stream builders run unmodified on our streams."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from avalanche.benchmarks import CLScenario, benchmark_with_validation_stream, with_task_labels
from avalanche.evaluation.metrics import cpu_usage_metrics, loss_metrics, ram_usage_metrics, timing_metrics
from avalanche.logging import InteractiveLogger, TensorboardLogger, TextLogger
from avalanche.training.plugins import EvaluationPlugin
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from avalanche_cit.benchmarks.batch import IGNORED
from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.models import LMM
from avalanche_cit.training import SeqFT

SCORE = "Score_Exp/eval_phase/test_stream/Task000/Exp000"


class Run(NamedTuple):
    strategy: SeqFT
    matrix: ForgettingMatrix
    metrics: dict[str, Any]


@pytest.fixture
def run(load: Callable[..., LMM], benchmark: CLScenario) -> Callable[..., Run]:
    """Train on the first task and evaluate the first two, with the metrics and loggers given."""

    def run(*metrics: Any, loggers: Any = (), plugins: Any = (), **options: Any) -> Run:
        matrix = ForgettingMatrix(benchmark)
        evaluator = EvaluationPlugin(matrix, *metrics, loggers=list(loggers))
        strategy = SeqFT(model=load(), train_mb_size=4, evaluator=evaluator, plugins=plugins, **options)
        strategy.train(benchmark.train_stream[0])
        return Run(strategy, matrix, strategy.eval(benchmark.test_stream[:2]))

    return run


def test_loss_metrics_measure_the_loss(run: Callable[..., Run], benchmark: CLScenario, record: Any) -> None:
    losses = loss_metrics(minibatch=True, epoch=True, epoch_running=True, experience=True, stream=True)

    strategy, _, metrics = run(losses, plugins=[record])

    mean = sum(record.losses) / 4
    assert metrics["Loss_Epoch/train_phase/train_stream/Task000"] == pytest.approx(mean)
    assert metrics["RunningLoss_Epoch/train_phase/train_stream/Task000"] == pytest.approx(mean)
    assert metrics["Loss_MB/train_phase/train_stream/Task000"] == pytest.approx(record.losses[-1])
    x, y, _ = strategy.model.collator([benchmark.test_stream[0].dataset[i] for i in range(4)])
    z, w, _ = strategy.model.collator([benchmark.test_stream[0].dataset[i] for i in range(4, 6)])
    criterion = nn.CrossEntropyLoss(ignore_index=IGNORED)
    with torch.no_grad():
        expected = (4 * criterion(strategy.model(x), y) + 2 * criterion(strategy.model(z), w)) / 6
    assert metrics["Loss_Exp/eval_phase/test_stream/Task000/Exp000"] == pytest.approx(float(expected), rel=1e-5)
    # Avalanche names the mean over a stream after the task that was evaluated last
    both = [metrics[f"Loss_Exp/eval_phase/test_stream/Task00{i}/Exp00{i}"] for i in range(2)]
    assert metrics["Loss_Stream/eval_phase/test_stream/Task001"] == pytest.approx(sum(both) / 2)


def test_the_loss_of_evaluation_can_be_left_out(run: Callable[..., Run]) -> None:
    _, matrix, metrics = run(loss_metrics(experience=True), eval_loss=False)

    loss = metrics["Loss_Exp/eval_phase/test_stream/Task000/Exp000"]
    assert loss != loss  # NaN
    assert metrics[SCORE] == matrix.scores[1][1]


def test_timing_and_memory_metrics_measure_something(run: Callable[..., Run]) -> None:
    _, _, metrics = run(
        timing_metrics(epoch=True, experience=True),
        ram_usage_metrics(every=0.05, epoch=True, experience=True),
        cpu_usage_metrics(epoch=True, experience=True),
    )

    assert metrics["Time_Epoch/train_phase/train_stream/Task000"] > 0
    assert metrics["Time_Exp/eval_phase/test_stream/Task000/Exp000"] > 0
    assert metrics["MaxRAMUsage_Epoch/train_phase/train_stream/Task000"] > 100  # megabytes
    assert metrics["CPUUsage_Epoch/train_phase/train_stream/Task000"] > 0


def test_the_text_logger_prints_scores(run: Callable[..., Run]) -> None:
    log = io.StringIO()

    _, matrix, _ = run(loggers=[TextLogger(log)])

    score = matrix.scores[1][1]
    assert f"{SCORE} = {score:.4f}" in log.getvalue()
    assert "Score_Stream/eval_phase/test_stream = " in log.getvalue()


def test_the_interactive_logger_prints_scores(run: Callable[..., Run], capsys: pytest.CaptureFixture[str]) -> None:
    _, matrix, _ = run(loggers=[InteractiveLogger()])

    assert f"{SCORE} = {matrix.scores[1][1]:.4f}" in capsys.readouterr().out


def test_the_tensorboard_logger_keeps_scores(run: Callable[..., Run], tmp_path: Path) -> None:
    logger = TensorboardLogger(tmp_path)

    _, matrix, metrics = run(loss_metrics(epoch=True), loggers=[logger])

    logger.writer.flush()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(metrics)
    [score] = events.Scalars(SCORE)
    assert score.value == pytest.approx(matrix.scores[1][1], rel=1e-6)
    assert score.step == 4
    assert {event.step for event in events.Scalars("Score_Stream/eval_phase/test_stream")} == {4}


def test_strict_checks_find_the_benchmark_of_a_stream(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    evaluator = EvaluationPlugin(ForgettingMatrix(benchmark), loggers=[], strict_checks=True)

    metrics = SeqFT(model=load(), evaluator=evaluator).eval(benchmark.test_stream)

    assert SCORE in metrics


def test_a_validation_stream_can_be_split_off(load: Callable[..., LMM], benchmark: CLScenario, record: Any) -> None:
    split = with_task_labels(benchmark_with_validation_stream(benchmark, validation_size=0.25, seed=0))
    matrix = ForgettingMatrix(split, stream="valid")
    strategy = SeqFT(model=load(), train_mb_size=4, plugins=[record], evaluator=EvaluationPlugin(matrix, loggers=[]))

    strategy.train(split.train_stream[1])
    metrics = strategy.eval(split.valid_stream)

    assert [len(experience.dataset) for experience in split.train_stream] == [12, 9, 6]
    assert [len(experience.dataset) for experience in split.valid_stream] == [4, 3, 2]
    held_out = [split.valid_stream[1].dataset[i][0].row["id"] for i in range(3)]
    trained = [sample for ids in record.ids for sample in ids]
    assert sorted(trained + held_out) == sorted(f"shape-train-{i}" for i in range(12))
    assert matrix.tasks == ["colour", "shape", "caption"]
    assert matrix.rows == ["initial", "shape"]
    assert metrics["Score_Exp/eval_phase/valid_stream/Task001/Exp001"] == matrix.scores[1][1]
