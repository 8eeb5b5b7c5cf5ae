"""LwF: the divergence has its closed form, the teacher is the previous task's model, and nothing else is touched."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin

from avalanche_cit.benchmarks import Task, instruction_benchmark
from avalanche_cit.errors import UserError
from avalanche_cit.logging.json_lines import JSONLinesLogger
from avalanche_cit.models import LMM, VisionFeatures
from avalanche_cit.training import SeqFT
from avalanche_cit.training.plugins.lwf import LwFPlugin, distillation

Load = Callable[..., LMM]
Weights = dict[str, torch.Tensor]


class Exact(SeqFT):
    """Keeps the loss in float64 throughout; Avalanche starts it in float32."""

    def _make_empty_loss(self) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.float64)


class Steps(SupervisedPlugin):
    """Notes the whole mini-batch and the weights of every step, before the step changes them."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Any] = []
        self.weights: list[Weights] = []

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.batches.append(strategy.mbatch)
        self.weights.append(copied(strategy.model))


class Outputs(SupervisedPlugin):
    """Notes the student's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.logits: list[Any] = []

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.logits.append((strategy.mb_x, strategy.mb_output.detach()))


def copied(model: LMM) -> Weights:
    return {name: weight.clone() for name, weight in model.trainable_state().items()}


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())


def penalties(strategy: SeqFT) -> tuple[list[int], list[float]]:
    """Steps and values of the penalties logged."""
    steps, values = strategy.evaluator.get_all_metrics()["penalty"]
    return steps, values


def log_softmax(logits: np.ndarray) -> np.ndarray:
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def divergence(teacher: np.ndarray, student: np.ndarray, temperature: float) -> np.ndarray:
    """KL(teacher || student) of each row, straight from its definition."""
    p, log_p = np.exp(log_softmax(teacher / temperature)), log_softmax(teacher / temperature)
    return (p * (log_p - log_softmax(student / temperature))).sum(-1)


def dropout(model: LMM) -> LMM:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    return model


# ---- closed form ----


def test_two_words_by_hand() -> None:
    teacher, student = torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]).log().requires_grad_()

    loss = distillation(teacher, student)
    loss.backward()

    # halves against a quarter and three quarters: (ln 2 + ln 2/3) / 2 = ln(4/3) / 2
    assert loss.item() == pytest.approx(np.log(4 / 3) / 2, abs=1e-6)
    torch.testing.assert_close(student.grad, torch.tensor([[0.25 - 0.5, 0.75 - 0.5]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_value_and_gradient_have_their_closed_form(temperature: float) -> None:
    draw = np.random.default_rng(0)
    z_t, z_s = 3 * draw.normal(size=(4, 5)), 3 * draw.normal(size=(4, 5))
    student = torch.tensor(z_s, requires_grad=True)

    loss = distillation(torch.tensor(z_t), student, temperature=temperature)
    loss.backward()

    assert loss.item() == pytest.approx(temperature**2 * divergence(z_t, z_s, temperature).mean(), abs=1e-6)
    p_t, p_s = np.exp(log_softmax(z_t / temperature)), np.exp(log_softmax(z_s / temperature))
    np.testing.assert_allclose(student.grad.numpy(), temperature * (p_s - p_t) / 4, rtol=0, atol=1e-6)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
@pytest.mark.parametrize(
    ("kind", "trainable", "temperature"),
    [("t5", "bridge", 1.0), ("llama", "bridge", 1.0), ("t5", "language", 2.0), ("llama", "all", 0.5)],
)
def test_penalty_and_gradient_of_every_step(
    load: Load,
    benchmark: CLScenario,
    record: Any,
    kind: str,
    trainable: str,
    temperature: float,
    micro_batch_size: int | None,
) -> None:
    """Against a second model that holds the teacher's weights, one sample at a time, in numpy."""
    steps = Steps()
    model = load(kind, dtype=torch.float64, trainable=trainable)
    strategy = Exact(
        model=model,
        lr=1e-2,
        train_mb_size=7,
        micro_batch_size=micro_batch_size,
        max_grad_norm=None,
        plugins=[LwFPlugin(3.0, temperature=temperature), steps, record],
    )
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    first = len(steps.batches)
    before = copied(model)
    strategy.train(benchmark.train_stream[1], eval_streams=[])

    teacher = load(kind, dtype=torch.float64, trainable=trainable)
    teacher.load_trainable_state(before)
    student = load(kind, dtype=torch.float64, trainable=trainable)
    places, values = penalties(strategy)
    assert places == list(range(first, len(steps.batches)))
    for step, value in zip(places, values, strict=True):
        student.load_trainable_state(steps.weights[step])
        x, y, _ = steps.batches[step]
        z_s = torch.cat([z[:, labels != -100].T for z, labels in zip(student(x), y, strict=True)])
        z_t = torch.cat([teacher(part)[0][:, part.labels[0] != -100].T for part in x.split(1)]).detach()
        wanted = 3 * temperature**2 * divergence(z_t.numpy(), z_s.detach().numpy(), temperature).mean()
        assert value == pytest.approx(wanted, abs=1e-6)

        p_t = (z_t / temperature).softmax(-1)
        terms = p_t * (p_t.log() - (z_s / temperature).log_softmax(-1))
        loss = torch.nn.functional.cross_entropy(z_s, y[y != -100]) + 3 * temperature**2 * terms.sum(-1).mean()
        student.zero_grad()
        loss.backward()
        for name, weight in student.named_parameters():
            if weight.grad is not None:
                torch.testing.assert_close(record.gradients[step][name], weight.grad, rtol=0, atol=1e-6)
        assert record.losses[step] == pytest.approx(loss.item(), abs=1e-6)
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert min(values[1:]) > 1e-3


