"""Avalanche's own plugins run unmodified on our streams, and have their effect there."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import (
    AGEMPlugin,
    EarlyStoppingPlugin,
    EvaluationPlugin,
    EWCPlugin,
    LRSchedulerPlugin,
    MASPlugin,
    ReplayPlugin,
)

from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.models import LMM
from avalanche_cit.training import SeqFT

Weights = dict[str, torch.Tensor]
Tune = Callable[..., Weights]


class Loss(SupervisedPlugin):
    """Notes the loss that the plugins before it have left."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        self.values.append(strategy.loss.item())


class Alignment(SupervisedPlugin):
    """Notes how the gradient that the plugins before it have left stands to A-GEM's reference gradient."""

    def __init__(self, agem: AGEMPlugin) -> None:
        super().__init__()
        self.agem = agem
        self.products: list[float] = []

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        if self.agem.buffers:
            weights = strategy.model.parameters()
            own = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
            gradient = torch.cat([part.flatten() for part in own])
            self.products.append(float(torch.dot(gradient, self.agem.reference_gradients)))


@pytest.fixture
def tune(load: Callable[..., LMM], benchmark: CLScenario) -> Tune:
    """Train on the first two tasks, 4 and 3 steps an epoch, and return the weights."""

    def tune(plugins: Sequence[SupervisedPlugin], kind: str = "t5", **options: Any) -> Weights:
        model = load(kind)
        strategy = SeqFT(model=model, plugins=plugins, train_mb_size=4, lr=1e-2, **options)
        for experience in benchmark.train_stream[:2]:
            strategy.train(experience)
        return {name: weight.clone() for name, weight in model.trainable_state().items()}

    return tune


def same(one: Weights, other: Weights) -> bool:
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_replay_brings_earlier_samples_back(tune: Tune, record: Any) -> None:
    weights = tune([ReplayPlugin(mem_size=4), record])

    tasks = [{sample.split("-")[0] for sample in ids} for ids in record.ids]
    assert tasks == [{"colour"}] * 4 + [{"colour", "shape"}] * 3
    assert not same(weights, tune([]))


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize(
    "plugin",
    [
        lambda: EWCPlugin(ewc_lambda=100.0),
        lambda: EWCPlugin(ewc_lambda=100.0, mode="online", decay_factor=0.5),
        lambda: MASPlugin(lambda_reg=1e-3),
    ],
    ids=["EWC", "EWC online", "MAS"],
)
def test_a_penalty_holds_the_weights_from_the_second_task_on(
    tune: Tune, plugin: Callable[[], SupervisedPlugin], kind: str
) -> None:
    before, after = Loss(), Loss()

    weights = tune([before, plugin(), after], kind)

    penalties = [late - early for early, late in zip(before.values, after.values, strict=True)]
    assert penalties[:5] == [0] * 5  # the second task's first step starts at the anchor
    assert min(penalties[5:]) > 1e-4
    assert not same(weights, tune([], kind))


def test_importance_lies_on_all_trainable_weights_and_on_no_other(tune: Tune, load: Callable[..., LMM]) -> None:
    ewc, mas = EWCPlugin(ewc_lambda=1.0), MASPlugin()

    trainable = tune([ewc, mas]).keys()

    for importance in (ewc.importances[0], ewc.importances[1], mas.importance):
        weighty = {name for name, values in importance.items() if bool(values.data.abs().max() > 0)}
        assert weighty == trainable
        assert all(bool(values.data.isfinite().all()) for values in importance.values())


@pytest.mark.parametrize(
    "plugin", [lambda: EWCPlugin(ewc_lambda=0.0), lambda: MASPlugin(lambda_reg=0.0)], ids=["EWC", "MAS"]
)
def test_a_penalty_of_no_weight_changes_no_weight(tune: Tune, plugin: Callable[[], SupervisedPlugin]) -> None:
    assert same(tune([plugin()]), tune([]))


