"""The penalty in closed form, on real weights, against Avalanche's own EWC, and its limits."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin
from torch import nn

from avalanche_cit.errors import UserError
from avalanche_cit.logging.json_lines import JSONLinesLogger
from avalanche_cit.models import LMM
from avalanche_cit.training import EWC, MAS, TIR, EWCImportance, MASImportance, RegularizationPlugin, SeqFT
from avalanche_cit.training.pending import PendingNumbers

OPTIONS = {"train_mb_size": 8, "train_epochs": 2, "lr": 1e-2, "seed": 3}


def weights_of(strategy: Any) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in strategy.model.trainable_state().items()}


def train(strategy: Any, benchmark: CLScenario, tasks: int = 3) -> dict[str, torch.Tensor]:
    for experience in benchmark.train_stream[:tasks]:
        strategy.train(experience)
    return weights_of(strategy)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Two(nn.Module):
    """Three weights, one of which no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.b = nn.Parameter(torch.tensor(0.5))


def step(plugin: RegularizationPlugin) -> tuple[float, list[float], float]:
    """One backward pass of loss = sum(a) on `Two`; returns loss, gradient of a and b, and the logged penalty."""
    logged: list[Any] = []
    model = Two()
    strategy = SimpleNamespace(
        model=model,
        pending=PendingNumbers(),
        device=torch.device("cpu"),
        loss=model.a.detach().sum().reshape(1),
        evaluator=SimpleNamespace(publish_metric_value=logged.append),
        clock=SimpleNamespace(train_iterations=7),
    )
    model.a.sum().backward()
    plugin.after_backward(strategy)
    assert logged == []  # until it is fetched
    strategy.pending.fetch()
    assert model.a.grad is not None
    assert model.b.grad is not None
    assert [(value.name, value.x_plot) for value in logged] == [("penalty", 7)]
    return float(strategy.loss), [*model.a.grad.tolist(), float(model.b.grad)], logged[0].value


def test_penalty_and_gradient_by_hand() -> None:
    """lambda / 2 sum Omega (theta - theta*)^2 with lambda 4, Omega (3, 0.5, 2), theta - theta* (0.5, -1, 0.25)."""
    plugin = RegularizationPlugin(EWCImportance(), lambda_=4.0)
    plugin.load_state_dict(
        {
            "tasks": ["old"],
            "omega/a": torch.tensor([3.0, 0.5]),
            "omega/b": torch.tensor(2.0),
            "anchor/a": torch.tensor([0.5, -1.0]),
            "anchor/b": torch.tensor(0.25),
        }
    )

    loss, gradient, penalty = step(plugin)

    assert penalty == pytest.approx(2 * (3 * 0.25 + 0.5 * 1 + 2 * 0.0625), abs=1e-6)
    assert loss == pytest.approx(-1 + penalty, abs=1e-6)
    assert gradient == pytest.approx([1 + 4 * 3 * 0.5, 1 + 4 * 0.5 * -1, 4 * 2 * 0.25], abs=1e-6)


@pytest.mark.parametrize("estimator", [EWCImportance(), EWCImportance(per_sample=True), MASImportance()])
@pytest.mark.parametrize("merge", ["sum", "max"])
def test_gradient_of_a_real_step_is_that_of_the_penalised_loss(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any, estimator: Any, merge: str
) -> None:
    """Two tasks learned; in the third, every step's gradient is autograd's of loss + penalty, to 1e-6."""
    model = load(dtype=torch.float64, trainable="projection")
    plugin = RegularizationPlugin(estimator, lambda_=30.0, merge=merge, normalised=merge == "max")
    strategy = SeqFT(
        model=model,
        plugins=[plugin],
        max_grad_norm=None,
        train_mb_size=8,
        micro_batch_size=3,
        train_epochs=3,
        lr=1e-2,
    )
    anchors, omegas = [], []
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience)
        anchors.append(weights_of(strategy))
        new = dict(zip(anchors[-1], estimator.estimate(strategy, experience.dataset), strict=True))
        total = sum(part.sum() for part in new.values()) if merge == "max" else 1.0
        omegas.append({name: part / total for name, part in new.items()})
    merged = {
        name: omegas[0][name] + omegas[1][name] if merge == "sum" else torch.maximum(omegas[0][name], omegas[1][name])
        for name in omegas[0]
    }
    taken = []

    class Check(type(record)):  # type: ignore[misc]
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
            loss = strategy._criterion(model(strategy.mb_x), strategy.mb_y)
            own = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
            penalty = sum((merged[name] * (own[name] - anchors[1][name]) ** 2).sum() for name in own) * 15
            wanted = torch.autograd.grad(loss + penalty, list(own.values()))
            for name, gradient in zip(own, wanted, strict=True):
                torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-7)
            assert float(strategy.loss) == pytest.approx(float(loss.detach() + penalty.detach()), abs=1e-6)
            taken.append(float(penalty.detach()))

    strategy.plugins.append(Check())
    strategy.train(benchmark.train_stream[2])

    assert len(taken) == 3  # 8 samples, three epochs
    assert taken[0] == 0
    assert min(taken[1:]) > 1e-4


