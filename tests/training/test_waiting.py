"""How often training waits for the device: not once more for more steps, whatever the method."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.evaluation.metrics import loss_metrics as stock_loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from torch.utils._python_dispatch import TorchDispatchMode

from avalanche_cit.evaluation.loss import loss_metrics
from avalanche_cit.logging.progress import ProgressPlugin
from avalanche_cit.models import LMM
from avalanche_cit.training import (
    AGEM,
    EWC,
    MAS,
    TIR,
    EProj,
    InstructionTuning,
    LwF,
    Replay,
    SeqFT,
    SimilarityReplay,
    update,
)
from avalanche_cit.training.plugins.agem import AGEMPlugin

Make = Callable[..., InstructionTuning]

WAITING_OPERATORS = {
    "aten::_local_scalar_dense",  # item(), float(), bool() ...
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::is_nonzero",
    "aten::_unique2",
    "aten::repeat_interleave.Tensor",
}
METHODS: dict[str, tuple[type[InstructionTuning], dict[str, Any]]] = {
    "SeqFT": (SeqFT, {}),
    "micro-batches": (SeqFT, {"micro_batch_size": 1}),
    "no clipping": (SeqFT, {"max_grad_norm": None}),
    "Replay": (Replay, {"memory_size": 6, "memory_batch_size": 1}),
    "SimilarityReplay": (SimilarityReplay, {"memory_size": 6, "memory_batch_size": 1}),
    "AGEM": (AGEM, {"memory_size": 6, "sample_size": 3}),
    "LwF": (LwF, {"lambda_": 1.0}),
    "EWC": (EWC, {"lambda_": 10.0}),
    "MAS": (MAS, {"lambda_": 10.0, "merge": "max", "normalised": True}),
    "TIR": (TIR, {"lambda_": 1e5}),
    "EProj": (EProj, {}),
}


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device, while it is watching."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.watching = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function).replace(".", "::", 1).removesuffix(".default")
        masked = name.startswith("aten::index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for indices in args[1:2]
            if isinstance(indices, list | tuple)
            for index in indices
        )
        self.count += self.watching and (name in WAITING_OPERATORS or masked)
        return function(*args, **(kwargs or {}))

    @contextmanager
    def paused(self) -> Iterator[None]:
        watching, self.watching = self.watching, False
        try:
            yield
        finally:
            self.watching = watching


def waits_of(
    make: Callable[[], InstructionTuning], benchmark: CLScenario, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int]:
    """Train on two tasks, and return the number of waits and of steps in the epochs of the second.

    What is done to make a batch is not counted: that is before it goes to a device. Nor is what the stock model does:
    transformers looks at attention masks to leave away those that mask nothing.
    """
    waits = Waits()
    real = update.batches

    def batches(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with waits.paused():
            made = list(real(*args, **kwargs))
        yield from made

    with monkeypatch.context() as patch:
        patch.setattr(update, "batches", batches)
        for name in ("tolist", "cpu", "numpy"):  # which no operator shows
            patch.setattr(torch.Tensor, name, _counted(waits, getattr(torch.Tensor, name)))
        strategy = make()
        patch.setattr(strategy.model, "collator", _paused(waits, strategy.model.collator))
        patch.setattr(strategy.model.hf, "forward", _paused(waits, strategy.model.hf.forward))
        patch.setattr(AGEMPlugin, "_draw", _paused(waits, AGEMPlugin._draw))
        strategy.train(benchmark.train_stream[0])
        epoch = strategy.training_epoch

        def watched(**kwargs: Any) -> None:
            waits.watching = True
            try:
                epoch(**kwargs)
            finally:
                waits.watching = False

        patch.setattr(strategy, "training_epoch", watched)
        before = strategy.clock.train_iterations
        with waits:
            strategy.train(benchmark.train_stream[1])
    return waits.count, strategy.clock.train_iterations - before


def _counted(waits: Waits, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        waits.count += waits.watching
        return function(*args, **kwargs)

    return counted


def _paused(waits: Waits, function: Callable[..., Any]) -> Callable[..., Any]:
    def paused(*args: Any, **kwargs: Any) -> Any:
        with waits.paused():
            return function(*args, **kwargs)

    return paused


@pytest.fixture
def make(load: Callable[..., LMM]) -> Callable[..., InstructionTuning]:
    """Build a method as on a GPU, where AdamW is fused."""

    def make(method: str, metrics: Any = None, **given: Any) -> InstructionTuning:
        strategy, own = METHODS[method]
        model = load("llama", trainable="projection" if method == "EProj" else "bridge")
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        return strategy(
            model=model,
            optimizer=torch.optim.AdamW(weights, lr=1e-2, fused=True),
            plugins=[ProgressPlugin(100, "test")],
            evaluator=EvaluationPlugin(metrics or loss_metrics(minibatch=True, epoch=True), loggers=[]),
            **{"train_mb_size": 2, **own, **given},
        )

    return make


@pytest.mark.parametrize("method", METHODS)
def test_more_steps_wait_no_more_often(
    make: Make, benchmark: CLScenario, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    few, steps = waits_of(lambda: make(method, train_mb_size=6), benchmark, monkeypatch)
    many, more_steps = waits_of(lambda: make(method), benchmark, monkeypatch)

    assert more_steps > steps > 1
    assert many == few <= 2  # once per data type at the end of the epoch


def test_avalanches_own_metric_waits_in_every_step(
    make: Make, benchmark: CLScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the count above sees what it is to see."""
    waits, steps = waits_of(lambda: make("SeqFT", stock_loss_metrics(minibatch=True)), benchmark, monkeypatch)

    assert waits >= 2 * steps > 2
