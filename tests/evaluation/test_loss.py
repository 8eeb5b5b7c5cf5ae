"""Our loss metrics log what Avalanche's own do, byte for byte, however rarely numbers are fetched."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from avalanche.benchmarks import CLScenario
from avalanche.evaluation.metrics import loss_metrics as stock_loss_metrics
from avalanche.training.plugins import EvaluationPlugin

from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.evaluation.loss import loss_metrics
from avalanche_cit.logging.json_lines import JSONLinesLogger
from avalanche_cit.models import LMM
from avalanche_cit.training import EWC, LwF, SeqFT, update

Logged = Callable[..., str]


@pytest.fixture
def logged(load: Callable[..., LMM], benchmark: CLScenario, tmp_path: Path) -> Logged:
    """Train on two tasks, evaluating in between, and return the lines logged; batches of 5 make the last one small."""

    def logged(metrics: Any, method: Any = SeqFT, **options: Any) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        logger = JSONLinesLogger(path=path, task_names=["colour", "shape", "caption"])
        evaluator = EvaluationPlugin(ForgettingMatrix(benchmark), metrics, loggers=[logger])
        strategy = method(
            model=load(), train_mb_size=5, train_epochs=2, lr=1e-2, eval_loss=False, evaluator=evaluator, **options
        )
        for experience in benchmark.train_stream[:2]:
            strategy.train(experience, eval_streams=[benchmark.test_stream[:1]])
            strategy.eval(benchmark.test_stream)
        return path.read_text()

    return logged


@pytest.mark.parametrize("options", [{}, {"eval_every": 1}, {"eval_every": 2, "peval_mode": "iteration"}])
@pytest.mark.parametrize("chosen", [{"minibatch": True}, {"epoch": True}, {"minibatch": True, "epoch": True}])
def test_the_same_lines_as_of_avalanches_own(logged: Logged, options: dict[str, Any], chosen: dict[str, bool]) -> None:
    lines = logged(loss_metrics(**chosen), **options)

    assert lines == logged(stock_loss_metrics(**chosen), **options)
    names = {json.loads(line)["name"].split("/")[0] for line in lines.splitlines()}
    assert ("Loss_MB" in names, "Loss_Epoch" in names) == ("minibatch" in chosen, "epoch" in chosen)


@pytest.mark.parametrize(
    ("method", "options"), [(EWC, {"lambda_": 100.0}), (LwF, {"lambda_": 1.0, "micro_batch_size": 2})]
)
def test_penalties_keep_their_places_among_the_losses(
    logged: Logged, monkeypatch: pytest.MonkeyPatch, method: Any, options: dict[str, Any]
) -> None:
    written = []
    for fetch_every in (1, 3, 50):
        monkeypatch.setattr(update, "FETCH_EVERY", fetch_every)
        written.append(logged(loss_metrics(minibatch=True, epoch=True), method, **options))

    assert written[0] == written[1] == written[2]
    lines = [json.loads(line) for line in written[2].splitlines()]
    steps = [(line["step"], line["name"].split("/")[0]) for line in lines if line["phase"] == "train"]
    one_epoch = [(step, name) for step in range(8, 11) for name in ("penalty", "Loss_MB")]
    assert steps[10 : 10 + 7] == [*one_epoch, (11, "Loss_Epoch")]
    assert max(line["value"] for line in lines if line["name"] == "penalty") > 0


def test_values_come_at_the_latest_with_the_end_of_the_epoch(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    losses = loss_metrics(minibatch=True)
    strategy = SeqFT(model=load(), train_mb_size=4, evaluator=EvaluationPlugin(losses, loggers=[]))

    strategy.train(benchmark.train_stream[0])

    [(steps, values)] = strategy.evaluator.get_all_metrics().values()
    assert steps == [0, 1, 2, 3]
    assert all(type(value) is float for value in values)


@pytest.mark.parametrize("chosen", [{"minibatch": True}, {"epoch_running": True}])
def test_beside_avalanches_own_lines_keep_their_order(
    logged: Logged, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, bool]
) -> None:
    """Penalties come before the loss of their step, whenever numbers are fetched."""
    lines = [json.loads(line) for line in logged(stock_loss_metrics(**chosen), EWC, lambda_=100.0).splitlines()]

    names = [line["name"].split("/")[0] for line in lines if line["phase"] == "train" and line["step"] >= 8]
    assert names[::2] == ["penalty"] * (len(names) // 2)
    assert len(names) == 2 * 2 * 3