def test_equals_avalanches_own_ewc(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    """Everything trainable, per-batch estimator, lambda doubled; SGD in float64: Adam, or a ReLU, blows rounding up."""

    def run(method: Any, **options: Any) -> dict[str, torch.Tensor]:
        model = load(trainable="all").double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        shared = {"train_mb_size": 8, "train_epochs": 3, "seed": 3, "warmup": None}
        return train(method(model=model, optimizer=optimizer, **shared, **options), benchmark)

    ours = run(EWC, lambda_=4.0)
    stock = run(SeqFT, plugins=[EWCPlugin(ewc_lambda=2.0, mode="online", decay_factor=1.0)])
    plain = run(SeqFT)

    def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
        return max(float((one[name] - other[name]).abs().max()) for name in one)

    assert difference(ours, stock) < 1e-5
    assert difference(ours, plain) > 1e-3


@pytest.mark.parametrize("strategy", [EWC, MAS, TIR])
def test_lambda_0_is_seqft_bit_for_bit(load: Callable[..., LMM], benchmark: CLScenario, strategy: Any) -> None:
    plain = train(SeqFT(model=load(), **OPTIONS), benchmark)

    assert same(train(strategy(model=load(), lambda_=0.0, **OPTIONS), benchmark), plain)
    assert not same(train(strategy(model=load(), lambda_=100.0, **OPTIONS), benchmark), plain)


@pytest.mark.parametrize("strategy", [EWC, MAS, TIR])
def test_an_extra_evaluation_changes_no_weight(load: Callable[..., LMM], benchmark: CLScenario, strategy: Any) -> None:
    def run(look: bool) -> dict[str, torch.Tensor]:
        made = strategy(model=load(), lambda_=100.0, **OPTIONS)
        for experience in benchmark.train_stream:
            if look:
                made.eval(benchmark.test_stream)
            made.train(experience)
        return weights_of(made)

    assert same(run(look=False), run(look=True))


def test_a_larger_lambda_keeps_weights_nearer_to_the_anchor(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    moved = []
    for lambda_ in (0.0, 10.0, 1000.0):
        strategy = EWC(model=load(), lambda_=lambda_, max_grad_norm=None, **OPTIONS)
        anchor = train(strategy, benchmark, tasks=1)
        plugin = next(plugin for plugin in strategy.plugins if isinstance(plugin, RegularizationPlugin))
        omega = {name: importance.clone() for name, importance in zip(plugin.names, plugin.omega, strict=True)}
        strategy.train(benchmark.train_stream[1])
        now = weights_of(strategy)
        moved.append(float(sum((omega[n] * (now[n] - anchor[n]) ** 2).sum() for n in now)))

    assert moved[0] > moved[1] > moved[2]


def test_the_penalty_is_logged_at_every_step(load: Callable[..., LMM], benchmark: CLScenario, tmp_path: Path) -> None:
    logger = JSONLinesLogger(path=tmp_path / "metrics.jsonl", task_names=["colour", "shape", "caption"])
    strategy = TIR(model=load(), lambda_=1e4, evaluator=EvaluationPlugin(loggers=[logger]), **OPTIONS)

    train(strategy, benchmark)

    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    penalties = [line for line in lines if line["name"] == "penalty"]
    assert [(line["task"], line["step"]) for line in penalties] == [
        *[("shape", step) for step in range(4, 8)],  # 12 samples in batches of 8, twice
        *[("caption", step) for step in range(8, 10)],
    ]
    values = [line["value"] for line in penalties]
    assert values[0] == values[4] == 0  # the first step of a task starts at the anchor
    assert min(values[1:4] + values[5:]) > 0


# --- TIR --------------------------------------------------------------------------------------------------------------


class Similar:
    """Stands for the similarity of tasks, which has tests of its own."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.asked: list[tuple[str, list[str]]] = []

    def see(self, task: str, dataset: Any) -> None:
        pass

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def similarity(self, task: str, others: list[str]) -> torch.Tensor:
        self.asked.append((task, list(others)))
        return torch.full((len(others),), self.value)


@pytest.mark.parametrize("importance", [EWCImportance, MASImportance])
def test_similarity_0_is_max_merged_importance_and_similarity_1_is_seqft(
    load: Callable[..., LMM], benchmark: CLScenario, importance: Any
) -> None:
    plain = train(SeqFT(model=load(), **OPTIONS), benchmark)
    comparator = EWC if importance is EWCImportance else MAS
    max_merged = train(comparator(model=load(), lambda_=1e4, merge="max", normalised=True, **OPTIONS), benchmark)

    def tir(similarity: float) -> dict[str, torch.Tensor]:
        seen: Any = Similar(similarity)
        strategy = TIR(model=load(), lambda_=1e4, importance=importance(), seen_tasks=seen, **OPTIONS)
        weights = train(strategy, benchmark)
        assert seen.asked == [("shape", ["colour"]), ("caption", ["colour", "shape"])]
        return weights

    assert same(tir(0.0), max_merged)
    assert same(tir(1.0), plain)
    assert not same(tir(0.5), plain)
    assert not same(tir(0.5), max_merged)


def test_owners_are_the_tasks_of_largest_importance(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    strategy = TIR(model=load(trainable="projection"), lambda_=1e4, **OPTIONS)
    plugin = next(plugin for plugin in strategy.plugins if isinstance(plugin, RegularizationPlugin))
    each = []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        new = EWCImportance().estimate(strategy, experience.dataset)
        total = sum(part.sum() for part in new)
        each.append([part / total for part in new])

    assert plugin.tasks == ["colour", "shape", "caption"]
    for i, (omega, owner) in enumerate(zip(plugin.omega, plugin.owner, strict=True)):
        stacked = torch.stack([parts[i] for parts in each])
        torch.testing.assert_close(omega, stacked.max(dim=0).values, rtol=1e-5, atol=1e-12)
        assert torch.equal(owner.long(), stacked.argmax(dim=0))
    assert {int(value) for owner in plugin.owner for value in owner.unique()} == {0, 1, 2}


class Planned(EWCImportance):
    """Says that the k-th task matters most to the k-th weight, and a little less to those before it."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.task = 0

    def estimate(self, strategy: Any, dataset: Any) -> list[torch.Tensor]:
        importance = torch.zeros(self.count)
        importance[: self.task] = 0.5 + self.task / 1000
        importance[self.task] = 1.0
        self.task += 1
        return [importance]


class ByNumber(Similar):
    """Says how similar a task is by its number."""

    def similarity(self, task: str, others: list[str]) -> torch.Tensor:
        return torch.arange(len(others)) / 1000

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        pass


@pytest.mark.parametrize("count", [127, 128, 129, 130, 256, 257, 300])
def test_owners_of_many_tasks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner's index goes beyond what one byte holds, with and without its sign."""
    monkeypatch.setattr("avalanche_cit.training.plugins.regularization.single_task", lambda name, method: name)
    weight = nn.Parameter(torch.zeros(count))
    model = SimpleNamespace(named_parameters=lambda: [("a", weight)], trainable_state=lambda: {"a": weight.detach()})
    strategy: Any = SimpleNamespace(model=model)
    seen: Any = ByNumber(0)
    options: dict[str, Any] = {"merge": "max", "weighting": "dissimilarity", "seen_tasks": seen}
    plugin = RegularizationPlugin(Planned(count), 1.0, **options)

    class Name(str):
        dataset = None

    for task in range(count):
        plugin._learn(strategy, Name(f"task {task}"))
    again = RegularizationPlugin(Planned(count), 1.0, **options)
    again.load_state_dict(plugin.state_dict())
    strategy.experience = Name("new")
    again.before_training_exp(strategy)

    assert torch.equal(plugin.owner[0].long(), torch.arange(count))
    assert plugin.owner[0].element_size() == (1 if count <= 128 else 2)
    torch.testing.assert_close(again._weighted, [1 - torch.arange(count) / 1000])


def test_task_0_is_protected_from_the_first_task_on(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    members = benchmark.task0_train_stream
    strategy = TIR(model=load(), lambda_=1e4, task0=members, **OPTIONS)
    plugin = next(plugin for plugin in strategy.plugins if isinstance(plugin, RegularizationPlugin))
    start = weights_of(strategy)

    strategy.train(benchmark.train_stream[0])

    assert plugin.tasks == ["old", "colour"]
    assert list(plugin.seen_tasks.embeddings) == ["old", "colour"]  # type: ignore[union-attr]
    assert not same(weights_of(strategy), train(SeqFT(model=load(), **OPTIONS), benchmark, tasks=1))
    strict = EWC(model=load(), lambda_=1e9, task0=members, max_grad_norm=None, lr=1e-3, train_mb_size=8)
    kept = train(strict, benchmark, tasks=1)
    loose = train(SeqFT(model=load(), max_grad_norm=None, lr=1e-3, train_mb_size=8), benchmark, tasks=1)
    important = EWCImportance().estimate(SeqFT(model=load(), train_mb_size=8), members[0].dataset)
    top = [part > part.quantile(0.99) if part.numel() < 2**20 else part > part.max() / 2 for part in important]

    def moved(weights: dict[str, torch.Tensor]) -> float:
        return sum(float((weights[n] - start[n])[t].abs().sum()) for n, t in zip(start, top, strict=True))

    assert moved(kept) < moved(loose)


# --- State ------------------------------------------------------------------------------------------------------------


class Weighing(EWCImportance):
    """Notes what a plugin and the pass hold while importance is estimated."""

    def __init__(self) -> None:
        super().__init__()
        self.plugin: Any = None
        self.most = 0

    def accumulate(self, total: list[torch.Tensor], gradients: list[torch.Tensor], share: float) -> None:
        super().accumulate(total, gradients, share)
        self.most = max(self.most, held_by(self.plugin) + sum(part.numel() * part.element_size() for part in total))


def held_by(plugin: RegularizationPlugin) -> int:
    """Bytes of all tensors that a plugin holds, but for the model's own weights."""
    found = [tensor for value in vars(plugin).values() if isinstance(value, list) for tensor in value]
    own = [tensor for tensor in found if isinstance(tensor, torch.Tensor) and not isinstance(tensor, nn.Parameter)]
    return sum(tensor.numel() * tensor.element_size() for tensor in own)


@pytest.mark.parametrize("learned", [5, 20])
@pytest.mark.parametrize(
    ("weighting", "at_rest", "training", "learning"), [(None, 8, 8, 12), ("dissimilarity", 9, 13, 13)]
)
def test_memory_per_trainable_weight_does_not_grow(
    load: Callable[..., LMM],
    benchmark: CLScenario,
    record: Any,
    learned: int,
    weighting: str | None,
    at_rest: int,
    training: int,
    learning: int,
) -> None:
    similar: Any = Similar(0.5)
    importance = Weighing()
    plugin = RegularizationPlugin(
        importance, 1.0, merge="max", normalised=True, weighting=weighting, seen_tasks=similar
    )
    importance.plugin = plugin
    during = []

    class Watch(type(record)):  # type: ignore[misc]
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            during.append(held_by(plugin))

    strategy = SeqFT(model=load(), plugins=[plugin, Watch()], train_mb_size=16)
    count = sum(weight.numel() for weight in strategy.model.trainable_state().values())
    for i in range(learned):
        strategy.train(benchmark.train_stream[i % 3])
    saved = [value for value in plugin.state_dict().values() if isinstance(value, torch.Tensor)]

    assert held_by(plugin) == count * at_rest
    assert sum(tensor.numel() * tensor.element_size() for tensor in saved) == count * at_rest
    assert max(during) == count * training
    assert importance.most == count * learning


def test_a_restored_plugin_goes_on_bit_for_bit(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    first = TIR(model=load(), lambda_=1e4, **OPTIONS)
    train(first, benchmark, tasks=2)
    plugin = next(plugin for plugin in first.plugins if isinstance(plugin, RegularizationPlugin))
    state = {
        key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in plugin.state_dict().items()
    }
    assert all(isinstance(value, torch.Tensor) or json.dumps(value) for value in state.values())
    second = TIR(model=load(), lambda_=1e4, **OPTIONS)
    second.model.load_trainable_state(weights_of(first))
    next(plugin for plugin in second.plugins if isinstance(plugin, RegularizationPlugin)).load_state_dict(state)

    first.train(benchmark.train_stream[2])
    second.train(benchmark.train_stream[2])

    assert same(weights_of(first), weights_of(second))


# --- Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_": -1.0}, "lambda_ is -1.0"),
        ({"lambda_": float("nan")}, "lambda_ is nan"),
        ({"merge": "maximum"}, "did you mean 'max'"),
        ({"weighting": "dissimilar", "merge": "max"}, "did you mean 'dissimilarity'"),
        ({"weighting": "dissimilarity"}, "needs merge='max'"),
        ({"weighting": "dissimilarity", "merge": "max"}, "needs seen_tasks"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RegularizationPlugin(EWCImportance(), **{"lambda_": 1.0, **options})


def test_a_changing_trainable_part_is_refused(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    strategy = EWC(model=load(trainable="projection"), lambda_=1.0, **OPTIONS)
    strategy.train(benchmark.train_stream[0])
    strategy.model.hf.query_tokens.requires_grad_(True)

    with pytest.raises(UserError, match=r"'hf\.query_tokens' came or went"):
        strategy.train(benchmark.train_stream[1])
