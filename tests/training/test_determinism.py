"""The seed decides a run, bit for bit, and looking at a run changes nothing in it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin

from avalanche_cit.benchmarks import Task, instruction_benchmark
from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.models import LMM
from avalanche_cit.training import Replay


class Run(NamedTuple):
    weights: dict[str, torch.Tensor]
    scores: list[list[float | None]]


Runner = Callable[..., Run]


@pytest.fixture(scope="module")
def run(tasks: dict[str, Task], load: Callable[..., LMM]) -> Runner:
    """Replay over two tasks with dropout: shuffling, memory and dropout all draw at random."""

    def run(seed: int = 1, *, look: bool = False, **options: Any) -> Run:
        benchmark = instruction_benchmark([tasks["colour"], tasks["shape"], tasks["caption"]])
        model = load(trainable="all")
        for module in model.hf.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        matrix = ForgettingMatrix(benchmark)
        strategy = Replay(
            model=model,
            memory_size=4,
            lr=1e-2,
            train_mb_size=8,
            train_epochs=2,
            seed=seed,
            evaluator=EvaluationPlugin(matrix, loggers=[]),
            **options,
        )
        for experience in benchmark.train_stream[:2]:
            if look:
                strategy.eval(benchmark.test_stream[:1])
                strategy.eval(benchmark.train_stream[1:2])
            strategy.train(experience, eval_streams=[benchmark.test_stream[:1], benchmark.train_stream[2:]])
        strategy.eval(benchmark.test_stream)
        return Run({name: weight.clone() for name, weight in model.trainable_state().items()}, matrix.scores)

    return run


@pytest.fixture(scope="module")
def plain(run: Runner) -> Run:
    """Evaluated at the end alone."""
    torch.manual_seed(1)
    return run()


def same_weights(one: Run, other: Run) -> bool:
    return all(torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())


def test_the_same_seed_gives_the_same_weights_and_scores(run: Runner, plain: Run) -> None:
    torch.manual_seed(2)
    again = run()

    assert same_weights(plain, again)
    assert plain.scores == again.scores
    assert any(score for score in plain.scores[-1] if score is not None)


def test_another_seed_gives_other_weights(run: Runner, plain: Run) -> None:
    assert not same_weights(plain, run(seed=2))


@pytest.mark.parametrize(
    "options",
    [
        {"look": True},
        {"eval_every": 0},
        {"eval_every": 1},
        {"eval_every": 1, "peval_mode": "iteration"},
        {"eval_loss": False},
        {"plugins": [EWCPlugin(ewc_lambda=0.0)]},
    ],
    ids=["before and between tasks", "after tasks", "after epochs", "after iterations", "no losses", "importance"],
)
def test_looking_more_or_less_changes_no_weight(run: Runner, plain: Run, options: dict[str, Any]) -> None:
    watched = run(**options)

    assert same_weights(plain, watched)
    assert watched.scores[-1] == plain.scores[-1]