def test_a_gem_turns_gradients_that_would_undo_earlier_tasks(tune: Tune) -> None:
    agem = AGEMPlugin(patterns_per_experience=4, sample_size=4)
    before, after = Alignment(agem), Alignment(agem)

    weights = tune([before, agem, after], train_epochs=3)

    assert float(agem.reference_gradients.norm()) > 1e-3
    assert len(before.products) == 9
    assert min(before.products) < -1e-3
    assert min(after.products) > -1e-5
    assert not same(weights, tune([], train_epochs=3))


def test_a_stock_cosine_schedule_runs_and_restarts(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any
) -> None:
    model = load()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    plugin = LRSchedulerPlugin(scheduler, step_granularity="iteration")
    strategy = SeqFT(model=model, optimizer=optimizer, warmup=None, train_mb_size=4, plugins=[plugin, record])

    strategy.train(benchmark.train_stream[:2])

    rates = [rate for (rate,) in record.rates]
    assert rates == pytest.approx([0.1, 0.085355, 0.05, 0.014645, 0.1, 0.085355, 0.05], rel=1e-4)


def test_a_stock_step_schedule_runs_by_epochs(load: Callable[..., LMM], benchmark: CLScenario, record: Any) -> None:
    model = load()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    plugin = LRSchedulerPlugin(torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5))
    strategy = SeqFT(
        model=model, optimizer=optimizer, warmup=None, train_mb_size=8, train_epochs=3, plugins=[plugin, record]
    )

    strategy.train(benchmark.train_stream[:2])

    assert [rate for (rate,) in record.rates] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025] * 2)


@pytest.mark.parametrize(
    ("metric", "stream", "mode"),
    [
        ("Loss_Exp", "validation_stream/Task000/Exp000", "min"),
        ("Loss_Stream", "validation_stream/Task002", "min"),  # the mean, named after the task evaluated last
        ("Score_Stream", "validation_stream", "max"),
    ],
)
def test_early_stopping_stops_and_goes_back_to_the_best_weights(
    load: Callable[..., LMM],
    benchmark: CLScenario,
    snapshot: Callable[[torch.nn.Module], Weights],
    metric: str,
    stream: str,
    mode: str,
) -> None:
    model = load()
    start = snapshot(model)
    matrix = ForgettingMatrix(benchmark, stream="validation")
    stopping = EarlyStoppingPlugin(patience=2, val_stream_name=stream, metric_name=metric, mode=mode, margin=1.0)
    strategy = SeqFT(
        model=model,
        lr=1e-5,  # too small to gain the margin
        train_mb_size=8,
        train_epochs=8,
        plugins=[stopping],
        evaluator=EvaluationPlugin(matrix, loss_metrics(experience=True, stream=True), loggers=[]),
        eval_every=1,
    )

    strategy.train(benchmark.train_stream[0], eval_streams=[benchmark.validation_stream])

    assert f"{metric}/eval_phase/{stream}" in strategy.evaluator.get_last_metrics()
    assert strategy.clock.train_iterations == 2 * 2  # two epochs of two steps
    assert all(torch.equal(weight, start[name]) for name, weight in model.named_parameters())


def test_a_run_goes_on_from_saved_generator_states(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    """What is drawn after training, such as a memory, depends on generators that RNGManager saves and restores."""

    def draw_after_training() -> list[str]:
        plugin = ReplayPlugin(mem_size=4)
        SeqFT(model=load(), plugins=[plugin], train_mb_size=8).train(benchmark.train_stream[0])
        states.append(RNGManager.__getstate__())
        memory = plugin.storage_policy.buffer
        return [memory[i][0].row["id"] for i in range(4)]

    states: list[dict[str, Any]] = []
    RNGManager.set_random_seeds(5)
    first = draw_after_training()
    RNGManager.set_random_seeds(6)
    second = draw_after_training()
    after = float(torch.rand(1))
    RNGManager.__setstate__(states[0])

    assert first == second
    assert float(torch.rand(1)) == after
