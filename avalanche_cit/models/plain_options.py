"""Options of a model as YAML files and command lines give them: plain values, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import BitsAndBytesConfig

from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.models.families import Family

if TYPE_CHECKING:
    from peft import LoraConfig

QUANTIZATIONS = ("4bit", "8bit")


def lora_config(options: Mapping[str, Any] | None) -> LoraConfig | None:
    """Return peft's configuration of LoRA adapters.

    Raises:
        UserError: peft has no such option, or refuses a value.

    Example:
        >>> lora_config({"r": 16, "lora_alpha": 32}).r
        16
    """
    if options is None:
        return None
    from peft import LoraConfig  # which takes seconds to import

    known = [field.name for field in dataclasses.fields(LoraConfig)]
    for name in options:
        if name not in known:
            raise unknown_name("option of lora", name, known)
    try:
        return LoraConfig(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"lora: {' '.join(str(error).split())}") from error


def family_of(modules: Mapping[str, Any] | None) -> Family | None:
    """Return the names of a model's modules.

    Raises:
        UserError: A name is missing, not known or no text.

    Example:
        >>> family_of({"vision": "model.visual", "projection": "model.visual.merger", "bridge": ["model.visual.merger"],
        ...            "language": "model.language_model"}).vision
        'model.visual'
    """
    if modules is None:
        return None
    names = ("vision", "projection", "bridge", "language")
    for name in modules:
        if name not in names:
            raise unknown_name("module", name, names)
    missing = [name for name in names if name not in modules]
    if missing:
        raise UserError(f"modules: the name of {missing[0]} is missing; give {', '.join(names)}")
    bridge = modules["bridge"]
    bridge = [bridge] if isinstance(bridge, str) else bridge
    texts = [modules["vision"], modules["projection"], modules["language"]]
    if not isinstance(bridge, list) or not all(isinstance(text, str) for text in (*texts, *bridge)):
        raise UserError("modules: vision, projection and language are names of modules, bridge is a list of them")
    return Family(vision=texts[0], projection=texts[1], bridge=tuple(bridge), language=texts[2])


def quantization_config(name: str | None, dtype: str) -> BitsAndBytesConfig | None:
    """Return transformers' configuration of a quantised model, which computes in `dtype`.

    Raises:
        UserError: The name is not one of `QUANTIZATIONS`.
    """
    if name is None:
        return None
    if name == "4bit":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    raise unknown_name("quantization", name, QUANTIZATIONS)
