"""A stock transformers multimodal model as an Avalanche model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from avalanche.models import DynamicModule
from torch import Tensor, nn

from avalanche_cit.benchmarks.batch import IGNORED, InstructionBatch
from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.models.asking import make_collator
from avalanche_cit.models.expandable_projection import Router
from avalanche_cit.models.families import FAMILIES, Family
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.models.kept_features import KeptFeatures
from avalanche_cit.models.loading import load_stock
from avalanche_cit.models.out_of_memory import halving
from avalanche_cit.models.saving import check_can_be_saved, upload
from avalanche_cit.models.trainable import Trainable, checkpoint_activations, select_trainable, set_training
from avalanche_cit.models.vision import VisionPart, cast, kept_features

if TYPE_CHECKING:
    from peft import LoraConfig


class LMM(DynamicModule):  # type: ignore[misc]
    """A large multimodal model whose trainable part is tuned task after task.

    Everything but the trainable part is frozen and kept in evaluation mode. The model itself is the stock
    transformers model, unchanged but for LoRA adapters that peft puts into it, at `hf`.

    Args:
        hf: The stock model.
        processor: Its stock processor.
        trainable: What is tuned: ``"bridge"`` (all between vision tower and language model; InstructBLIP: query
            tokens, Q-Former and projection, as in the paper), ``"projection"``, ``"language"``, ``"all"``, or a list
            of patterns of parameter names such as ``["language_model.*.layer_norm.weight"]``. None: the bridge, or
            nothing beside LoRA where LoRA is given.
        lora: A peft configuration of adapters to tune; without ``target_modules`` they are put on every linear layer
            of the language model.
        family: The names of the model's modules, for an architecture that is not one of `FAMILIES`. Left away, such a
            model is tuned by patterns of names, and whatever needs to know its modules is refused.
        gradient_checkpointing: Compute activations anew in the backward pass instead of keeping them.
        vision_features: Where to keep what the frozen part before the first trainable weight makes of images; None
            computes it every time. Used by BLIP-2 and InstructBLIP with a frozen tower; a note says why where it is
            not used.

    Raises:
        UserError: The architecture is not known and has no chat template, or what is to be tuned names nothing.

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
        trainable: Trainable | None = None,
        lora: LoraConfig | None = None,
        family: Family | None = None,
        gradient_checkpointing: bool = False,
        vision_features: VisionFeatures | None = None,
    ) -> None:
        super().__init__()
        self.hf = hf
        self.processor = processor
        self._family = family or FAMILIES.get(hf.config.model_type)
        if self._family is None and not processor.chat_template:
            raise unknown_name("model architecture without a chat template", hf.config.model_type, FAMILIES)
        self.encoder_decoder: bool = bool(hf.config.get_text_config().is_encoder_decoder)
        select_trainable(hf, self._family, trainable, lora)
        if gradient_checkpointing:
            checkpoint_activations(hf)
        self.collator = make_collator(hf, processor, self._family)
        kept = None if vision_features is None else kept_features(hf, self._family, self.collator, vision_features)
        self._vision = None if self._family is None else VisionPart(hf, self._family, kept)
        self.router: Router | None = None
        self.train(False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        trainable: Trainable | None = None,
        lora: LoraConfig | None = None,
        family: Family | None = None,
        dtype: str | torch.dtype = "float32",
        gradient_checkpointing: bool = False,
        device_map: Any = None,
        quantization_config: Any = None,
        trust_remote_code: bool = False,
        vision_features: VisionFeatures | None = None,
    ) -> LMM:
        """Load a model that ships with the package, lies in a folder, or has a name on the hub.

        Args:
            name_or_folder: ``"tiny-base"``, ``"tiny-instruct"``, a folder, or a hub name.
            trainable, lora, family, gradient_checkpointing, vision_features: See the class.
            dtype: Data type of the weights.
            device_map: How transformers spreads the model over devices; such a model stays where it is.
            quantization_config: How transformers quantises the model; such a model stays as it is.
            trust_remote_code: Run code that comes with the model.

        Raises:
            UserError: Nothing can be loaded under that name; see the class for more.

        Example:
            >>> model = LMM.from_pretrained("Qwen/Qwen2.5-VL-3B-Instruct", dtype="bfloat16", lora=LoraConfig(r=16))
        """
        hf, processor = load_stock(
            name_or_folder,
            dtype=dtype,
            device_map=device_map,
            quantization_config=quantization_config,
            trust_remote_code=trust_remote_code,
        )
        return cls(
            hf,
            processor,
            trainable=trainable,
            lora=lora,
            family=family,
            gradient_checkpointing=gradient_checkpointing,
            vision_features=vision_features,
        )

    @property
    def family(self) -> Family:
        """The names of the model's modules.

        Raises:
            UserError: The architecture is not known, and the names were not given.
        """
        if self._family is None:
            raise UserError(
                f"the modules of the architecture '{self.hf.config.model_type}' are not known: name them with family= "
                f"(known: {', '.join(FAMILIES)})"
            )
        return self._family

    @property
    def vision(self) -> VisionPart:
        """The vision tower and what is kept of it.

        Raises:
            UserError: See `family`.
        """
        if self._vision is None:
            self._vision = VisionPart(self.hf, self.family)
        return self._vision

    @property
    def vision_features(self) -> KeptFeatures | None:
        """What is kept of vision features, where they are."""
        return None if self._vision is None else self._vision.kept

    @property
    def language_model(self) -> nn.Module:
        """The stock language model inside."""
        language: nn.Module = self.hf.get_submodule(self.family.language)
        return language

    @property
    def language_is_frozen(self) -> bool:
        """Whether the language model is known to stay as it is."""
        if self._family is None:
            return False
        return not any(weight.requires_grad for weight in self.language_model.parameters())

    @property
    def device(self) -> torch.device:
        """Where the trainable weights are, or the model where none is trainable yet."""
        trainable = (weight for weight in self.parameters() if weight.requires_grad)
        weight: Tensor = next(trainable, next(self.parameters()))
        return weight.device

    def forward(self, batch: InstructionBatch) -> Tensor:
        """Return logits (B, V, L) aligned with ``batch.labels`` (B, L), zero where there is no label."""
        if self.router is None:
            return self._logits(batch)
        groups = [(places, self._logits(part)) for places, part in self.router.groups(batch)]
        first = groups[0][1]
        if len(groups) == 1:
            return first
        index = torch.tensor([place for places, _ in groups for place in places], device=first.device)
        return torch.cat([logits for _, logits in groups]).index_select(0, index.argsort())

    @torch.no_grad()
    def generate(self, batch: InstructionBatch) -> list[str]:
        """Answer by greedy decoding, as long as the longest-answering task of the batch allows."""
        if self.router is None:
            return self._answers(batch)
        texts = [""] * len(batch)
        for places, part in self.router.groups(batch):
            for place, text in zip(places, self._answers(part), strict=True):
                texts[place] = text
        return texts

    @torch.no_grad()
    def embed_images(self, batch: InstructionBatch) -> Tensor:
        """Return what the vision tower makes of each sample's image, (B, D).

        The class token for BLIP-2 and InstructBLIP, as in the paper; for other families the mean over the tower's
        tokens, of all images where a sample has several, and zeros for a sample without an image (ours).
        """
        return self.vision.embed(batch, self.device)

    def prepare(self, dataset: Any) -> None:
        """Find, or compute and keep, the vision features of an Avalanche data set, where they are kept."""
        if self.vision_features is not None:
            self.vision_features.prepare(dataset, self.device)

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

    def tuned_state(self) -> dict[str, Tensor]:
        """Return all that tuning has made: the trainable weights, or every expert's and the keys that lead to them."""
        return self.trainable_state() if self.router is None else self.router.tuned_state()

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

    def stock(self) -> AbstractContextManager[None]:
        """Have `hf` without the wrappers that let kept features pass."""
        return nullcontext() if self._vision is None else self._vision.stock()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that plain transformers loads; with LoRA, an adapter that plain peft loads onto the start.

        Raises:
            UserError: The model has a projection per task, which plain transformers knows nothing of; or weights
                outside of the LoRA adapter are tuned too, which an adapter has no place for.
        """
        check_can_be_saved(self)
        with self.stock():
            self.hf.save_pretrained(folder)
            self.processor.save_pretrained(folder)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Upload what `save_pretrained` writes, and return its address.

        Args:
            repo_id: ``user/name``; made where it does not exist.
            private: Whether a new repository is private; None for the account's own default.
            token: Of the user; None for the one that ``hf auth login`` keeps.

        Raises:
            UserError: As for `save_pretrained`; the user is not logged in, or the hub refuses or cannot be reached.

        Example:
            >>> model.push_to_hub("me/instructblip-after-five-tasks")
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload(folder, repo_id, private=private, token=token)

    def train(self, mode: bool = True) -> LMM:
        """Put what holds trainable weights, dropout included, in training mode; the rest stays in evaluation mode."""
        set_training(self, mode)
        return self

    def to(self, *args: Any, **kwargs: Any) -> LMM:
        """Move the model, unless it is quantised or spread over devices, which must stay where they are."""
        if {"hf_device_map", "hf_quantizer"} & vars(self.hf).keys():  # set by transformers on such models only
            return self
        super().to(*args, **kwargs)
        return self

    def _logits(self, batch: InstructionBatch) -> Tensor:
        labels = batch.labels
        if self.encoder_decoder:  # given the labels, stock models would compute the loss too
            language: Any = self.language_model
            before = language.prepare_decoder_input_ids_from_labels(labels)
            logits = self.hf(**self._images(batch), decoder_input_ids=before, **batch.inputs).logits
        else:
            output = self.hf(**self._images(batch), **batch.inputs, use_cache=False)
            # the logits at a position speak of the next token
            logits = nn.functional.pad(output.logits[:, :-1], (0, 0, 1, 0))
        counted: Tensor = logits.masked_fill((labels == IGNORED).unsqueeze(-1), 0.0)
        return counted.transpose(1, 2)

    def _answers(self, batch: InstructionBatch) -> list[str]:
        def answers(size: int) -> list[str]:
            parts = [batch] if size >= len(batch) else batch.split(size)
            return [text for part in parts for text in self._decoded(part)]

        return halving(answers, len(batch))

    def _decoded(self, batch: InstructionBatch) -> list[str]:
        tokens = self.hf.generate(
            **self._images(batch),
            **batch.prompt_inputs,
            max_new_tokens=max(task.max_new_tokens for task in batch.tasks),
            do_sample=False,
            num_beams=1,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            eos_token_id=list(self.collator.limits.end_tokens),
        )
        if not self.encoder_decoder:
            tokens = tokens[:, batch.prompt_inputs["input_ids"].shape[1] :]
        texts: list[str] = self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _images(self, batch: InstructionBatch) -> dict[str, Tensor]:
        """The model's image inputs, in its data type."""
        if self._vision is not None:
            return self._vision.inputs(batch, self.device)
        assert batch.images is not None
        return cast(batch.images.tensors, self.hf.dtype)
