"""Turns samples into mini-batches ``[InstructionBatch, labels, task_ids]``, Avalanche's (x, y, t).

A batch carries the tensors to train on and the prompt-only tensors to generate from, padded so that a batch answers
exactly as its samples would one by one: on the right for encoder-decoders and for training, on the left of everything,
image tokens included, where a decoder-only model generates. Nothing is ever truncated.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from avalanche_cit.benchmarks.batch import IGNORED, ImageInputs, InstructionBatch, MiniBatch, TextInputs, padded
from avalanche_cit.benchmarks.images import UnreadableImageError, decoded
from avalanche_cit.benchmarks.instruction_data import images_of
from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.errors import UserError

_IMAGES = ("image", "more_images")  # columns that batches leave out


class SampleTooLongError(UserError):
    """A sample has more tokens than the model takes."""


@dataclass(frozen=True)
class TextLimits:
    """What a model and its generation take.

    Attributes:
        max_tokens: Tokens of the language model's input at most, image and answer tokens included; None for no limit.
        end_tokens: Tokens that end an answer when the model generates.
    """

    max_tokens: int | None
    end_tokens: tuple[int, ...]


class InstructionCollator(ABC):
    """Makes mini-batches for one model; see its subclasses.

    Args:
        processor: The model's stock processor.
        limits: What the model takes.

    Raises:
        UserError: A sample is longer than the model takes, has an image that cannot be read, has no image or several
            where the model does not take that, or has a text with a token in it that stands for an image; the sample
            is named.
    """

    def __init__(self, processor: Any, limits: TextLimits) -> None:
        self.processor = processor
        self.limits = limits
        self._placeholders = _placeholders(processor)

    def __call__(self, samples: Sequence[Sequence[Any]]) -> MiniBatch:
        """Collate samples ``(Example, task_label)``."""
        examples: list[Example] = [sample[0] for sample in samples]
        task_ids = torch.tensor([sample[-1] for sample in samples], dtype=torch.long)
        prompts = [example.task.render(example.row) for example in examples]
        for example, prompt in zip(examples, prompts, strict=True):
            self._check_texts(example, prompt)
        keys = [image_key(example.row["image"]) for example in examples]
        images, inputs, prompt_inputs, labels = self._encode(examples, prompts, keys)
        batch = InstructionBatch(
            tasks=[example.task for example in examples],
            rows=[{name: example.row[name] for name in example.row if name not in _IMAGES} for example in examples],
            prompts=prompts,
            image_keys=keys,
            images=images,
            inputs=inputs,
            prompt_inputs=prompt_inputs,
            labels=labels,
            answer_tokens=(labels != IGNORED).sum(dim=1).tolist(),
        )
        return [batch, labels, task_ids]

    def check(self, example: Example) -> None:
        """Check that the model takes a sample.

        Raises:
            SampleTooLongError: It has too many tokens.
            UserError: See the class.
        """
        self([(example, 0)])

    @abstractmethod
    def _encode(
        self, examples: Sequence[Example], prompts: Sequence[str], keys: Sequence[str | None]
    ) -> tuple[ImageInputs | None, TextInputs, TextInputs, torch.Tensor]:
        """Return image inputs, text inputs to train on, text inputs to generate from, and labels."""

    def _check_texts(self, example: Example, prompt: str) -> None:
        """Check that no text would be taken for an image."""
        for what, text in (("text input", prompt), ("target", example.row["target"])):
            for token in self._placeholders:
                if token in text:
                    raise UserError(
                        f"{named(example)}: its {what} holds {token!r}, which the model takes for an image; write it "
                        "in another way"
                    )

    def _check_length(self, example: Example, tokens: int) -> None:
        """Check a sample's tokens, those of its answer included: of its own, or as many as may be generated."""
        limit = self.limits.max_tokens
        if limit is not None and tokens > limit:
            raise SampleTooLongError(
                f"{named(example)}: it has {tokens} tokens, those of image and "
                f"answer included, the model takes {limit}; shorten the prompt, use a smaller image or a smaller "
                "max_new_tokens, or leave such samples out with --on-bad-sample skip"
            )

    def _ended(self, answer: Sequence[int]) -> list[int]:
        """Return an answer's tokens and a token that ends it."""
        ends = self.limits.end_tokens
        if answer and answer[-1] in ends:
            return list(answer)
        own = self.processor.tokenizer.eos_token_id
        return [*answer, own if own in ends else ends[0]]


def decoder_inputs(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad: int
) -> tuple[TextInputs, TextInputs, torch.Tensor]:
    """Return a decoder-only model's text inputs to train on, text inputs to generate from, and labels."""
    whole = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    labels = [[IGNORED] * len(prompt) + list(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return with_mask(whole, pad), with_mask(prompts, pad, left=True), padded(labels, IGNORED)


def with_mask(rows: Sequence[Sequence[int]], pad: int, left: bool = False) -> TextInputs:
    """Return padded token ids and their attention mask."""
    mask = padded([[1] * len(row) for row in rows], 0, left)
    return {"input_ids": padded(rows, pad, left), "attention_mask": mask}


def image_key(image: dict[str, Any] | None) -> str | None:
    """Name an encoded image by its path, or by its content where it is embedded."""
    if image is None:
        return None
    if image["path"] is not None and image["bytes"] is None:
        return str(image["path"])
    return hashlib.sha256(image["bytes"]).hexdigest()


def named(example: Example) -> str:
    """Name a sample at the beginning of an error."""
    return f"task '{example.task.name}', sample '{example.row['id']}'"


def check_images(example: Example, *, several: bool) -> None:
    """Check a sample for a model that takes one image, or one at least.

    Raises:
        UserError: The sample has no image, or several where the model takes one.
    """
    images = len(images_of(example.row))
    if images == 1 or (images and several):
        return
    has = f"{images} images" if images else "no image"
    takes = "at least one image" if several else "one image"
    raise UserError(
        f"{named(example)}: it has {has}, the model takes {takes} for each sample; leave such samples out of the data, "
        "or take another model"
    )


def decode_image(example: Example) -> Image.Image:
    """Decode a sample's only image to RGB.

    Raises:
        UserError: There is no image, there are several, or it cannot be read; the message names the sample.
    """
    check_images(example, several=False)
    return decode_images(example)[0]


def decode_images(example: Example) -> list[Image.Image]:
    """Decode all images of a sample to RGB, in order; none where it has none.

    Raises:
        UserError: An image cannot be read; the message names the sample.
    """
    images = []
    for image in images_of(example.row):
        try:
            images.append(decoded(image))
        except UnreadableImageError as error:
            raise UserError(
                f"{named(example)}: cannot read the image {image['path']}: "
                f"{error}; mend the file, or leave such samples out with --on-bad-sample skip"
            ) from error
    return images


def _placeholders(processor: Any) -> list[str]:
    """Return the texts that a processor, or the model, takes for an image or a video."""
    tokens = [str(token) for token in processor.all_special_multimodal_tokens]
    ids = [token for token in (*processor.image_token_ids, *processor.video_token_ids) if token is not None]
    return list(dict.fromkeys([*tokens, *processor.tokenizer.convert_ids_to_tokens(ids)]))
