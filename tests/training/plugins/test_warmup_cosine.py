"""The schedule has its closed form and starts anew with every experience."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario

from avalanche_cit.models import LMM
from avalanche_cit.training import Replay, SeqFT
from avalanche_cit.training.plugins.warmup_cosine import warmup_cosine


@pytest.mark.parametrize(
    ("step", "steps", "warmup", "factor"),
    [
        (0, 100, 0.1, 0.1),
        (4, 100, 0.1, 0.5),
        (9, 100, 0.1, 1.0),
        (10, 100, 0.1, 1.0),
        (40, 100, 0.1, 0.75),  # a third of the way down: (1 + cos 60 degrees) / 2
        (55, 100, 0.1, 0.5),
        (70, 100, 0.1, 0.25),
        (99, 100, 0.1, (1 + math.cos(math.pi * 89 / 90)) / 2),
        (0, 8, 0.0, 1.0),
        (4, 8, 0.0, 0.5),
        (0, 1, 0.03, 1.0),
        (0, 10, 0.25, 0.4),
        (1, 10, 0.25, 0.8),
        (2, 10, 0.25, 1.0),  # between the last step of the warm-up and the first of the descent
    ],
)
def test_closed_form(step: int, steps: int, warmup: float, factor: float) -> None:
    assert warmup_cosine(step, steps, warmup) == pytest.approx(factor)


@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.5, 0.9])
def test_rates_rise_to_the_peak_and_fall_towards_zero(warmup: float) -> None:
    factors = [warmup_cosine(step, 200, warmup) for step in range(200)]

    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert max(factors) == 1
    assert 0 < factors[-1] < 0.02


def test_every_experience_runs_through_the_whole_schedule(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any
) -> None:
    strategy = SeqFT(model=load(), lr=0.01, warmup=0.25, train_mb_size=4, train_epochs=2, plugins=[record])

    strategy.train(benchmark.train_stream)

    expected = [0.01 * warmup_cosine(step, steps, 0.25) for steps in (8, 6, 4) for step in range(steps)]
    assert [rates[0] for rates in record.rates] == pytest.approx(expected)
    assert [rates[1] for rates in record.rates] == pytest.approx(expected)


def test_a_groups_own_rate_is_its_peak(load: Callable[..., LMM], benchmark: CLScenario, record: Any) -> None:
    model = load()
    trained = list(model.trainable_state())
    weights = dict(model.named_parameters())
    groups = [
        {"params": [weights[name] for name in trained[:3]], "lr": 0.1},
        {"params": [weights[name] for name in trained[3:]], "lr": 0.002},
    ]
    optimizer = torch.optim.SGD(groups)

    SeqFT(model=model, optimizer=optimizer, warmup=0.0, train_mb_size=4, plugins=[record]).train(
        benchmark.train_stream[:2]
    )

    factors = [warmup_cosine(step, steps, 0.0) for steps in (4, 3) for step in range(steps)]
    assert [rates[0] for rates in record.rates] == pytest.approx([0.1 * factor for factor in factors])
    assert [rates[1] for rates in record.rates] == pytest.approx([0.002 * factor for factor in factors])


def test_the_schedule_counts_the_steps_of_a_loader_that_replay_put_in(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any
) -> None:
    strategy = Replay(model=load(), memory_size=4, lr=0.01, warmup=0.25, train_mb_size=4, plugins=[record])

    strategy.train(benchmark.train_stream[:2])

    expected = [0.01 * warmup_cosine(step, steps, 0.25) for steps in (4, 3) for step in range(steps)]
    assert [rates[0] for rates in record.rates] == pytest.approx(expected)


def test_without_a_warmup_share_the_rate_is_constant(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any
) -> None:
    SeqFT(model=load(), lr=0.01, warmup=None, train_mb_size=4, plugins=[record]).train(benchmark.train_stream[:2])

    assert {rate for rates in record.rates for rate in rates} == {0.01}
