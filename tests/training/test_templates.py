"""The training loop: what an optimizer step changes, and what does not change with how it is computed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from avalanche_cit.benchmarks.questions import text_lengths
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.loss import loss_metrics
from avalanche_cit.models import LMM, VisionFeatures
from avalanche_cit.training import JointFT, Replay, SeqFT, update
from avalanche_cit.training.checkpoint_file import CheckpointFolder
from avalanche_cit.training.checkpointing import CheckpointPlugin

Snapshot = Callable[[torch.nn.Module], dict[str, torch.Tensor]]


class Exact(SeqFT):
    """Keeps the loss in float64 throughout; Avalanche starts it in float32."""

    def _make_empty_loss(self) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.float64)


class Penalty(SupervisedPlugin):
    """Adds 3 |w|^2 of the trainable weights to the loss."""

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        strategy.loss += 3 * sum(w.pow(2).sum() for w in strategy.model.parameters() if w.requires_grad)


# ---- what is trained ----


@pytest.mark.parametrize("trainable", ["bridge", "projection", "language", ["query_tokens", "*.crossattention.*"]])
def test_one_step_changes_exactly_the_trainable_weights(
    load: Callable[..., LMM], benchmark: CLScenario, snapshot: Snapshot, trainable: str | list[str]
) -> None:
    model = load(trainable=trainable)
    before = snapshot(model)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    SeqFT(model=model, train_mb_size=16).train(benchmark.train_stream[0])

    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == set(model.trainable_state())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


def test_frozen_weights_are_taken_out_of_an_optimizer_over_all(
    load: Callable[..., LMM], benchmark: CLScenario, snapshot: Snapshot
) -> None:
    model = load()
    before = snapshot(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)

    SeqFT(model=model, optimizer=optimizer, train_mb_size=8).train(benchmark.train_stream[0])

    held = [weight for group in optimizer.param_groups for weight in group["params"]]
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    assert len(held) == len(trainable)
    assert set(held) == set(trainable)
    assert set(optimizer.state) == set(trainable)
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == set(model.trainable_state())


def test_an_optimizer_keeps_its_two_groups_and_gets_what_it_lacks(
    load: Callable[..., LMM], benchmark: CLScenario
) -> None:
    model = load()
    projection = list(model.hf.language_projection.parameters())
    others = [weight for weight in model.parameters() if weight.ndim > 1 and weight not in set(projection)]
    optimizer = torch.optim.SGD([{"params": others, "lr": 1e-3}, {"params": projection, "lr": 1e-2}])

    SeqFT(model=model, optimizer=optimizer, warmup=None).train(benchmark.train_stream[0])

    first, second = (group["params"] for group in optimizer.param_groups)
    assert set(second) == set(projection)
    assert set(first) == {weight for weight in model.parameters() if weight.requires_grad} - set(projection)
    assert len(first) == len(set(first))
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-2]


def test_what_two_groups_lack_joins_the_one_that_decays_or_the_one_that_does_not(
    load: Callable[..., LMM], benchmark: CLScenario
) -> None:
    model = load()
    matrix, vector = model.hf.language_projection.weight, model.hf.language_projection.bias
    groups = [{"params": [matrix], "weight_decay": 0.1}, {"params": [vector], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)

    SeqFT(model=model, optimizer=optimizer, train_mb_size=16).train(benchmark.train_stream[0])

    matrices, vectors = (group["params"] for group in optimizer.param_groups)
    assert {weight.ndim for weight in vectors} == {1}
    assert min(weight.ndim for weight in matrices) == 2
    assert len(matrices) + len(vectors) == len(model.trainable_state())


def test_the_default_optimizer_decays_matrices_alone(load: Callable[..., LMM]) -> None:
    matrices, vectors = SeqFT(model=load(), lr=0.1, weight_decay=0.3).optimizer.param_groups

    assert {weight.ndim for weight in vectors["params"]} == {1}
    assert min(weight.ndim for weight in matrices["params"]) == 2
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)


@pytest.mark.parametrize(("reset", "steps"), [(True, 3), (False, 4 + 3)])
def test_every_experience_starts_with_a_fresh_optimizer_state(
    load: Callable[..., LMM], benchmark: CLScenario, reset: bool, steps: int
) -> None:
    strategy = SeqFT(model=load(), train_mb_size=4, reset_optimizer=reset)

    strategy.train(benchmark.train_stream[:2])

    assert {int(state["step"]) for state in strategy.optimizer.state.values()} == {steps}


def test_cached_vision_features_train_the_same_weights(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    plain, cached = load(), load(vision_features=VisionFeatures())

    for model in (plain, cached):
        SeqFT(model=model, train_mb_size=4).train(benchmark.train_stream[1])

    assert len(cached.vision_features) == 12
    for name, weight in cached.trainable_state().items():
        torch.testing.assert_close(weight, plain.trainable_state()[name], rtol=1e-3, atol=1e-5)


# ---- micro-batches, clipping, precision ----


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("plugins", [[], [Penalty()]], ids=["plain", "penalty"])
def test_micro_batches_leave_gradients_and_loss_as_they_are(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any, kind: str, plugins: list[SupervisedPlugin]
) -> None:
    sizes = (None, 1, 3, 5, 16)
    for size in sizes:
        options = {"micro_batch_size": size, "train_mb_size": 16, "max_grad_norm": None}
        strategy = Exact(model=load(kind, dtype=torch.float64), plugins=[*plugins, record], **options)
        strategy.train(benchmark.train_stream[0])

    whole, *cut = record.gradients
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3
    for gradients in cut:
        assert gradients.keys() == whole.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, whole[name], rtol=0, atol=1e-10)
    assert record.losses == pytest.approx([record.losses[0]] * len(sizes), abs=1e-10)
    lengths = {len(benchmark.train_stream[0].dataset[i][0].row["target"].split()) for i in range(16)}
    assert len(lengths) > 1


def test_a_penalty_counts_once_whatever_the_number_of_micro_batches(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any
) -> None:
    for plugins in ([], [Penalty()]):
        model = load(dtype=torch.float64)
        weights = {name: weight.clone() for name, weight in model.trainable_state().items()}
        options = {"micro_batch_size": 3, "train_mb_size": 16, "max_grad_norm": None}
        Exact(model=model, plugins=[*plugins, record], **options).train(benchmark.train_stream[0])

    plain, penalised = record.gradients
    for name, weight in weights.items():
        torch.testing.assert_close(penalised[name] - plain[name], 6 * weight, rtol=0, atol=1e-10)
    penalty = 3 * sum(float(weight.pow(2).sum()) for weight in weights.values())
    assert record.losses[1] - record.losses[0] == pytest.approx(penalty, rel=1e-10)


def test_one_iteration_is_one_step_whatever_the_number_of_micro_batches(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any
) -> None:
    strategy = SeqFT(model=load(), train_mb_size=6, micro_batch_size=2, train_epochs=2, plugins=[record])

    strategy.train(benchmark.train_stream[0])

    assert [len(ids) for ids in record.ids] == [6, 6, 4, 6, 6, 4]
    assert strategy.clock.train_iterations == 6
    assert {int(state["step"]) for state in strategy.optimizer.state.values()} == {6}


def _norm(gradients: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float(gradient.pow(2).sum()) for gradient in gradients.values()))


def test_gradients_are_clipped_to_their_norm(load: Callable[..., LMM], benchmark: CLScenario, record: Any) -> None:
    for norm in (None, 0.01, 1e6):
        strategy = SeqFT(model=load(), train_mb_size=16, micro_batch_size=5, max_grad_norm=norm, plugins=[record])
        strategy.train(benchmark.train_stream[0])

    free, clipped, loose = record.gradients
    assert _norm(free) > 0.1
    assert _norm(clipped) == pytest.approx(0.01, rel=1e-3)
    for name, gradient in free.items():
        torch.testing.assert_close(clipped[name], gradient * (0.01 / _norm(free)), rtol=1e-3, atol=1e-9)
        assert torch.equal(loose[name], gradient)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_bf16_trains_weights_that_stay_float32(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any, kind: str
) -> None:
    for bf16 in (False, True):
        strategy = SeqFT(model=load(kind), train_mb_size=16, bf16=bf16, plugins=[record])
        strategy.train(benchmark.train_stream[0])

    exact, rough = record.losses
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.05)
    assert {weight.dtype for weight in strategy.model.parameters()} == {torch.float32}
    assert all(bool(gradient.isfinite().all()) for gradient in record.gradients[1].values())


# ---- data ----


def test_an_epoch_shows_every_sample_once_in_an_order_of_its_own(
    load: Callable[..., LMM], benchmark: CLScenario, record: Any
) -> None:
    SeqFT(model=load(), train_mb_size=5, train_epochs=2, plugins=[record]).train(benchmark.train_stream[1])

    shown = [name for ids in record.ids for name in ids]
    first, second = shown[:12], shown[12:]
    in_order = [f"shape-train-{i}" for i in range(12)]
    assert set(first) == set(second) == set(in_order)
    assert first != in_order
    assert first != second


def test_workers_load_the_same_batches(load: Callable[..., LMM], benchmark: CLScenario, record: Any) -> None:
    for workers in (0, 1):
        SeqFT(model=load(), train_mb_size=6, plugins=[record]).train(
            benchmark.train_stream[1], num_workers=workers, eval_streams=[]
        )

    assert record.ids[:2] == record.ids[2:]
    assert record.losses[:2] == record.losses[2:]


# ---- mistakes ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_mb_size": 0}, "train_mb_size is 0"),
        ({"train_epochs": 0}, "train_epochs is 0"),
        ({"lr": 0.0}, r"lr is 0\.0"),
        ({"lr": -1e-3}, r"lr is -0\.001"),
        ({"micro_batch_size": 0}, "micro_batch_size is 0"),
        ({"warmup": 1.0}, r"warmup is 1\.0"),
        ({"warmup": -0.1}, r"warmup is -0\.1"),
    ],
)
def test_options_out_of_range_are_refused(load: Callable[..., LMM], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SeqFT(model=load(), **options)


def test_a_misspelled_option_is_refused(load: Callable[..., LMM]) -> None:
    with pytest.raises(TypeError, match="train_epoch"):
        SeqFT(model=load(), train_epoch=3)


# ---- what is no number ----


class Poison(SupervisedPlugin):
    """Makes a weight NaN once so many steps of a training are over."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_iterations == self.steps:
            with torch.no_grad():
                next(weight for weight in strategy.model.trainable_state().values()).view(-1)[0] = float("nan")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class PoisonAfter(Poison):
    """Makes it NaN behind the last step."""

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        pass

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        super().before_training_iteration(strategy)


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": None}, {"micro_batch_size": 2}])
@pytest.mark.parametrize(("fetch_every", "steps"), [(3, 3), (50, 4)])
def test_a_loss_that_is_no_number_stops_at_the_next_fetch_and_names_its_step(
    load: Callable[..., LMM],
    benchmark: CLScenario,
    record: Any,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    fetch_every: int,
    steps: int,
) -> None:
    """It comes up in the second of four steps."""
    monkeypatch.setattr(update, "FETCH_EVERY", fetch_every)
    strategy = SeqFT(model=load(), train_mb_size=4, plugins=[Poison(1), record], **options)

    with pytest.raises(UserError) as caught:
        strategy.train(benchmark.train_stream[0])

    said = str(caught.value)
    assert said.startswith("task 'colour', training iteration 1: the loss is nan")
    assert ("the norm of the gradients nan" in said) == ("max_grad_norm" not in options)
    assert said.split("look at the samples of this mini-batch: ")[1].split(", ") == record.ids[1]
    assert len(record.ids) == steps


