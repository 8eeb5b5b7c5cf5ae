"""A stock transformers multimodal model as an Avalanche model."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from avalanche.models import DynamicModule
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from avalanche_cit.benchmarks.collator import IGNORED, InstructionBatch, InstructionCollator, image_key
from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.models.expandable_projection import Router
from avalanche_cit.models.families import FAMILIES, Family
from avalanche_cit.models.frozen_prefix import FeaturesOrPixels, VisionFeatures, tower_features

SHIPPED = ("tiny-base", "tiny-instruct")
"""Models that come with the package."""

Trainable = str | Sequence[str]


class LMM(DynamicModule):  # type: ignore[misc]
    """A large multimodal model whose trainable part is tuned task after task.

    Everything but the trainable part is frozen and kept in evaluation mode. The model itself is the stock
    transformers model, unchanged, at `hf`.

    Args:
        hf: The stock model.
        processor: Its stock processor.
        trainable: What is tuned: ``"bridge"`` (InstructBLIP: query tokens, Q-Former and projection, as in the
            paper), ``"projection"``, ``"language"``, ``"all"``, or a list of patterns of parameter names such as
            ``["language_model.*.layer_norm.weight"]``.
        vision_features: Where to keep the vision tower's features between uses; None computes them every time.

    Raises:
        UserError: The architecture is not known, or `trainable` names nothing.

    Example:
        >>> model = LMM.from_pretrained("tiny-base")
        >>> batch, labels, _ = model.collator([benchmark.test_stream[0].dataset[0]])
        >>> model(batch).shape  # (B, V, L), what torch's cross-entropy takes
        torch.Size([1, 493, 12])
        >>> model.generate(batch)
        ['park , small red circle top right']
    """

    def __init__(
        self,
        hf: Any,
        processor: Any,
        *,
        trainable: Trainable = "bridge",
        vision_features: VisionFeatures | None = None,
    ) -> None:
        super().__init__()
        self.hf = hf
        self.processor = processor
        self.family = _family(hf.config.model_type)
        self.encoder_decoder: bool = bool(hf.language_model.config.is_encoder_decoder)
        self._select_trainable(trainable)
        self.vision_features = self._cache(vision_features)
        self.collator = InstructionCollator(
            processor,
            encoder_decoder=self.encoder_decoder,
            max_text_tokens=hf.config.qformer_config.max_position_embeddings,
            known_images=() if self.vision_features is None else self.vision_features,
        )
        self.router: Router | None = None
        self.train(False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        trainable: Trainable = "bridge",
        dtype: str | torch.dtype = "float32",
        vision_features: VisionFeatures | None = None,
    ) -> LMM:
        """Load a model that ships with the package, lies in a folder, or has a name on the hub.

        Args:
            name_or_folder: ``"tiny-base"``, ``"tiny-instruct"``, a folder, or a hub name.
            trainable: See the class.
            dtype: Data type of the weights.
            vision_features: See the class.

        Raises:
            UserError: Nothing can be loaded under that name.
        """
        source = model_folder(name_or_folder)
        try:
            config = AutoConfig.from_pretrained(source)
            _family(config.model_type)
            processor = AutoProcessor.from_pretrained(source)
            hf = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype)
        except UserError:
            raise
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"cannot load the model '{name_or_folder}': {reason} "
                f"(shipped: {', '.join(SHIPPED)}; or a folder, or a name on the hub)"
            ) from error
        return cls(hf, processor, trainable=trainable, vision_features=vision_features)

    @property
    def device(self) -> torch.device:
        """Where the trainable weights are, or the model where none is trainable yet."""
        weights = list(self.parameters())
        weight: Tensor = next((weight for weight in weights if weight.requires_grad), weights[0])
        return weight.device

    def forward(self, batch: InstructionBatch) -> Tensor:
        """Return logits (B, V, L) aligned with ``batch.labels`` (B, L), zero where there is no label."""
        labels = batch.labels
        if self.router is not None:
            self.router.choose(batch)
        if self.encoder_decoder:
            output = self.hf(pixel_values=self._vision(batch), labels=labels, **batch.inputs)
            logits = output.logits
        else:
            output = self.hf(pixel_values=self._vision(batch), **batch.inputs)
            # the logits at a position speak of the next token
            logits = nn.functional.pad(output.logits[:, :-1], (0, 0, 1, 0))
        counted: Tensor = logits.masked_fill((labels == IGNORED).unsqueeze(-1), 0.0)
        return counted.transpose(1, 2)

    @torch.no_grad()
    def generate(self, batch: InstructionBatch) -> list[str]:
        """Answer by greedy decoding, as long as the longest-answering task of the batch allows."""
        if self.router is not None:
            self.router.choose(batch)
        tokens = self.hf.generate(
            pixel_values=self._vision(batch),
            **batch.prompt_inputs,
            max_new_tokens=max(task.max_new_tokens for task in batch.tasks),
            do_sample=False,
            num_beams=1,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )
        if not self.encoder_decoder:
            prompt = batch.prompt_inputs["input_ids"].shape[1]
            tokens = tokens[:, prompt:] if tokens.shape[1] > prompt else tokens
        texts: list[str] = self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    @torch.no_grad()
    def embed_images(self, batch: InstructionBatch) -> Tensor:
        """Return the frozen vision tower's class token of each image, (B, D)."""
        features = self._vision(batch)
        if features.ndim == 4:
            features = self._tower()(pixel_values=features).last_hidden_state
        return features[:, 0]

    def prepare(self, dataset: Any) -> None:
        """Fill the cache of vision features with the images of an Avalanche data set, if there is a cache."""
        cache = self.vision_features
        if cache is None:
            return
        examples = [dataset[i][0] for i in range(len(dataset))]
        missing = {key: example for example in examples if (key := image_key(example.row["image"])) not in cache}
        if not missing or cache.full:
            return
        tower = self._tower()
        step = 256
        keys = list(missing)
        for start in tqdm(range(0, len(keys), step), desc="vision features", leave=False, disable=len(keys) <= step):
            part = keys[start : start + step]
            pixels = self.collator.pixel_values([missing[key] for key in part])
            cache.put(part, tower_features(tower, pixels.to(self.device)))

    def spelled_share(self, texts: Sequence[str]) -> float:
        """Return the share of words that the tokenizer has no token for and spells out byte by byte."""
        words = [word for text in texts for word in text.split() if len(word) > 1]
        if not words:
            return 0.0
        encoded = self.processor.tokenizer([f"a {word}" for word in words], add_special_tokens=False)["input_ids"]
        spelled = [len(ids) > len(word.encode()) for word, ids in zip(words, encoded, strict=True)]
        return sum(spelled) / len(spelled)

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the trainable weights by name; the tensors are the live ones."""
        return {name: weight.detach() for name, weight in self.named_parameters() if weight.requires_grad}

    @torch.no_grad()
    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Copy trainable weights back.

        Raises:
            UserError: The names differ from this model's.
        """
        own = self.trainable_state()
        if own.keys() != state.keys():
            odd = min(own.keys() ^ state.keys())
            raise UserError(f"these are the weights of another trainable part: '{odd}' is only in one of the two")
        for name, weight in own.items():
            weight.copy_(state[name])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that plain transformers loads.

        Raises:
            UserError: The model has a projection per task, which plain transformers knows nothing of.
        """
        if self.router is not None:
            raise UserError("a model with a projection per task (EProj) has no place in a plain transformers folder")
        hf = self.hf
        cached = isinstance(tower := self._tower(), FeaturesOrPixels)
        if cached:
            setattr(hf, self.family.vision, tower.tower)
        hf.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        if cached:
            setattr(hf, self.family.vision, tower)

    def train(self, mode: bool = True) -> LMM:
        """Put what holds trainable weights, dropout included, in training mode; the rest stays in evaluation mode."""
        _set_training(self, mode)
        return self

    def to(self, *args: Any, **kwargs: Any) -> LMM:
        """Move the model, unless it is quantised or spread over devices, which must stay where they are."""
        if {"hf_device_map", "hf_quantizer"} & vars(self.hf).keys():  # set by transformers on such models only
            return self
        super().to(*args, **kwargs)
        return self

    def _vision(self, batch: InstructionBatch) -> Tensor:
        """Features (B, N, D) where all are cached, else pixels (B, C, H, W)."""
        if batch.pixel_values is not None:
            return batch.pixel_values.to(self.hf.dtype)
        if self.vision_features is None:
            raise ValueError("this batch holds no pixels: it was collated for a model with cached vision features")
        return self.vision_features.get(batch.image_keys, self.device)

    def _tower(self) -> nn.Module:
        tower: nn.Module = self.hf.get_submodule(self.family.vision)
        return tower

    def _cache(self, features: VisionFeatures | None) -> VisionFeatures | None:
        if features is None or any(weight.requires_grad for weight in self._tower().parameters()):
            return None
        setattr(self.hf, self.family.vision, FeaturesOrPixels(self._tower()))
        return features

    def _select_trainable(self, trainable: Trainable) -> None:
        self.hf.requires_grad_(False)
        groups: dict[str, tuple[str, ...]] = {
            "bridge": self.family.bridge,
            "projection": self.family.projection,
            "language": (self.family.language,),
            "all": ("",),
        }
        if isinstance(trainable, str):
            if trainable not in groups:
                raise unknown_name("trainable part", trainable, groups)
            patterns = [f"{prefix}*" for prefix in groups[trainable]]
        else:
            patterns = list(trainable)
        last = self.hf.config.qformer_config.num_hidden_layers - 1
        inert = [f"{prefix.format(last=last)}*" for prefix in self.family.inert]
        for pattern in patterns:
            hits = [weight for name, weight in self.hf.named_parameters() if fnmatch.fnmatch(name, pattern)]
            if not hits:
                raise UserError(f"trainable: '{pattern}' matches no parameter of {type(self.hf).__name__}")
            for weight in hits:
                weight.requires_grad_(True)
        for name, weight in self.hf.named_parameters():
            if any(fnmatch.fnmatch(name, pattern) for pattern in inert):
                weight.requires_grad_(False)
        if not any(weight.requires_grad for weight in self.hf.parameters()):
            raise UserError(f"trainable: {', '.join(patterns)} match only parameters that no loss ever reaches")


def _set_training(module: nn.Module, mode: bool) -> None:
    module.training = mode
    for child in module.children():
        weights = list(child.parameters())
        # a module without weights, such as dropout, goes with the one it stands in
        _set_training(child, mode and (not weights or any(weight.requires_grad for weight in weights)))


def model_folder(name_or_folder: str | Path) -> str:
    """Return the folder of a shipped model, or the name as it is.

    Raises:
        UserError: It looks like a shipped model's name but is none.
    """
    name = str(name_or_folder)
    if name in SHIPPED:
        return str(resources.files("avalanche_cit.models.tiny") / name.removeprefix("tiny-"))
    if not Path(name).exists() and "/" not in name:
        raise unknown_name("model", name, SHIPPED)
    return name


def _family(model_type: str) -> Family:
    if model_type not in FAMILIES:
        raise unknown_name("model architecture", model_type, FAMILIES)
    return FAMILIES[model_type]
