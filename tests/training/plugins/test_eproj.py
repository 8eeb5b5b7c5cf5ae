"""EProj as a strategy: no old task is ever touched, similar tasks share, and the run says how well it routed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from torch import nn

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.models import LMM
from avalanche_cit.models.expandable_projection import best_key
from avalanche_cit.training import EProj, EWCImportance, LwFPlugin, RegularizationPlugin, SeqFT

OPTIONS = {"train_mb_size": 8, "train_epochs": 2, "lr": 1e-2, "seed": 3}


class Similar:
    """Stands for the similarity of tasks, which has tests of its own."""

    def __init__(self, pairs: dict[tuple[str, str], float]) -> None:
        self.pairs = pairs
        self.embeddings: list[str] = []

    def see(self, task: str, dataset: Any) -> None:
        self.embeddings.append(task)

    def similarity(self, task: str, others: list[str]) -> torch.Tensor:
        return torch.tensor([self.pairs.get((task, other), 0.1) for other in others])


def test_answers_and_logits_on_old_tasks_stay_bit_identical(
    load: Callable[..., LMM], benchmark: CLScenario, kind: str
) -> None:
    strategy = EProj(model=load(kind, trainable="projection"), **OPTIONS)
    model = strategy.model
    router = model.router
    batches = [model.collator([exp.dataset[i] for i in range(6)])[0] for exp in benchmark.test_stream]

    def look(task: int) -> tuple[list[str], torch.Tensor]:
        model.eval()
        with torch.no_grad(), router.oracle():
            return model.generate(batches[task]), model(batches[task])

    start = look(0)
    first: list[Any] = []
    for i, experience in enumerate(benchmark.train_stream):
        strategy.train(experience)
        first.append(look(i))
        for task in range(i + 1):
            texts, logits = look(task)
            assert texts == first[task][0]
            assert torch.equal(logits, first[task][1])

    assert not torch.equal(start[1], first[0][1])
    assert len(router.projection.experts) == 4


def test_only_the_expert_of_the_task_changes(
    load: Callable[..., LMM], benchmark: CLScenario, snapshot: Callable[[nn.Module], dict[str, torch.Tensor]]
) -> None:
    strategy = EProj(model=load(trainable="projection"), **OPTIONS)
    projection = strategy.eproj.projection
    for i, experience in enumerate(benchmark.train_stream, start=1):
        before = snapshot(strategy.model)
        strategy.train(experience)
        after = snapshot(strategy.model)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        new = {name for name in after if name not in before}
        assert changed == set()
        assert new == {f"hf.language_projection.experts.{i}.{part}" for part in ("weight", "bias")}
        assert not torch.equal(projection.experts[i].weight, projection.experts[0].weight)


def test_the_first_expert_is_seqft_of_the_projection(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    """Before there is anything to choose from, EProj is sequential tuning of the projection alone."""
    eproj = EProj(model=load(trainable="projection"), **OPTIONS)
    seqft = SeqFT(model=load(trainable="projection"), **OPTIONS)

    eproj.train(benchmark.train_stream[0])
    seqft.train(benchmark.train_stream[0])

    ours, plain = eproj.eproj.projection.experts[1], seqft.model.hf.language_projection
    assert torch.equal(ours.weight, plain.weight)
    assert torch.equal(ours.bias, plain.bias)


def test_keys_are_the_direction_of_the_mean_query(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    strategy = EProj(model=load(trainable="projection"), **OPTIONS)
    strategy.train(benchmark.train_stream[0])
    model, projection = strategy.model, strategy.eproj.projection
    batch, _, _ = model.collator([benchmark.train_stream[0].dataset[i] for i in range(16)])

    image, text = model.router.queries(batch)

    torch.testing.assert_close(projection.image_keys[0], best_key(image), rtol=0, atol=1e-6)
    torch.testing.assert_close(projection.text_keys[0], best_key(text), rtol=0, atol=1e-6)


def test_a_similar_task_goes_on_with_the_expert(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    seen: Any = Similar({("shape", "colour"): 0.4, ("caption", "colour"): 0.3, ("caption", "shape"): 0.6})
    strategy = EProj(model=load(trainable="projection"), threshold=0.5, seen_tasks=seen, **OPTIONS)
    projection = strategy.eproj.projection

    strategy.train(benchmark.train_stream[0])
    strategy.train(benchmark.train_stream[1])
    shape = projection.experts[2].weight.clone()
    colour = projection.experts[1].weight.clone()
    strategy.train(benchmark.train_stream[2])

    assert projection.expert_of == {"colour": 1, "shape": 2, "caption": 2}
    assert projection.key_tasks == ["colour", "shape", "caption"]
    assert not torch.equal(projection.experts[2].weight, shape)
    assert torch.equal(projection.experts[1].weight, colour)


@pytest.mark.parametrize(("threshold", "experts"), [(None, 4), (1.0, 4), (0.0, 2)])
def test_the_threshold_decides_on_the_number_of_experts(
    load: Callable[..., LMM], benchmark: CLScenario, threshold: float | None, experts: int
) -> None:
    seen: Any = Similar({})
    strategy = EProj(model=load(trainable="projection"), threshold=threshold, seen_tasks=seen, **OPTIONS)
    for experience in benchmark.train_stream:
        strategy.train(experience)

    assert len(strategy.eproj.projection.experts) == experts


def test_a_task_that_comes_back_goes_on_with_its_own_expert(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    strategy = EProj(model=load(trainable="projection"), **OPTIONS)
    strategy.train(benchmark.train_stream[0])
    strategy.train(benchmark.train_stream[1])
    strategy.train(benchmark.train_stream[0])

    assert len(strategy.eproj.projection.experts) == 3
    assert strategy.eproj.projection.key_tasks == ["colour", "shape"]


def test_task_0_is_the_originals(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    strategy = EProj(model=load(trainable="projection"), task0=benchmark.task0_train_stream, **OPTIONS)
    strategy.train(benchmark.train_stream[0])
    projection = strategy.eproj.projection

    assert projection.expert_of == {"old": 0, "colour": 1}
    assert projection.key_tasks == ["old", "colour"]


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_an_extra_evaluation_changes_no_weight(
    load: Callable[..., LMM], benchmark: CLScenario, threshold: float | None
) -> None:
    def run(look: bool) -> list[torch.Tensor]:
        strategy = EProj(model=load(trainable="projection"), threshold=threshold, **OPTIONS)
        for experience in benchmark.train_stream:
            if look:
                strategy.eval(benchmark.test_stream)
            strategy.train(experience, eval_streams=[benchmark.test_stream] if look else None)
        return [expert.weight.clone() for expert in strategy.eproj.projection.experts]

    for one, other in zip(run(look=False), run(look=True), strict=True):
        assert torch.equal(one, other)


def test_the_matrix_holds_routing_accuracy_and_oracle_scores(
    load: Callable[..., LMM], benchmark: CLScenario, tmp_path: Path
) -> None:
    matrix = ForgettingMatrix(benchmark, predictions=tmp_path)
    strategy = EProj(model=load(trainable="projection"), evaluator=EvaluationPlugin(matrix, loggers=[]), **OPTIONS)
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)

    file = matrix.as_file(kind="sequence", benchmark="b", strategy="eproj", model="m", seed=0)
    routing, oracle = file.other_scores["routing_accuracy"], file.other_scores["oracle_token_f1"]
    column = file.tasks.index("colour")
    for row, name in ((1, "colour"), (2, "shape")):
        lines = [json.loads(line) for line in (tmp_path / name / "colour.jsonl").read_text().splitlines()]
        assert {line["right"] for line in lines} == {1}
        hits = [line["expert"] == line["right"] for line in lines]
        assert routing[row][column] == pytest.approx(100 * sum(hits) / len(hits))
        for line, hit in zip(lines, hits, strict=True):
            assert line["oracle"] == line["prediction"] or not hit
    assert oracle[1][column] == oracle[2][column]
    assert routing[1][file.tasks.index("caption")] is None  # nothing is right before caption has an expert
    lines = [json.loads(line) for line in (tmp_path / "shape" / "caption.jsonl").read_text().splitlines()]
    assert {line["right"] for line in lines} == {None}


@pytest.mark.parametrize(
    "plugin",
    [
        lambda: ReplayPlugin(mem_size=4),
        lambda: RegularizationPlugin(EWCImportance(), 1.0),
        lambda: LwFPlugin(1.0),
    ],
)
def test_what_has_nothing_to_protect_is_refused(
    load: Callable[..., LMM], benchmark: CLScenario, plugin: Callable[[], Any]
) -> None:
    strategy = EProj(model=load(trainable="projection"), plugins=[plugin()], **OPTIONS)

    with pytest.raises(UserError, match="EProj does not combine with"):
        strategy.train(benchmark.train_stream[0])


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_is_a_similarity(load: Callable[..., LMM], threshold: float) -> None:
    with pytest.raises(UserError, match="threshold is"):
        EProj(model=load(trainable="projection"), threshold=threshold)