def test_no_checkpoint_holds_weights_that_are_no_numbers(
    load: Callable[..., LMM], benchmark: CLScenario, tmp_path: Path
) -> None:
    """Neither those that a loss tells of, which has not been fetched, nor those that no loss has been computed of."""
    for poison, said in ((Poison(1), "training iteration 1: the loss is nan"), (PoisonAfter(2), "is NaN or infinite")):
        folder = tmp_path / type(poison).__name__
        plugins = [poison, CheckpointPlugin(folder, every_steps=1)]
        strategy = SeqFT(model=load(), train_mb_size=4, plugins=plugins)

        with pytest.raises(UserError, match=said):
            strategy.train(benchmark.train_stream[0])

        checkpoint = CheckpointFolder(folder).read()
        assert checkpoint is not None
        assert all(bool(weight.isfinite().all()) for weight in checkpoint.training["weights"].values())


def test_an_absurd_learning_rate_ends_in_one_line(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    strategy = SeqFT(model=load(), train_mb_size=4, lr=1e30, max_grad_norm=None)
    with pytest.raises(
        UserError, match=r"^task 'colour', training iteration [1-9]: the loss is (nan|inf); lower the l"
    ):
        strategy.train(benchmark.train_stream[0])


class Steep(SupervisedPlugin):
    """Adds nothing to the loss, but an infinite slope to its gradient."""

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        weight = next(weight for weight in strategy.model.parameters() if weight.requires_grad)
        strategy.loss += (weight - weight.detach()).sqrt().sum()


def test_a_gradient_that_is_no_number_is_named_too(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    strategy = SeqFT(model=load(), train_mb_size=8, plugins=[Steep()])
    with pytest.raises(UserError, match=r"iteration 0: the loss is [\d.]+, the norm of the gradients (nan|inf);"):
        strategy.train(benchmark.train_stream[0])


def test_the_next_training_starts_without_the_numbers_of_one_that_failed(
    load: Callable[..., LMM], benchmark: CLScenario
) -> None:
    class Failing(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            raise ZeroDivisionError

    strategy = SeqFT(
        model=load(), train_mb_size=8, plugins=[Failing()], evaluator=EvaluationPlugin(*loss_metrics(minibatch=True))
    )
    with pytest.raises(ZeroDivisionError):
        strategy.train(benchmark.train_stream[0])
    assert len(strategy.pending) == 0


# ---- batches of samples of about the same length ----


def test_grouping_by_length_pads_less(load: Callable[..., LMM], benchmark: CLScenario, record: Any) -> None:
    """Every sample still comes once an epoch, in another order each time."""
    data = [experience.dataset for experience in benchmark.train_stream]
    names = [dataset[i][0].row["id"] for dataset in data for i in range(len(dataset))]
    lengths = dict(zip(names, [length for dataset in data for length in text_lengths(dataset)], strict=True))
    spread = {}
    for grouped in (False, True):
        record.ids.clear()
        strategy = JointFT(model=load(), train_mb_size=2, train_epochs=2, group_by_length=grouped, plugins=[record])
        strategy.train(benchmark.train_stream)
        epochs = [[name for batch in record.ids[i : i + 18] for name in batch] for i in (0, 18)]
        assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(names)
        assert epochs[0] != epochs[1]
        spread[grouped] = sum(abs(lengths[batch[0]] - lengths[batch[1]]) for batch in record.ids)

    assert spread[True] < 0.6 * spread[False]


def test_replay_mixes_its_batches_itself(load: Callable[..., LMM]) -> None:
    with pytest.raises(UserError, match="group_by_length does not go with replay"):
        Replay(model=load(), memory_size=4, group_by_length=True)
