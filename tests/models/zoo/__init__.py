"""Tiny random checkpoints, one per family of models, each as complete as a published one.

A checkpoint is a folder that ``AutoProcessor`` and ``AutoModelForImageTextToText`` load: configuration, weights,
generation configuration, tokenizer, image processor and, where the family has one, chat template.

Example:
    >>> folder = checkpoint("llava", tmp_path_factory)
    >>> model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float64")
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from .blip import blip2_opt, blip2_t5, instructblip_llama, instructblip_t5
from .common import Checkpoint, widen
from .gemma import gemma3, paligemma
from .idefics import idefics3, smolvlm
from .internvl import internvl
from .llava import llava, llava_onevision
from .qwen import qwen2_5_vl, qwen2_vl, qwen3_vl

__all__ = ["ZOO", "checkpoint", "write"]

ZOO: dict[str, Callable[[], Checkpoint]] = {
    "instructblip_t5": instructblip_t5,
    "instructblip_llama": instructblip_llama,
    "blip2_t5": blip2_t5,
    "blip2_opt": blip2_opt,
    "llava": llava,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "paligemma": paligemma,
    "gemma3": gemma3,
    "internvl": internvl,
}
"""What makes a model and its processor, by family."""

_written: dict[str, Path] = {}


def checkpoint(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a family's checkpoint, written once a session."""
    if name not in _written:
        _written[name] = tmp_path_factory.mktemp(name)
        write(name, _written[name])
    return _written[name]


def write(name: str, folder: Path, seed: int = 1) -> None:
    """Write a family's checkpoint; the seed fixes its weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, processor = ZOO[name]()
        widen(model, processor.tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
