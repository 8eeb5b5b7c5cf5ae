"""What lies before the first trainable weight of a model with a Q-Former: vision tower, or vision tower and Q-Former.

    frozen                              one output for each                      which is
    vision tower                        image                                    the tower's features (N, D)
    vision tower, query tokens,         image and text that the Q-Former         the Q-Former's output (Q, E),
    Q-Former                            reads (BLIP-2's reads none)              the tower's class token (D,)

Computed in pieces of one fixed shape, outside of autocast, so that the bits do not depend on the samples that happen to
be computed together. `kept_features.py` keeps them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeVar

import PIL
import torch
import torchvision
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from avalanche_cit.benchmarks.qformer_collator import QFormerCollator
from avalanche_cit.models.families import Family
from avalanche_cit.models.fingerprint import fingerprint, module_fingerprint

CHUNK = 16
"""Samples that are computed together, always as many."""

_VERSION = 1  # raised whenever the same weights and samples would give other outputs
_TEXT = 16  # texts are padded to multiples of so many tokens
_QFORMER = "qformer"  # and `query_tokens` beside it, in the stock models of all families with one

T = TypeVar("T")


class FeaturesOrPixels(nn.Module):
    """A vision tower that lets features pass in the place of pixels.

    Args:
        tower: The stock vision tower.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixel_values: Tensor, **kwargs: object) -> BaseModelOutputWithPooling:
        """Run the tower on pixels (B, C, H, W); return what has fewer dimensions as it is."""
        if pixel_values.ndim < 4:
            return BaseModelOutputWithPooling(last_hidden_state=pixel_values)
        output: BaseModelOutputWithPooling = self.tower(pixel_values=pixel_values, **kwargs)
        return output


class OutputOrFeatures(nn.Module):
    """A Q-Former that lets its own output pass in the place of the tower's features.

    Args:
        qformer: The stock Q-Former.
    """

    def __init__(self, qformer: nn.Module) -> None:
        super().__init__()
        self.qformer = qformer

    def forward(self, *, query_embeds: Tensor, encoder_hidden_states: Tensor, **kwargs: object) -> Any:
        """Run the Q-Former on features (B, N, D); return an output that comes flat, (B, Q * E), as (B, Q, E)."""
        if encoder_hidden_states.ndim < 3:
            return BaseModelOutputWithPooling(last_hidden_state=encoder_hidden_states.view(query_embeds.shape))
        return self.qformer(query_embeds=query_embeds, encoder_hidden_states=encoder_hidden_states, **kwargs)


def why_not(hf: Any, family: Family | None) -> str | None:
    """Say why a model has no frozen prefix whose outputs could be kept; None where it has one.

    Args:
        hf: The stock model, its trainable part chosen.
        family: Its family, if it is known.
    """
    if family is None or family.prompt != "qformer":
        return "only BLIP-2 and InstructBLIP have a place where features can take that of pixels"
    tower = hf.get_submodule(family.vision)
    if any(weight.requires_grad for weight in tower.parameters()):
        return "the vision tower is tuned"
    if _in_8_bits(tower):
        return "a vision tower in 8 bits sees an image differently in each batch"
    return None