def test_the_penalty_does_not_pull_at_the_first_step(load: Load, benchmark: CLScenario, record: Any) -> None:
    for plugins in ([LwFPlugin(1000.0)], []):
        model = load(dtype=torch.float64)
        options = {"train_mb_size": 12, "max_grad_norm": None, "plugins": [*plugins, record]}
        strategy = Exact(model=model, **options)
        strategy.train(benchmark.train_stream[:2], eval_streams=[])

    distilled, plain = record.gradients[2], record.gradients[5]  # two steps of the first task, then one of the second
    assert max(float(gradient.abs().max()) for gradient in plain.values()) > 1e-3
    for name, gradient in plain.items():
        torch.testing.assert_close(distilled[name], gradient, rtol=0, atol=1e-6)


# ---- in a run ----


def test_the_penalty_stands_in_the_log_once_per_step(load: Load, benchmark: CLScenario, tmp_path: Path) -> None:
    logger = JSONLinesLogger(path=tmp_path / "metrics.jsonl", task_names=["colour", "shape", "caption"])
    strategy = SeqFT(
        model=load(),
        lr=1e-2,
        train_mb_size=4,
        micro_batch_size=3,
        plugins=[LwFPlugin(1.0)],
        evaluator=EvaluationPlugin(loss_metrics(minibatch=True), loggers=[logger]),
    )

    strategy.train(benchmark.train_stream)

    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if line["name"] == "penalty"]
    losses = [line for line in lines if line["name"].startswith("Loss_MB")]
    assert [(line["step"], line["task"], line["phase"]) for line in logged] == [
        *[(step, "shape", "train") for step in (4, 5, 6)],
        *[(step, "caption", "train") for step in (7, 8)],
    ]
    assert [line["step"] for line in losses] == list(range(9))
    values = [line["value"] for line in logged]
    assert [values[0], values[3]] == pytest.approx([0, 0], abs=1e-6)
    assert min(values[1], values[2], values[4]) > 1e-3


def test_distillation_keeps_the_answers_nearer_to_the_previous_task(load: Load, benchmark: CLScenario) -> None:
    drift = []
    for lambda_ in (0.0, 100.0):
        model = load()
        strategy = SeqFT(model=model, lr=1e-2, train_mb_size=4, train_epochs=3, plugins=[LwFPlugin(lambda_)])
        batch = model.collator([benchmark.train_stream[1].dataset[i] for i in range(12)])[0]
        logits = []
        for experience in benchmark.train_stream[:2]:
            strategy.train(experience, eval_streams=[])
            logits.append(model.eval()(batch).detach())
        drift.append(float((logits[1] - logits[0]).pow(2).mean()))

    assert drift[1] < drift[0] / 2


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_without_weight_the_run_is_sequential_tuning_bit_for_bit(load: Load, benchmark: CLScenario, kind: str) -> None:
    """With dropout: the teacher draws nothing, and leaves the student's modes as they were."""
    trained = []
    for plugins in ([LwFPlugin(0.0)], [], [LwFPlugin(1.0)]):
        model = dropout(load(kind, trainable="all"))
        strategy = SeqFT(model=model, lr=1e-2, train_mb_size=8, micro_batch_size=5, plugins=plugins)
        strategy.train(benchmark.train_stream[:2])
        trained.append(copied(model))

    assert same(trained[0], trained[1])
    assert not same(trained[2], trained[1])


def test_an_extra_evaluation_changes_no_weight(load: Load, benchmark: CLScenario) -> None:
    trained = []
    for options in ({}, {"eval_every": 1, "peval_mode": "iteration"}):
        model = dropout(load())
        strategy = SeqFT(model=model, lr=1e-2, train_mb_size=6, plugins=[LwFPlugin(1.0)], **options)
        for experience in benchmark.train_stream[:2]:
            strategy.train(experience, eval_streams=[benchmark.test_stream[2]])
            if options:
                strategy.eval(benchmark.test_stream[:1])
        trained.append(copied(model))

    assert same(*trained)


