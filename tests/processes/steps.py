"""Trains every strategy for twenty steps in float64, alone or under torchrun, and keeps what came out.

    torchrun --nproc_per_node 2 steps.py FOLDER

Writes ``FOLDER/<strategy>-rank<n>.pt`` with losses, penalties, weights after some of the steps, importances, keys and
answers. Two tasks of 73 samples in batches of 8: the last batch of an epoch has one sample, so one process has none.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from avalanche_cit.benchmarks.catalogue import benchmark_tasks
from avalanche_cit.benchmarks.scenario import instruction_benchmark
from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.models import LMM
from avalanche_cit.processes import join_processes
from avalanche_cit.similarity import SeenTasks, TokenEmbedding, VisionTower
from avalanche_cit.training import (
    EWC,
    MAS,
    TIR,
    DirectFT,
    EProj,
    JointFT,
    LwF,
    Regularized,
    Replay,
    SeqFT,
    SimilarityReplay,
)
from avalanche_cit.training.plugins.importance import EWCImportance, MASImportance
from avalanche_cit.training.plugins.regularization import RegularizationPlugin
from avalanche_cit.training.templates import InstructionTuning

KEPT_STEPS = (1, 5, 10, 11, 15, 20)
OF_THE_PROJECTION = ("seqft_projection", "eproj", "eproj_reusing")


def seen_tasks(model: LMM) -> SeenTasks:
    """Tell similarity by the model's own parts."""
    return SeenTasks(VisionTower(model), TokenEmbedding(model))


MAKE: dict[str, Callable[..., InstructionTuning]] = {
    "seqft": SeqFT,
    "micro_batches": lambda **common: SeqFT(**common, micro_batch_size=3),
    "by_length": lambda **common: SeqFT(**common, group_by_length=True),
    "jointft": JointFT,
    "directft": DirectFT,
    "seqft_projection": SeqFT,
    "replay": lambda **common: Replay(**common, memory_size=30),
    "similarity_replay": lambda **common: SimilarityReplay(**common, memory_size=30),
    "lwf": lambda **common: LwF(**common, lambda_=1.0),
    "ewc": lambda **common: EWC(**common, lambda_=1e4),
    "ewc_per_sample": lambda **common: EWC(**common, lambda_=1e4, per_sample=True, importance_samples=21),
    "mas": lambda **common: MAS(**common, lambda_=10.0),
    "ewc_tir": lambda **common: TIR(
        **common, importance=EWCImportance(), lambda_=1e4, seen_tasks=seen_tasks(common["model"])
    ),
    "mas_tir": lambda **common: TIR(
        **common, importance=MASImportance(), lambda_=10.0, seen_tasks=seen_tasks(common["model"])
    ),
    "ewc_max": lambda **common: Regularized(**common, importance=EWCImportance(), lambda_=1e4, merge="max"),
    "eproj": EProj,
    "eproj_reusing": lambda **common: EProj(**common, threshold=0.0, seen_tasks=seen_tasks(common["model"])),
}


class Kept(SupervisedPlugin, supports_distributed=True):
    """Keeps losses and weights."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.weights: dict[int, dict[str, torch.Tensor]] = {}

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self.losses.append(float(strategy.loss))
        if len(self.losses) in KEPT_STEPS:
            state = strategy.model.trainable_state()
            self.weights[len(self.losses)] = {name: weight.detach().clone() for name, weight in state.items()}


class InDouble:
    """Keeps losses in float64 throughout; Avalanche starts them in float32."""

    def _make_empty_loss(self) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.float64)


def trained(name: str, folder: Path) -> dict[str, Any]:
    """Train a strategy on two tasks, and evaluate it."""
    tasks = benchmark_tasks("mini_cit1", sizes={"train": 73, "validation": 1, "test": 9}, task0=False)[1][:2]
    benchmark = instruction_benchmark(tasks)
    model = LMM.from_pretrained("tiny-base", trainable="projection" if name in OF_THE_PROJECTION else "bridge")
    model.hf.double()
    kept, matrix = Kept(), ForgettingMatrix(benchmark, predictions=folder / f"{name}-rank{join_processes().rank}")
    processes = join_processes()
    strategy = MAKE[name](
        model=model,
        train_mb_size=8,
        eval_mb_size=4,
        eval_loss=False,
        processes=processes,
        plugins=[kept],
        evaluator=EvaluationPlugin(matrix, loggers=[]),
    )
    type(strategy)._make_empty_loss = InDouble._make_empty_loss
    if name == "jointft":
        strategy.train(benchmark.train_stream)
    else:
        for experience in benchmark.train_stream:
            strategy.train(experience)
    strategy.eval(benchmark.test_stream)
    penalties = strategy.evaluator.all_metric_results.get("penalty", ([], []))
    importance = [plugin.omega for plugin in strategy.plugins if isinstance(plugin, RegularizationPlugin)]
    keys = [] if model.router is None else [*model.router.projection.image_keys, *model.router.projection.text_keys]
    return {
        "losses": kept.losses,
        "penalties": penalties[1],
        "weights": kept.weights,
        "importance": importance,
        "keys": keys,
        "scores": matrix.scores,
        "processes": processes.count,
    }


def main(folder: Path, names: list[str]) -> None:
    """Train all, and keep what came out."""
    torch.set_num_threads(1)
    for name in names:
        torch.save(trained(name, folder), folder / f"{name}-rank{join_processes().rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(MAKE))