class FrozenPrefix:
    """The frozen part of a stock model with a Q-Former, in whose places stand wrappers that let its outputs pass.

    Args:
        hf: The stock model; `why_not` says nothing against it.
        family: Its family.
        collator: Makes its batches.

    Attributes:
        by_sample: Whether the Q-Former is frozen too, so that its outputs are those of samples and not of images.
        stock: The stock modules by name, which the wrappers stand for.
    """

    def __init__(self, hf: Any, family: Family, collator: QFormerCollator) -> None:
        self.hf = hf
        self.tower: Any = hf.get_submodule(family.vision)
        qformer: Any = hf.get_submodule(_QFORMER)
        frozen = not any(weight.requires_grad for weight in (hf.query_tokens, *qformer.parameters()))
        self.by_sample = frozen and not _in_8_bits(qformer)
        self.stock: dict[str, Any] = {family.vision: self.tower}
        hf.set_submodule(family.vision, FeaturesOrPixels(self.tower))
        if self.by_sample:
            self.stock[_QFORMER] = qformer
            hf.set_submodule(_QFORMER, OutputOrFeatures(qformer))
        self._collator = collator

    @cached_property
    def name(self) -> str:
        """``tower`` or ``qformer``, and a checksum of all that decides the bits of an output but the sample."""
        device = next(self.tower.parameters()).device
        weights = [module_fingerprint(module) for module in self.stock.values()]
        if self.by_sample:
            weights.append(fingerprint({"query_tokens": self.hf.query_tokens}))
        configs = [module.config for module in self.stock.values()]
        settings = [self._collator.processor.image_processor.to_json_string()]
        settings += [text for config in configs for text in (config.to_json_string(), config._attn_implementation)]
        machine: list[object] = [package.__version__ for package in (PIL, torch, torchvision, transformers)]
        machine += [torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()]
        if device.type == "cuda":
            machine.append(torch.cuda.get_device_name(device))
        else:
            machine += [device.type, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
        about = json.dumps([_VERSION, CHUNK, _TEXT, weights, settings, machine])
        return f"{'qformer' if self.by_sample else 'tower'}-{hashlib.sha256(about.encode()).hexdigest()[:16]}"

    @property
    def bytes_each(self) -> int:
        """The size of what is to be kept of an image, or of a sample."""
        vision = self.hf.config.vision_config
        numbers = ((vision.image_size // vision.patch_size) ** 2 + 1) * vision.hidden_size
        if self.by_sample:
            numbers = self.hf.query_tokens.numel() + vision.hidden_size
        return int(numbers) * int(self.tower.dtype.itemsize)

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """Return the tower's features (B, N, D) of pixels (B, C, H, W)."""
        with torch.autocast(pixels.device.type, enabled=False):
            return torch.cat(
                [
                    self.tower(pixel_values=pixels[_filled(part)]).last_hidden_state[: len(part)]
                    for part in chunks(range(len(pixels)), CHUNK)
                ]
            )

    @torch.no_grad()
    def output(self, features: Tensor, image_of: Sequence[int], texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the Q-Former's output (S, Q, E), in the tower's data type, in which stock models pass it on.

        Args:
            features: The tower's (I, N, D), of the images of S samples.
            image_of: Which of the images each sample has.
            texts: The tokens that the Q-Former reads of each sample, none where it reads no text.
        """
        widest = self._collator.max_instruction_tokens or 0
        widths = [min(-(-len(text) // _TEXT) * _TEXT, widest) for text in texts]
        order: list[int] = []
        outputs = []
        with torch.autocast(features.device.type, enabled=False):
            for width in sorted(set(widths)):
                alike = [i for i, own in enumerate(widths) if own == width]
                for part in chunks(alike, CHUNK):
                    filled = _filled(part)
                    read = self._read([texts[i] for i in filled], width, features.device)
                    seen = self.hf.get_image_features(features[[image_of[i] for i in filled]], **read, return_dict=True)
                    queries = self.hf.query_tokens.shape[1]
                    outputs.append(seen.qformer_outputs.last_hidden_state[: len(part), :queries])
                order += alike
        back = torch.tensor(order).argsort().to(features.device)
        return torch.cat(outputs)[back].to(features.dtype)

    def _read(self, texts: Sequence[Sequence[int]], width: int, device: torch.device) -> dict[str, Tensor]:
        """The Q-Former's text inputs, (CHUNK, width) each."""
        if not self._collator.reads_text:
            return {}
        pad = self._collator.processor.qformer_tokenizer.pad_token_id
        ids = torch.tensor([[*text, *[pad] * (width - len(text))] for text in texts], device=device)
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts], device=device)
        return {"qformer_input_ids": ids, "qformer_attention_mask": mask}


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut a sequence into parts of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _filled(part: Sequence[int]) -> list[int]:
    """Repeat the last one until there are `CHUNK` of them."""
    return [*part, *[part[-1]] * (CHUNK - len(part))]


def _in_8_bits(module: nn.Module) -> bool:
    """Whether bitsandbytes computes it in 8 bits, where outliers are sought in a whole batch at once."""
    return any(weight.dtype == torch.int8 for weight in module.parameters())
