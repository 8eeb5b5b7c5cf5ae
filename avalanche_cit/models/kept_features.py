"""The outputs of a model's frozen prefix, found on disk or computed and kept there, and put into its batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from avalanche_cit.benchmarks.batch import InstructionBatch
from avalanche_cit.benchmarks.images import image_state
from avalanche_cit.benchmarks.instruction_data import images_of
from avalanche_cit.benchmarks.qformer_collator import QFormerCollator, SampleKey
from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.models.feature_cache import GB, Place, VisionFeatures
from avalanche_cit.models.frozen_prefix import CHUNK, FrozenPrefix, chunks

_STEP = 8 * CHUNK  # samples that are computed and written at once


class KeptFeatures:
    """What is known of the outputs of a model's frozen prefix.

    The collator leaves out images whose features are known. Those of all others are computed for each batch, in the
    same pieces, so that the bits are the same.

    Args:
        prefix: The frozen part of the model.
        collator: Makes the model's batches.
        cache: Where to keep outputs.
    """

    def __init__(self, prefix: FrozenPrefix, collator: QFormerCollator, cache: VisionFeatures) -> None:
        self.prefix = prefix
        self._collator = collator
        self._cache = cache
        self._places: dict[SampleKey, Place] = {}
        self._said: set[str] = set()
        collator.leave_out_images(self._places, by_prompt=prefix.by_sample and collator.reads_text)

    def __len__(self) -> int:
        """Return the number of images, or samples, whose features are known."""
        return len(self._places)

    def inputs(self, batch: InstructionBatch, device: torch.device) -> Tensor:
        """Return what the wrapped model takes in the place of pixels: (B, N, D), or (B, Q * E)."""
        prefix = self.prefix
        if not prefix.by_sample:
            return self._gathered("features", batch, device, lambda pixels, _: prefix.features(pixels))

        def output(pixels: Tensor, samples: list[int]) -> Tensor:
            return prefix.output(prefix.features(pixels), range(len(samples)), _texts(batch, samples))

        return self._gathered("output", batch, device, output).flatten(1)

    def class_tokens(self, batch: InstructionBatch, device: torch.device) -> Tensor:
        """Return the vision tower's class tokens, (B, D)."""
        prefix = self.prefix
        if not prefix.by_sample:
            return self.inputs(batch, device)[:, 0]
        return self._gathered("class_token", batch, device, lambda pixels, _: prefix.features(pixels)[:, 0])

    def prepare(self, dataset: Any, device: torch.device) -> None:
        """Find, or compute and keep, the features of an Avalanche data set's samples.

        What is going to be computed is said before, and so is why something is not kept.

        Raises:
            UserError: An image cannot be read, or a text is longer than the model takes; the sample is named.
        """
        wanted: dict[SampleKey, int] = {}
        names: dict[SampleKey, bytes] = {}
        for places in chunks(range(len(dataset)), _STEP):
            new: dict[SampleKey, Example] = {}
            for i in places:
                example = dataset[i][0]
                key = self._collator.key(example)
                if key not in self._places and key not in wanted and len(images_of(example.row)) == 1:
                    wanted[key], new[key] = i, example
            names |= self._names(new)
        if not wanted:
            return
        found = self._cache.open(self.prefix.name).find(names.values())
        self._places.update({key: found[name] for key, name in names.items() if name in found})
        # sorted, so that questions about one image stand together
        missing = sorted(key for key, name in names.items() if name not in found)
        fitting = missing[: self._announce(len(missing))] if missing else []
        with tqdm(total=len(fitting), desc="vision features", leave=False, disable=len(fitting) <= 2 * _STEP) as bar:
            for part in chunks(fitting, _STEP):
                if self._cache.used >= self._cache.max_bytes:  # by other processes
                    return
                examples = self._read(dataset, wanted, part)
                if examples is None:
                    return
                if not self._keep(part, [names[key] for key in part], self._computed(part, examples, device)):
                    return
                bar.update(len(part))

    def _read(self, dataset: Any, wanted: Mapping[SampleKey, int], keys: Sequence[SampleKey]) -> list[Example] | None:
        """Read samples once more; None, and a note, where their images are others now."""
        examples: list[Example] = [dataset[wanted[key]][0] for key in keys]
        if [self._collator.key(example) for example in examples] == list(keys):
            return examples
        self._say("images that are others at each reading (augmented) have no features to keep")
        return None

    def _names(self, samples: Mapping[SampleKey, Example]) -> dict[SampleKey, bytes]:
        """Name samples by what decides their features: the image, and the tokens that the Q-Former reads."""
        texts: list[list[int]] = [[] for _ in samples]
        if self.prefix.by_sample and samples:
            texts = self._collator.instructions(list(samples.values()))
        names = {}
        for (key, example), text in zip(samples.items(), texts, strict=True):
            image = example.row["image"]
            where = key[0] if image["bytes"] is not None else str(Path(key[0]).absolute())
            names[key] = hashlib.sha256(json.dumps([where, image_state(image), text]).encode()).digest()
        return names

    def _announce(self, samples: int) -> int:
        """Say of how many samples features are going to be kept, and what room they take; return how many."""
        prefix, cache = self.prefix, self._cache
        used, each = cache.used, prefix.bytes_each
        kept = min(samples, max(0, cache.max_bytes - used) // each)
        what = "samples" if prefix.by_sample else "images"
        if kept:
            print(
                f"note: vision features of {kept} {what} are computed and kept: {each / 1000:,.1f} kB each, "
                f"{kept * each / 10**6:,.1f} MB in all; {used / GB:.1f} of {cache.max_bytes / GB:g} GB are taken in "
                f"{cache.folder}"
            )
        if kept < samples:
            self._say(
                f"vision features of further {what} are computed every time: {cache.folder} takes "
                f"{cache.max_bytes / GB:g} GB; allow more with --cache-gb, or delete it"
            )
        return kept

    def _computed(
        self, keys: Sequence[SampleKey], examples: Sequence[Example], device: torch.device
    ) -> dict[str, Tensor]:
        """Compute what is kept of samples, each image once."""
        images = {key[0]: example for key, example in zip(keys, examples, strict=True)}
        features = self.prefix.features(self._collator.pixel_values(list(images.values())).to(device))
        if not self.prefix.by_sample:
            return {"features": features}
        numbers = {image: number for number, image in enumerate(images)}
        image_of = [numbers[image] for image, _ in keys]
        output = self.prefix.output(features, image_of, self._collator.instructions(examples))
        return {"output": output, "class_token": features[image_of, 0]}

    def _keep(self, keys: Sequence[SampleKey], names: Sequence[bytes], tensors: Mapping[str, Tensor]) -> bool:
        """Write features, and return whether that went well."""
        try:
            places = self._cache.open(self.prefix.name).put(names, tensors)
        except OSError as error:
            folder = self._cache.folder
            self._say(f"vision features are computed every time: {folder} cannot be written ({error.strerror})")
            return False
        self._places.update(zip(keys, places, strict=True))
        return True

    def _say(self, reason: str) -> None:
        """Print a note, once."""
        if reason not in self._said:
            self._said.add(reason)
            print(f"note: {reason}")

    def _gathered(
        self, name: str, batch: InstructionBatch, device: torch.device, compute: Callable[[Tensor, list[int]], Tensor]
    ) -> Tensor:
        """Return what is kept of the samples that come without pixels, and compute it for the others."""
        counts = [0] * len(batch) if batch.images is None else batch.images.rows["pixel_values"]
        kept = [i for i, count in enumerate(counts) if not count]
        given = [i for i, count in enumerate(counts) if count]
        parts = []
        if kept:
            keys = [self._collator.known_as(batch.image_keys[i], batch.prompts[i]) for i in kept]
            stored = self._cache.open(self.prefix.name).read(name, [self._places[key] for key in keys])
            parts.append(stored.to(device, non_blocking=True))
        if given:
            assert batch.images is not None
            parts.append(compute(batch.images.tensors["pixel_values"].to(device), given))
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts)[torch.tensor(kept + given).argsort().to(device)]


def _texts(batch: InstructionBatch, samples: Sequence[int]) -> list[list[int]]:
    """The tokens that the Q-Former reads of some samples of a batch, without padding."""
    if "qformer_input_ids" not in batch.inputs:
        return [[] for _ in samples]
    ids, mask = batch.inputs["qformer_input_ids"], batch.inputs["qformer_attention_mask"].bool()
    return [ids[i][mask[i]].tolist() for i in samples]
