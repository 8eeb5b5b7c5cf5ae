"""Answers of a cell: as of the samples one by one, however few questions are asked for them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.training.plugins import EvaluationPlugin

from avalanche_cit.benchmarks import Task, instruction_benchmark
from avalanche_cit.evaluation import ForgettingMatrix, text_score
from avalanche_cit.evaluation.answers import weights_of
from avalanche_cit.models import LMM
from avalanche_cit.training import EProj, SeqFT

REPEATED = [4, 0, 0, 5, 1, 4, 2, 3, 0, 5, 1]
"""Samples of the test split, some of them several times under names of their own."""

Asked = list[str]


@pytest.fixture
def repeated(tasks: dict[str, Task]) -> CLScenario:
    """Three tasks whose test splits hold 11 samples, and ask 6 questions."""
    made = []
    for name in ("colour", "shape", "caption"):
        test = tasks[name].test.select(REPEATED)
        test = test.map(lambda row, i: {"id": f"{row['id']}#{i}"}, with_indices=True, features=test.features)
        made.append(replace(tasks[name], test=test))
    return instruction_benchmark(made)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The samples that a model has been asked."""
    asked: Asked = []
    generate = LMM.generate

    def counted(self: LMM, batch: Any) -> list[str]:
        asked.extend(row["id"] for row in batch.rows)
        return generate(self, batch)

    monkeypatch.setattr(LMM, "generate", counted)
    return asked