@pytest.mark.parametrize("trainable", ["bridge", "projection"])
def test_the_teacher_leaves_modes_random_state_and_gradients_alone(
    load: Load, benchmark: CLScenario, trainable: str
) -> None:
    states: list[Any] = []

    class Look(SupervisedPlugin):
        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            modes = [module.training for module in strategy.model.modules()]
            gradients = [weight.grad is not None for weight in strategy.model.parameters()]
            flags = [weight.requires_grad for weight in strategy.model.parameters()]
            weights = [id(weight) for weight in strategy.model.parameters()]
            states.append((modes, gradients, flags, weights, torch.get_rng_state().tolist()))

    look = Look()
    plugins = [look, LwFPlugin(1.0, from_start=True), look]
    strategy = SeqFT(model=dropout(load(trainable=trainable)), train_mb_size=8, plugins=plugins)
    strategy.train(benchmark.train_stream[0], eval_streams=[])

    assert len(states) == 4
    for before, after in zip(states[::2], states[1::2], strict=True):
        assert before == after
        assert {True, False} == set(before[0])  # the trainable part trains, the frozen one does not


def test_the_teacher_answers_in_evaluation_mode(load: Load, benchmark: CLScenario) -> None:
    """At the first step the student differs from its teacher by dropout alone."""
    outputs = Outputs()
    model = dropout(load(trainable="all"))
    strategy = SeqFT(model=model, train_mb_size=16, plugins=[outputs, LwFPlugin(1.0, from_start=True)])
    batch = model.collator([benchmark.train_stream[0].dataset[i] for i in range(16)])[0]
    with torch.no_grad():
        dry = {row["id"]: logits for row, logits in zip(batch.rows, model(batch), strict=True)}

    strategy.train(benchmark.train_stream[0], eval_streams=[])

    [(x, wet)] = outputs.logits
    places = (x.labels != -100).nonzero(as_tuple=True)
    teacher = torch.stack([dry[row["id"]] for row in x.rows])
    wanted = distillation(teacher.transpose(1, 2)[places], wet.transpose(1, 2)[places])
    assert penalties(strategy)[1] == pytest.approx([float(wanted)], rel=1e-4)
    assert float(wanted) > 0.1


def test_bf16_is_the_teachers_too(load: Load, benchmark: CLScenario) -> None:
    values, outputs = [], Outputs()
    for bf16 in (False, True):
        plugins = [outputs, LwFPlugin(1.0, from_start=True)]
        strategy = SeqFT(model=load(), lr=1e-2, train_mb_size=4, bf16=bf16, plugins=plugins)
        strategy.train(benchmark.train_stream[0], eval_streams=[])
        values.append(penalties(strategy)[1])

    (x, exact), (_, rough) = outputs.logits[0], outputs.logits[4]
    places = (x.labels != -100).nonzero(as_tuple=True)
    between = distillation(exact.transpose(1, 2)[places], rough.transpose(1, 2)[places])
    assert float(between) > 1e-5
    assert values[1][0] == pytest.approx(0, abs=1e-6)  # a teacher in float32 would be as far off as that
    assert np.isfinite(values[1]).all()
    assert min(values[1][1:]) > 1e-3


def test_cached_vision_features_give_the_same_penalties(load: Load, benchmark: CLScenario) -> None:
    values = []
    for cache in (None, VisionFeatures()):
        strategy = SeqFT(model=load(vision_features=cache), lr=1e-2, train_mb_size=4, plugins=[LwFPlugin(1.0)])
        strategy.train(benchmark.train_stream[:2], eval_streams=[])
        values.append(penalties(strategy)[1])

    assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-6)


# ---- the teacher ----


def test_the_teacher_is_the_model_after_the_previous_task(load: Load, benchmark: CLScenario) -> None:
    plugin, steps = LwFPlugin(1.0), Steps()
    model = load()
    strategy = SeqFT(model=model, lr=1e-2, train_mb_size=8, plugins=[plugin, steps])

    assert plugin.state_dict() == {"teacher": {}}
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
        assert same(plugin.state_dict()["teacher"], model.trainable_state())
        assert not same(plugin.state_dict()["teacher"], steps.weights[-1])


def test_the_start_teaches_the_first_task_where_it_counts_as_learned(load: Load, benchmark: CLScenario) -> None:
    steps = []
    for from_start in (False, True):
        plugin = LwFPlugin(1.0, from_start=from_start)
        strategy = SeqFT(model=load(), lr=1e-2, train_mb_size=4, plugins=[plugin])
        strategy.train(benchmark.train_stream[:2], eval_streams=[])
        steps.append(penalties(strategy))

    assert [numbers for numbers, _ in steps] == [[4, 5, 6], [0, 1, 2, 3, 4, 5, 6]]
    values = steps[1][1]
    assert [values[0], values[4]] == pytest.approx([0, 0], abs=1e-6)  # the second task has a teacher of its own
    assert min(values[1:4] + values[5:]) > 1e-3


