"""Mini-batches for BLIP-2 and InstructBLIP: a fixed number of image tokens before the prompt, no chat template."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from torch import Tensor

from avalanche_cit.benchmarks.batch import IGNORED, ImageInputs, TextInputs, padded
from avalanche_cit.benchmarks.collator import (
    InstructionCollator,
    SampleTooLongError,
    TextLimits,
    check_images,
    decode_image,
    decoder_inputs,
    image_key,
    named,
    with_mask,
)
from avalanche_cit.benchmarks.scenario import Example

SampleKey = tuple[str, str]
"""What a frozen part of the model sees of a sample: its image (`image_key`), and its prompt, empty where that is none
of it."""


class QFormerCollator(InstructionCollator):
    """Makes mini-batches for a model with a Q-Former.

    Args:
        processor: The model's stock processor.
        limits: What the language model takes.
        encoder_decoder: Whether the language model is an encoder-decoder.
        max_instruction_tokens: Tokens of text that the Q-Former reads at most, in its own tokenizer's count; None
            where it reads no text (BLIP-2).
    """

    def __init__(
        self,
        processor: Any,
        limits: TextLimits,
        *,
        encoder_decoder: bool,
        max_instruction_tokens: int | None,
    ) -> None:
        super().__init__(processor, limits)
        self.encoder_decoder = encoder_decoder
        self.max_instruction_tokens = max_instruction_tokens
        self._known: Container[SampleKey] = ()
        self._by_prompt = False

    @property
    def reads_text(self) -> bool:
        """Whether the Q-Former reads the prompt."""
        return self.max_instruction_tokens is not None

    def leave_out_images(self, known: Container[SampleKey], *, by_prompt: bool) -> None:
        """Leave out images that need no decoding, because what the frozen part of the model makes of them is known.

        Args:
            known: Keys of images, or of samples; may grow.
            by_prompt: Whether the prompt is part of the keys.
        """
        self._known = known
        self._by_prompt = by_prompt

    def key(self, example: Example) -> SampleKey:
        """Return the key of a sample that may be known."""
        prompt = example.task.render(example.row) if self._by_prompt else ""
        return self.known_as(image_key(example.row["image"]), prompt)

    def known_as(self, image: str | None, prompt: str) -> SampleKey:
        """Return the key of a sample that may be known, by its image's key and its prompt."""
        return image or "", prompt if self._by_prompt else ""

    def check(self, example: Example) -> None:
        """Check that the model takes a sample; its image, whose tokens are always as many, is not looked at."""
        prompts = [example.task.render(example.row)]
        self._text([example], prompts)
        self.instructions([example])

    def pixel_values(self, examples: Sequence[Example]) -> Tensor:
        """Decode and preprocess images, (B, C, H, W)."""
        images = [decode_image(example) for example in examples]
        pixels: Tensor = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
        return pixels

    def _encode(
        self, examples: Sequence[Example], prompts: Sequence[str], keys: Sequence[str | None]
    ) -> tuple[ImageInputs | None, TextInputs, TextInputs, Tensor]:
        for example in examples:
            check_images(example, several=False)
        counts = [int(self.known_as(*seen) not in self._known) for seen in zip(keys, prompts, strict=True)]
        images = None
        if any(counts):
            pixels = self.pixel_values([example for example, count in zip(examples, counts, strict=True) if count])
            images = ImageInputs({"pixel_values": pixels}, {"pixel_values": counts})
        inputs, prompt_inputs, labels = self._text(examples, prompts)
        instruction = self._instruction(examples)
        return images, instruction | inputs, instruction | prompt_inputs, labels

    def _text(self, examples: Sequence[Example], prompts: Sequence[str]) -> tuple[TextInputs, TextInputs, Tensor]:
        tokenizer = self.processor.tokenizer
        image_id = tokenizer.convert_tokens_to_ids(str(self.processor.image_token))
        image_tokens = [image_id] * self.processor.num_query_tokens
        prompt_ids = [self._prompt_ids(ids) for ids in tokenizer(list(prompts))["input_ids"]]
        targets = [example.row["target"] for example in examples]
        before = [image_tokens + ids for ids in prompt_ids]
        if self.encoder_decoder:
            for example, ids in zip(examples, before, strict=True):
                self._check_length(example, len(ids))
            prompt_inputs = with_mask(before, tokenizer.pad_token_id)
            return prompt_inputs, prompt_inputs, padded(tokenizer(targets)["input_ids"], IGNORED)
        answers = [
            self._answer_ids(prompt, ids, target)
            for prompt, ids, target in zip(prompts, prompt_ids, targets, strict=True)
        ]
        for example, ids, answer in zip(examples, before, answers, strict=True):
            self._check_length(example, len(ids) + max(len(answer), example.task.max_new_tokens))
        return decoder_inputs(before, answers, tokenizer.pad_token_id)

    def instructions(self, examples: Sequence[Example]) -> list[list[int]]:
        """Return the tokens that the Q-Former reads of each sample; none where it reads no text.

        Raises:
            SampleTooLongError: They are more than it takes.
        """
        if self.max_instruction_tokens is None:
            return [[] for _ in examples]
        prompts = [example.task.render(example.row) for example in examples]
        rows: list[list[int]] = self.processor.qformer_tokenizer(prompts)["input_ids"]
        for example, ids in zip(examples, rows, strict=True):
            if len(ids) > self.max_instruction_tokens:
                raise SampleTooLongError(
                    f"{named(example)}: its text input has {len(ids)} tokens, "
                    f"the model takes {self.max_instruction_tokens}; shorten the prompt, or leave such samples out "
                    "with --on-bad-sample skip"
                )
        return rows

    def _instruction(self, examples: Sequence[Example]) -> TextInputs:
        """What the Q-Former reads."""
        if not self.reads_text:
            return {}
        inputs = with_mask(self.instructions(examples), self.processor.qformer_tokenizer.pad_token_id)
        return {f"qformer_{name}": tensor for name, tensor in inputs.items()}

    def _prompt_ids(self, ids: list[int]) -> list[int]:
        """A decoder-only model goes on writing after its prompt, so an end token that a tokenizer adds is cut off."""
        ends = not self.encoder_decoder and len(ids) > 1 and ids[-1] == self.processor.tokenizer.eos_token_id
        return ids[:-1] if ends else ids

    def _answer_ids(self, prompt: str, prompt_ids: list[int], target: str) -> list[int]:
        """Tokens of the answer as they stand after the prompt, and the end token."""
        tokenizer = self.processor.tokenizer
        whole = self._prompt_ids(tokenizer(f"{prompt} {target}")["input_ids"])
        follows = whole[: len(prompt_ids)] == prompt_ids
        answer = whole[len(prompt_ids) :] if follows else tokenizer(target, add_special_tokens=False)["input_ids"]
        return self._ended(answer)
