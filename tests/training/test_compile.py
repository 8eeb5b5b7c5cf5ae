"""``torch.compile`` in training: the same losses, by what the backend has made; answers are generated without."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.training.plugins import EvaluationPlugin

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.models import LMM
from avalanche_cit.processes import Processes
from avalanche_cit.training import SeqFT


@pytest.fixture
def compiled() -> Any:
    """Name a backend that runs graphs as they are, and count how often."""
    calls: list[int] = []

    def counting(graph: Any, inputs: Any) -> Any:
        def run(*arguments: Any) -> Any:
            calls.append(1)
            return graph.forward(*arguments)

        return run

    torch._dynamo.reset()
    torch._dynamo.register_backend(counting, name="counting")
    yield calls
    torch._dynamo.reset()
    torch._dynamo.backends.registry._COMPILER_FNS.pop("counting")


def test_training_goes_through_the_backend_and_answers_do_not(
    load: Callable[..., LMM], benchmark: CLScenario, compiled: list[int]
) -> None:
    found = {}
    for backend in (None, "counting"):
        matrix = ForgettingMatrix(benchmark)
        evaluator = EvaluationPlugin(matrix, loggers=[])
        strategy = SeqFT(model=load(), train_mb_size=8, compile=backend, eval_loss=False, evaluator=evaluator)
        strategy.train(benchmark.train_stream[0])
        used = len(compiled)
        strategy.eval(benchmark.test_stream)
        found[backend] = strategy.loss, strategy.model.trainable_state(), matrix.scores, used
        assert len(compiled) == used
    plain, through = found.values()
    assert plain[3] == 0
    assert through[3] > 0
    for name, weight in plain[1].items():
        torch.testing.assert_close(through[1][name], weight, rtol=1e-3, atol=1e-5)
    assert through[2] == plain[2]


def test_a_backend_that_does_not_exist_is_an_error(load: Callable[..., LMM]) -> None:
    with pytest.raises(UserError, match=r"backend of torch\.compile 'inductr'.*inductor"):
        SeqFT(model=load(), compile="inductr")


def test_compiling_in_several_processes_is_refused(load: Callable[..., LMM]) -> None:
    with pytest.raises(UserError, match=r"compile is not proved to be right in several processes"):
        SeqFT(model=load(), compile="eager", processes=Processes(2, 0))