@pytest.mark.parametrize("from_start", [False, True])
def test_a_run_goes_on_from_a_saved_state_bit_for_bit(load: Load, benchmark: CLScenario, from_start: bool) -> None:
    def run(model: LMM, plugin: LwFPlugin, experiences: Any) -> None:
        SeqFT(model=model, lr=1e-2, train_mb_size=4, plugins=[plugin]).train(experiences, eval_streams=[])

    model, plugin = load(), LwFPlugin(1.0, from_start=from_start)
    run(model, plugin, benchmark.train_stream[:2])
    weights, state = copied(model), plugin.state_dict()
    assert list(state) == ["teacher"]
    assert {type(weight) for weight in state["teacher"].values()} == {torch.Tensor}
    assert not any(weight.requires_grad for weight in state["teacher"].values())
    run(model, plugin, benchmark.train_stream[2])

    later, resumed = load(), LwFPlugin(1.0, from_start=from_start)
    later.load_trainable_state(weights)
    resumed.load_state_dict(state)
    run(later, resumed, benchmark.train_stream[2])

    assert same(later.trainable_state(), model.trainable_state())
    lost = load()
    lost.load_trainable_state(weights)
    run(lost, LwFPlugin(1.0), benchmark.train_stream[2])
    assert not same(lost.trainable_state(), model.trainable_state())


def test_a_trainable_part_that_changes_shares_what_the_teacher_has_not(load: Load, benchmark: CLScenario) -> None:
    model, plugin = load(trainable="projection"), LwFPlugin(1.0)
    strategy = SeqFT(model=model, lr=1e-2, train_mb_size=4, plugins=[plugin])
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    old = copied(model)
    state = plugin.state_dict()
    plugin.load_state_dict({"teacher": state["teacher"] | {"hf.gone": torch.ones(1)}})

    model.hf.requires_grad_(False)
    model.hf.language_model.lm_head.requires_grad_(True)
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    new = copied(model)
    assert len(new) == 1
    assert plugin.state_dict()["teacher"].keys() == new.keys()
    assert penalties(strategy)[1] == pytest.approx([0] * 3, abs=1e-6)  # the one weight that moves is shared

    model.hf.language_projection.requires_grad_(True)
    strategy.train(benchmark.train_stream[2], eval_streams=[])
    assert set(plugin.state_dict()["teacher"]) == {*old, *new}
    assert penalties(strategy)[1][-1] > 1e-3


def test_it_holds_four_bytes_a_trainable_weight_however_many_tasks(tasks: dict[str, Task], load: Load) -> None:
    few = {split: getattr(tasks["old"], split).select([0]) for split in ("train", "validation", "test")}
    benchmark = instruction_benchmark([dataclasses.replace(tasks["old"], name=f"{i}", **few) for i in range(20)])
    measured: list[int] = []

    class Weigh(SupervisedPlugin):
        """Measures in the midst of a step, when gradients are there too, and after the task."""

        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            held = _storages(vars(plugin))
            assert not own & held.keys()
            measured.append(sum(size for size in held.values() if size > 8))  # but for the penalty of the step

        after_training_exp = before_update

    model, plugin = load(), LwFPlugin(1.0)
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    size = sum(weight.numel() for weight in model.trainable_state().values())

    strategy = SeqFT(model=model, lr=1e-2, train_mb_size=1, plugins=[plugin, Weigh()])
    strategy.train(benchmark.train_stream, eval_streams=[])

    assert measured == [0] + 39 * [4 * size]  # no teacher at the first step
    assert plugin.state_dict()["teacher"].keys() == model.trainable_state().keys()
    assert 0 < size < sum(weight.numel() for weight in model.parameters()) / 2


def _storages(held: Any) -> dict[int, int]:
    """Address and bytes of every storage that an object holds, modules included."""
    if isinstance(held, torch.Tensor):
        storage = held.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()} | _storages([] if held.grad is None else [held.grad])
    if isinstance(held, torch.nn.Module):
        return _storages([*held.parameters(), *held.buffers()])
    parts = held.values() if isinstance(held, dict) else held if isinstance(held, list | tuple | set) else []
    return {address: size for part in parts for address, size in _storages(part).items()}


# ---- mistakes ----


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(UserError, match=r"lambda_ is -0\.1"):
        LwFPlugin(-0.1)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float) -> None:
    with pytest.raises(UserError, match=f"temperature is {temperature}"):
        LwFPlugin(1.0, temperature=temperature)
