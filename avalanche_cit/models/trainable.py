"""What of a stock model is tuned: a part by name, patterns of parameter names, LoRA adapters, or both."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.models.families import Family

if TYPE_CHECKING:
    from peft import LoraConfig

Trainable = str | Sequence[str]

PARTS = ("bridge", "projection", "language", "all")
"""What can be tuned by name."""


def select_trainable(hf: Any, family: Family | None, trainable: Trainable | None, lora: LoraConfig | None) -> None:
    """Freeze a stock model but for what is tuned, and put LoRA adapters into it.

    Args:
        hf: The stock model.
        family: Its modules; only patterns, ``"all"`` and LoRA on named modules work without.
        trainable: One of `PARTS`, or one or several patterns of parameter names; None is the bridge, or nothing
            beside LoRA.
        lora: Where given, a copy of it is added by peft. Without ``target_modules`` it is put on every linear layer
            of the language model.

    Raises:
        UserError: A pattern or a target matches nothing, or weights that cannot be tuned.
    """
    hf.requires_grad_(False)
    tuned = _matching(hf, family, "bridge" if trainable is None and lora is None else trainable)
    if lora is not None:
        _add_lora(hf, family, lora)
    for weight in tuned:
        weight.requires_grad_(True)


def _matching(hf: Any, family: Family | None, trainable: Trainable | None) -> list[nn.Parameter]:
    patterns = _patterns(trainable, family)
    inert = [f"{pattern}*" for pattern in _inert(hf, family)]
    tuned = []
    for pattern in patterns:
        hits = {name: weight for name, weight in hf.named_parameters() if fnmatch.fnmatch(name, pattern)}
        if not hits:
            raise UserError(f"trainable: '{pattern}' matches no parameter of {type(hf).__name__}")
        for name, weight in hits.items():
            if not weight.is_floating_point():
                raise UserError(
                    f"trainable: '{name}' is quantised and cannot be tuned; tune LoRA adapters on it instead"
                )
            if not any(fnmatch.fnmatch(name, other) for other in inert):
                tuned.append(weight)
    if patterns and not tuned:
        raise UserError(f"trainable: {', '.join(patterns)} match only parameters that no loss ever reaches")
    return tuned


def _patterns(trainable: Trainable | None, family: Family | None) -> list[str]:
    if trainable is None:
        return []
    if not isinstance(trainable, str):
        return list(trainable)
    if "." in trainable or "*" in trainable:
        return [trainable]
    if trainable not in PARTS:
        raise unknown_name("trainable part", trainable, PARTS)
    if trainable == "all":
        return ["*"]
    if family is None:
        raise UserError(
            f"trainable: the {trainable} of this architecture is not known; give patterns of parameter names, LoRA "
            "with target_modules, or the names of its modules"
        )
    parts = {"bridge": family.bridge, "projection": (family.projection,), "language": (family.language,)}
    return [f"{prefix}*" for prefix in parts[trainable]]


def _inert(hf: Any, family: Family | None) -> list[str]:
    if family is None or not family.inert:
        return []
    last = hf.config.qformer_config.num_hidden_layers - 1
    return [prefix.format(last=last) for prefix in family.inert]


def _add_lora(hf: Any, family: Family | None, lora: LoraConfig) -> None:
    own = dataclasses.replace(lora)
    if own.target_modules is None:
        if family is None:
            raise UserError("lora: the language model of this architecture is not known; give target_modules")
        language = hf.get_submodule(family.language)
        head = hf.get_output_embeddings()
        linear = {
            name for name, layer in language.named_modules() if isinstance(layer, nn.Linear) and layer is not head
        }
        leaves = "|".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
        own.target_modules = rf"{re.escape(family.language)}\.(.*\.)?({leaves})"
    try:
        hf.add_adapter(own)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"lora: {reason}") from error


def set_training(module: nn.Module, mode: bool) -> None:
    """Put what holds trainable weights, dropout included, in training mode; the rest stays in evaluation mode.

    Layers that gradient checkpointing was turned on for count as in training, or they would keep their activations;
    see `checkpoint_activations`.
    """
    _set_trainable_training(module, mode)
    for layer in module.modules():
        if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
            layer.training = mode


def _set_trainable_training(module: nn.Module, mode: bool) -> None:
    module.training = mode
    for child in module.children():
        weights = list(child.parameters())
        # a module without weights, such as dropout, goes with the one it stands in
        _set_trainable_training(child, mode and (not weights or any(weight.requires_grad for weight in weights)))


def checkpoint_activations(hf: Any) -> None:
    """Compute activations anew in the backward pass instead of keeping them, those of frozen layers included.

    Transformers checkpoints layers that are in training mode only. Frozen ones are told so for that purpose, and are
    in evaluation mode while they compute, so that their dropout stays off.

    Raises:
        UserError: The model does not support it.
    """
    try:
        hf.activation_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise UserError(f"gradient_checkpointing: {error}") from error
    for layer in hf.modules():
        if isinstance(layer, GradientCheckpointingLayer) and not any(w.requires_grad for w in layer.parameters()):
            layer._gradient_checkpointing_func = partial(_checkpoint_frozen, layer)


def _checkpoint_frozen(layer: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
    def evaluated(*inputs: Any) -> Any:
        layer.training = False
        try:
            return function(*inputs)
        finally:
            layer.training = True

    return checkpoint(evaluated, *args, use_reentrant=False)
