"""What of a model is trained, and that the rest rests."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from avalanche_cit.benchmarks.batch import IGNORED
from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM


def trained(model: LMM) -> set[str]:
    return {name.removeprefix("hf.") for name, weight in model.named_parameters() if weight.requires_grad}


def loss_of(model: LMM, samples: list[Any]) -> torch.Tensor:
    x, y, _ = model.collator(samples)
    loss: torch.Tensor = nn.CrossEntropyLoss(ignore_index=IGNORED)(model(x), y)
    return loss


@pytest.mark.parametrize(
    ("part", "prefixes"),
    [
        ("bridge", ("query_tokens", "qformer.", "language_projection.")),
        ("projection", ("language_projection.",)),
        ("language", ("language_model.",)),
        ("all", ("",)),
    ],
)
def test_a_part_is_trained_but_for_what_no_loss_reaches(
    load: Callable[..., LMM], kind: str, samples: list[Any], part: str, prefixes: tuple[str, ...]
) -> None:
    model = load(kind, trainable=part)
    chosen = trained(model)
    named = {name for name, _ in model.hf.named_parameters() if name.startswith(prefixes)}

    # train everything named, and see where gradients arrive
    for name, weight in model.hf.named_parameters():
        weight.requires_grad_(name in named)
    loss_of(model, samples).backward()
    gradients = {name: weight.grad for name, weight in model.hf.named_parameters() if weight.grad is not None}
    reached = {name for name, gradient in gradients.items() if bool(gradient.any())}

    assert chosen == reached
    assert len(named - reached) == (6 if part in ("bridge", "all") else 0)


def test_patterns_name_single_parameters(load: Callable[..., LMM], kind: str) -> None:
    model = load(kind, trainable=["query_tokens", "language_projection.b*"])

    assert trained(model) == {"query_tokens", "language_projection.bias"}
    assert set(model.trainable_state()) == {"hf.query_tokens", "hf.language_projection.bias"}
    assert trained(load(kind, trainable="language_projection.b*")) == {"language_projection.bias"}


def test_an_unknown_part_is_refused_with_the_nearest_name(load: Callable[..., LMM]) -> None:
    with pytest.raises(UserError, match="unknown trainable part 'brigde': did you mean 'bridge'"):
        load(trainable="brigde")


def test_a_pattern_without_a_match_is_refused(load: Callable[..., LMM]) -> None:
    with pytest.raises(UserError, match=r"'qformer\.layers\.\*' matches no parameter of InstructBlip"):
        load(trainable=["query_tokens", "qformer.layers.*"])


def test_training_only_what_no_loss_reaches_is_refused(load: Callable[..., LMM]) -> None:
    with pytest.raises(UserError, match="no loss ever reaches"):
        load(trainable=["qformer.encoder.layer.1.output.dense.*"])


@pytest.mark.parametrize(
    ("part", "training"), [("bridge", {"qformer", "language_projection"}), ("language", {"language_model"})]
)
def test_only_what_is_trained_goes_into_training_mode(
    load: Callable[..., LMM], kind: str, part: str, training: set[str]
) -> None:
    model = load(kind, trainable=part)
    assert not any(module.training for module in model.modules())

    model.train()

    children = dict(model.hf.named_children())
    assert {name for name, child in children.items() if child.training} == training
    assert not any(module.training for name in children.keys() - training for module in children[name].modules())
    model.eval()
    assert not any(module.training for module in model.modules())


def test_dropout_works_in_the_trained_part_alone(load: Callable[..., LMM], samples: list[Any]) -> None:
    model = load(trainable="bridge")
    for module in model.hf.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    dropping = {name.split(".")[0] for name, module in model.train().hf.named_modules() if _drops(module)}
    noisy = [loss_of(model, samples).item() for _ in range(2)]
    model.eval()
    quiet = [loss_of(model, samples).item() for _ in range(2)]

    assert dropping == {"qformer"}
    assert noisy[0] != noisy[1]
    assert quiet[0] == quiet[1]


def _drops(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout) and module.training


def test_trainable_weights_can_be_kept_and_put_back(
    load: Callable[..., LMM], snapshot: Callable[..., dict[str, torch.Tensor]]
) -> None:
    model = load()
    before = snapshot(model)
    state = {name: weight.clone() for name, weight in model.trainable_state().items()}
    with torch.no_grad():
        for weight in model.trainable_state().values():
            weight.add_(1)
    assert not torch.equal(before["hf.query_tokens"], snapshot(model)["hf.query_tokens"])

    model.load_trainable_state(state)

    assert all(torch.equal(weight, before[name]) for name, weight in snapshot(model).items())


def test_weights_of_another_part_are_refused(load: Callable[..., LMM]) -> None:
    with pytest.raises(UserError, match="weights of another trainable part"):
        load(trainable="bridge").load_trainable_state(load(trainable="projection").trainable_state())


def test_a_dispatched_model_stays_where_it_is(load: Callable[..., LMM]) -> None:
    model = load()
    model.hf.hf_device_map = {"": "cpu"}

    model.to(torch.float64)

    assert model.hf.dtype == torch.float32
    del model.hf.hf_device_map
    assert model.to(torch.float64).hf.dtype == torch.float64
