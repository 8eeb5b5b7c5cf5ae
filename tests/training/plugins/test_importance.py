"""Importance against numbers worked by hand, and against plain autograd on real models."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from torch import nn

from avalanche_cit.benchmarks.batch import IGNORED
from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM
from avalanche_cit.training import EWCImportance, MASImportance, SeqFT
from avalanche_cit.training.plugins.importance import Importance, normalise

PATTERNS = ["language_projection.*", "query_tokens"]


@pytest.fixture
def strategy(load: Callable[..., LMM], kind: str) -> SeqFT:
    """In double precision, with batches of 6 in micro-batches of 4."""
    model = load(kind, dtype=torch.float64, trainable=PATTERNS)
    return SeqFT(model=model, train_mb_size=6, micro_batch_size=4, evaluator=None)


def by_autograd(
    strategy: SeqFT, dataset: Any, size: int, objective: Callable[..., torch.Tensor], measure: Callable[..., Any]
) -> list[torch.Tensor]:
    """The mean over batches of a measure of the gradient, written out."""
    model = strategy.model
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    items = [dataset[i] for i in range(len(dataset))]
    batches = [items[i : i + size] for i in range(0, len(items), size)]
    rows = []
    for batch in batches:
        x, y, _ = model.collator(batch)
        rows.append([measure(g) for g in torch.autograd.grad(objective(model(x), y), weights)])
    return [torch.stack(parts).mean(dim=0) for parts in zip(*rows, strict=True)]


def mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    probabilities = logits.log_softmax(dim=1)
    chosen = probabilities.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return -(chosen * (labels != IGNORED)).sum()


def squared_norm(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    answers = labels != IGNORED
    return (logits.pow(2).sum(1) * answers).sum() / answers.sum()


@pytest.mark.parametrize(
    ("estimator", "size", "objective", "measure"),
    [
        (EWCImportance(), 6, mean_loss, torch.square),
        (EWCImportance(per_sample=True), 1, summed_loss, torch.square),
        (MASImportance(), 6, squared_norm, torch.abs),
        (MASImportance(per_sample=True), 1, squared_norm, torch.abs),
    ],
    ids=["ewc-batch", "ewc-sample", "mas-batch", "mas-sample"],
)
def test_estimates_are_what_autograd_gives(
    strategy: SeqFT,
    benchmark: CLScenario,
    estimator: Importance,
    size: int,
    objective: Callable[..., torch.Tensor],
    measure: Callable[..., Any],
) -> None:
    dataset = benchmark.train_stream[0].dataset  # 16 samples: two batches of 6 and one of 4

    result = estimator.estimate(strategy, dataset)

    for ours, expected in zip(result, by_autograd(strategy, dataset, size, objective, measure), strict=True):
        assert expected.abs().sum() > 0
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-12)


def test_by_hand() -> None:
    """Two answer positions with logits (3, 4) and (0, 2), and a position without a label."""
    logits = torch.tensor([[[3.0, 0.0, 9.0], [4.0, 2.0, 9.0]]])
    labels = torch.tensor([[1, 0, IGNORED]])
    losses = [torch.tensor([3.0 - 4.0]).exp().log1p(), torch.tensor([2.0 - 0.0]).exp().log1p()]

    assert MASImportance().objective(None, logits, labels) == pytest.approx((25 + 4) / 2)
    assert float(EWCImportance(per_sample=True).objective(None, logits, labels)) == pytest.approx(float(sum(losses)))
    total = [torch.tensor([1.0, 2.0])]
    EWCImportance().accumulate(total, [torch.tensor([3.0, -4.0])], 0.5)
    assert total[0].tolist() == [5.5, 10.0]
    MASImportance().accumulate(total, [torch.tensor([3.0, -4.0])], 0.5)
    assert total[0].tolist() == [7.0, 12.0]


@pytest.mark.parametrize("importance", [EWCImportance, MASImportance])
def test_a_pass_changes_nothing_but_its_result(
    load: Callable[..., LMM],
    benchmark: CLScenario,
    importance: Callable[..., Importance],
    snapshot: Callable[..., dict[str, torch.Tensor]],
) -> None:
    model = load(trainable="all")
    for module in model.hf.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    strategy = SeqFT(model=model, train_mb_size=8)
    model.train()
    before, state = snapshot(model), torch.get_rng_state()

    first = importance(samples=5).estimate(strategy, benchmark.train_stream[0].dataset)
    second = importance(samples=5).estimate(strategy, benchmark.train_stream[0].dataset)

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # no dropout
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert all(weight.grad is None for weight in model.parameters())
    assert model.training


def test_samples_are_strided_over_the_task(strategy: SeqFT, benchmark: CLScenario) -> None:
    dataset = benchmark.train_stream[0].dataset

    result = EWCImportance(samples=5).estimate(strategy, dataset)

    some = dataset.subset([0, 3, 6, 9, 12])
    for ours, expected in zip(result, EWCImportance().estimate(strategy, some), strict=True):
        assert torch.equal(ours, expected)


def test_half_precision_weights_have_importance_in_single_precision(
    load: Callable[..., LMM], benchmark: CLScenario
) -> None:
    strategy = SeqFT(model=load(dtype=torch.bfloat16, trainable="projection"), train_mb_size=8)

    result = MASImportance().estimate(strategy, benchmark.train_stream[0].dataset)

    assert {part.dtype for part in result} == {torch.float32}
    assert all(part.sum() > 0 for part in result)


def test_normalised_to_sum_1() -> None:
    parts = [torch.tensor([[1.0, 3.0]]), torch.tensor([4.0])]
    normalise(parts)
    assert [part.tolist() for part in parts] == [[[0.125, 0.375]], [0.5]]
    nothing = [torch.zeros(2)]
    normalise(nothing)
    assert nothing[0].tolist() == [0.0, 0.0]


def test_at_least_one_sample() -> None:
    with pytest.raises(UserError, match="importance samples are 0"):
        EWCImportance(samples=0)
