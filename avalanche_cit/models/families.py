"""Facts about model families: which modules are vision tower, bridge and language model.

Facts only. What is done with them is in `lmm.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Names of modules and parameters inside the stock model, as prefixes.

    Attributes:
        vision: The vision tower.
        projection: What maps into the language model's width.
        bridge: All between tower and language model; what is tuned by default.
        language: The language model.
        inert: Patterns of bridge parameters that no loss ever reaches; they stay frozen, or weight decay would
            shrink them for nothing.
    """

    vision: str
    projection: tuple[str, ...]
    bridge: tuple[str, ...]
    language: str
    inert: tuple[str, ...] = ()


FAMILIES = {
    "instructblip": Family(
        vision="vision_model",
        projection=("language_projection",),
        bridge=("query_tokens", "qformer", "language_projection"),
        language="language_model",
        # the text branch of the Q-Former's last layer: only query positions are read from it
        inert=(
            "qformer.encoder.layer.{last}.intermediate.",
            "qformer.encoder.layer.{last}.output.",
        ),
    ),
}
"""Families by ``model_type`` of the stock configuration."""
