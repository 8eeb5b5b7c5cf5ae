"""Facts about model families: which modules are vision tower, bridge and language model, and how they are asked.

Facts only. What is done with them is in `trainable.py` and `lmm.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PromptStyle = Literal["qformer", "chat", "prefix"]


@dataclass(frozen=True)
class Family:
    """Names of modules and parameters inside the stock model, as prefixes.

    Attributes:
        vision: The vision tower.
        projection: The module that maps into the language model's width; what EProj copies per task.
        bridge: All between tower and language model; what is tuned by default, where no LoRA is asked for.
        language: The language model.
        prompt: How the model is asked: ``"qformer"`` (image tokens, then the prompt), ``"chat"`` (the processor's chat
            template) or ``"prefix"`` (PaliGemma).
        inert: Patterns of bridge parameters that no loss ever reaches; they stay frozen, or weight decay would
            shrink them for nothing. ``{last}`` is the Q-Former's last layer.
        vision_width: The name of the vision tower's width in its configuration.
    """

    vision: str
    projection: str
    bridge: tuple[str, ...]
    language: str
    prompt: PromptStyle = "chat"
    inert: tuple[str, ...] = ()
    vision_width: str = "hidden_size"


_BLIP2 = Family(
    vision="vision_model",
    projection="language_projection",
    bridge=("query_tokens", "qformer", "language_projection"),
    language="language_model",
    prompt="qformer",
)
_LLAVA = Family(
    vision="model.vision_tower",
    projection="model.multi_modal_projector",
    bridge=("model.multi_modal_projector",),
    language="model.language_model",
)
_QWEN_VL = Family(
    vision="model.visual",
    projection="model.visual.merger",
    bridge=("model.visual.merger",),
    language="model.language_model",
)
_IDEFICS3 = Family(
    vision="model.vision_model",
    projection="model.connector",
    bridge=("model.connector",),
    language="model.text_model",
)

FAMILIES = {
    "instructblip": replace(
        _BLIP2,
        # the text branch of the Q-Former's last layer: only query positions are read from it
        inert=(
            "qformer.encoder.layer.{last}.intermediate.",
            "qformer.encoder.layer.{last}.output.",
        ),
    ),
    "blip-2": _BLIP2,
    "llava": _LLAVA,
    "llava_onevision": replace(_LLAVA, bridge=("model.multi_modal_projector", "model.image_newline")),
    "qwen2_vl": replace(_QWEN_VL, vision_width="embed_dim"),
    "qwen2_5_vl": _QWEN_VL,
    "qwen3_vl": replace(_QWEN_VL, bridge=("model.visual.merger", "model.visual.deepstack_merger_list")),
    "idefics3": _IDEFICS3,
    "smolvlm": _IDEFICS3,
    "paligemma": replace(_LLAVA, prompt="prefix"),
    "gemma3": _LLAVA,
    "internvl": _LLAVA,
}
"""Families by ``model_type`` of the stock configuration."""