def answers(folder: Path, row: str, task: str) -> list[dict[str, Any]]:
    lines = (folder / row / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def alone(model: LMM, dataset: Any) -> list[dict[str, Any]]:
    """Ask sample after sample, in the data's order, and choose an expert for each where there are any."""
    found = []
    for i in range(len(dataset)):
        batch, _, _ = model.collator([dataset[i]])
        answer: dict[str, Any] = {"id": batch.rows[0]["id"], "prediction": model.generate(batch)[0]}
        if model.router is not None:
            right = model.router.projection.expert_of.get(batch.tasks[0].name)
            answer |= {"expert": model.router.chosen[0], "right": right}
            if right is not None:
                with model.router.oracle():
                    answer["oracle"] = model.generate(batch)[0]
        found.append(answer)
    return found


@pytest.mark.parametrize("eval_mb_size", [1, 3, 4, 64])
def test_every_sample_is_answered_as_alone_and_in_its_place(
    load: Callable[..., LMM], repeated: CLScenario, asked: Asked, tmp_path: Path, kind: str, eval_mb_size: int
) -> None:
    matrix = ForgettingMatrix(repeated, predictions=tmp_path)
    model = load(kind)
    strategy = SeqFT(model=model, eval_mb_size=eval_mb_size, evaluator=EvaluationPlugin(matrix, loggers=[]))

    strategy.eval(repeated.test_stream)

    assert len(asked) == 3 * 6 < 3 * len(REPEATED)
    for experience, task in zip(repeated.test_stream, matrix.tasks, strict=True):
        given = [{key: answer[key] for key in ("id", "prediction")} for answer in answers(tmp_path, "initial", task)]
        assert given == alone(model, experience.dataset)
    assert len({answer["prediction"] for task in matrix.tasks for answer in answers(tmp_path, "initial", task)}) > 3
    assert list(tmp_path.rglob("*.partial")) == []


@pytest.mark.parametrize("threshold", [None, 0.0], ids=["an expert per task", "one expert for all"])
def test_experts_that_have_not_changed_are_not_asked_again(
    load: Callable[..., LMM], repeated: CLScenario, asked: Asked, tmp_path: Path, threshold: float | None
) -> None:
    matrix = ForgettingMatrix(repeated, predictions=tmp_path)
    model = load("llama", trainable="projection")
    strategy = EProj(
        model=model,
        lr=1e-2,
        train_mb_size=4,
        eval_mb_size=4,
        threshold=threshold,
        evaluator=EvaluationPlugin(matrix, loggers=[]),
    )
    known: dict[tuple[str, int, str], str] = {}
    for experience in [None, *repeated.train_stream]:
        if experience is not None:
            strategy.train(experience)
        asked.clear()
        strategy.eval(repeated.test_stream)
        count = len(asked)
        weights = weights_of(model)
        for data, task in zip(repeated.test_stream, matrix.tasks, strict=True):
            given = answers(tmp_path, matrix.row, task)
            kept = ("id", "prediction", "expert", "right", "oracle")
            assert [{key: line[key] for key in kept if key in line} for line in given] == alone(model, data.dataset)
            for line in given:
                for expert in {line["expert"], line["right"]} - {None}:
                    known.setdefault((line["id"].split("#")[0], expert, weights[expert]), matrix.row)
        assert count == list(known.values()).count(matrix.row)

    if threshold is None:
        routes = {
            (line["expert"], line["right"]) for task in matrix.tasks for line in answers(tmp_path, "caption", task)
        }
        assert len(routes) > 2
        assert list(known.values()).count("caption") < 3 * 6


def test_a_cell_that_was_broken_off_goes_on_where_it_was(
    load: Callable[..., LMM], repeated: CLScenario, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(folder: Path) -> None:
        matrix = ForgettingMatrix(repeated, predictions=folder)
        strategy = SeqFT(model=load(), eval_mb_size=2, evaluator=EvaluationPlugin(matrix, loggers=[]))
        strategy.eval(repeated.test_stream[:1])

    evaluate(tmp_path / "whole")
    first = list(asked)
    asked.clear()

    with monkeypatch.context() as patch:
        counted = LMM.generate
        patch.setattr(LMM, "generate", lambda self, batch: 1 / 0 if len(asked) == 4 else counted(self, batch))
        with pytest.raises(ZeroDivisionError):
            evaluate(tmp_path / "broken")
    [partial] = (tmp_path / "broken").rglob("*.partial")
    lines = partial.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    partial.write_bytes(b"".join([*lines[:3], lines[3][:30]]))  # the last one was being written
    asked.clear()
    evaluate(tmp_path / "broken")

    assert sorted(asked) == sorted(first[3:])
    files = [tmp_path / name / "initial/colour.jsonl" for name in ("whole", "broken")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not partial.exists()


def test_partial_answers_of_other_weights_or_damaged_ones_are_not_taken(
    load: Callable[..., LMM], repeated: CLScenario, asked: Asked, tmp_path: Path
) -> None:
    def evaluate(model: LMM) -> bytes:
        matrix = ForgettingMatrix(repeated, predictions=tmp_path)
        SeqFT(model=model, evaluator=EvaluationPlugin(matrix, loggers=[])).eval(repeated.test_stream[:1])
        return (tmp_path / "initial/colour.jsonl").read_bytes()

    partial = tmp_path / "initial/colour.jsonl.partial"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_score, "score_cell", lambda score, answers: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(load())
    lines = partial.read_bytes().splitlines()
    whole = evaluate(load())
    other = load()
    with torch.no_grad():
        next(iter(other.trainable_state().values())).add_(1e-6)

    for content, model, count in (
        (lines, load(), 0),
        (lines, other, 6),
        ([line.replace(b'"prediction": "', b'"prediction": "x') for line in lines], load(), 6),
        ([b"[]", b"7", b"\xff", b'{"digest": 1}'], load(), 6),
    ):
        partial.write_bytes(b"\n".join(content))
        asked.clear()
        assert evaluate(model) == whole
        assert len(asked) == count


def test_the_fingerprint_of_weights_is_that_of_what_is_tuned(load: Callable[..., LMM]) -> None:
    model, other = load(), load()
    before = weights_of(model)

    assert weights_of(other) == before
    with torch.no_grad():
        next(iter(other.trainable_state().values())).view(-1)[0] += 1
    assert weights_of(other) != before
    assert list(before) == [None]
