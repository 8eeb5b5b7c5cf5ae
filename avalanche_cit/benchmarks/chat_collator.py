"""Mini-batches for decoder-only models whose processor puts the image tokens into a text: chat models and PaliGemma.

Needs no facts about the family: the processor's own chat template renders question and answer, and the processor
itself says how many tokens a picture takes and which other inputs come with it. What the answer's tokens are is read
off from the template: what it adds to the prompt when the answer is given, up to the token that ends a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from avalanche_cit.benchmarks.batch import ImageInputs, TextInputs, padded
from avalanche_cit.benchmarks.collator import InstructionCollator, check_images, decode_images, decoder_inputs, named
from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.errors import UserError

_TEXT = ("input_ids", "attention_mask")
_KINDS = ("token_type_ids", "mm_token_type_ids")  # of each token: image or text; prefix or answer


class ChatCollator(InstructionCollator):
    """Makes mini-batches for a model with a chat template.

    All images of a sample stand before its question, in order; a sample without an image is a question alone.
    """

    answer_kind: ClassVar[list[int]] = [0]  # text like any other

    def _encode(
        self, examples: Sequence[Example], prompts: Sequence[str], keys: Sequence[str | None]
    ) -> tuple[ImageInputs | None, TextInputs, TextInputs, Tensor]:
        tokenizer = self.processor.tokenizer
        pictures: list[dict[str, Tensor]] = []
        texts: list[dict[str, list[int]]] = []
        answers = []
        for example, prompt in zip(examples, prompts, strict=True):
            images = decode_images(example)
            asked, answered = self._texts(prompt, example.row["target"], len(images))
            options = {"add_special_tokens": not _starts_with(asked, tokenizer.bos_token)}
            try:
                encoded = self.processor(
                    images=[images] if images else None, text=[asked], return_tensors="pt", **options
                )
            except ValueError as error:  # a picture too thin, a chat template without a place for one
                reason = " ".join(str(error).split())
                raise UserError(f"{named(example)}: the model's processor refuses it ({reason})") from error
            texts.append({name: encoded[name][0].tolist() for name in encoded if name in ("input_ids", *_KINDS)})
            pictures.append({name: encoded[name] for name in encoded if name not in (*_TEXT, *_KINDS, "labels")})
            answers.append(self._answer_ids(asked, answered, example.row["target"], options))
            length = len(texts[-1]["input_ids"]) + max(len(answers[-1]), example.task.max_new_tokens)
            self._check_length(example, length)
        prompt_ids = [text["input_ids"] for text in texts]
        inputs, prompt_inputs, labels = decoder_inputs(prompt_ids, answers, tokenizer.pad_token_id)
        for name in _KINDS:
            if name in texts[0]:
                kinds = [text[name] for text in texts]
                whole = [kind + self.answer_kind * len(answer) for kind, answer in zip(kinds, answers, strict=True)]
                inputs[name], prompt_inputs[name] = padded(whole, 0), padded(kinds, 0, left=True)
        return ImageInputs.joined(pictures), inputs, prompt_inputs, labels

    def _texts(self, prompt: str, target: str, images: int) -> tuple[str, str]:
        """Render the question, and the question with its answer."""
        pictures: list[dict[str, str]] = [{"type": "image"}] * images
        question = {"role": "user", "content": [*pictures, {"type": "text", "text": prompt}]}
        answer = {"role": "assistant", "content": [{"type": "text", "text": target}]}
        return (
            self.processor.apply_chat_template([question], add_generation_prompt=True),
            self.processor.apply_chat_template([question, answer]),
        )

    def _answer_ids(self, asked: str, answered: str, target: str, options: dict[str, bool]) -> list[int]:
        """Tokens of the answer as they stand after the prompt, and the end token."""
        tokenizer = self.processor.tokenizer
        if answered.startswith(asked):
            # what a template writes after the end of a turn belongs to the next one
            prompt_ids, whole = tokenizer([asked, answered.rstrip()], **options)["input_ids"]
            if whole[: len(prompt_ids)] == prompt_ids:
                return self._ended(whole[len(prompt_ids) :])
        return self._ended(tokenizer(target, add_special_tokens=False)["input_ids"])


class PrefixCollator(ChatCollator):
    """Makes mini-batches for PaliGemma: image and question are a prefix that sees itself whole, the answer follows."""

    answer_kind: ClassVar[list[int]] = [1]  # not of the prefix

    def _encode(
        self, examples: Sequence[Example], prompts: Sequence[str], keys: Sequence[str | None]
    ) -> tuple[ImageInputs | None, TextInputs, TextInputs, Tensor]:
        for example in examples:
            check_images(example, several=True)
        return super()._encode(examples, prompts, keys)

    def _texts(self, prompt: str, target: str, images: int) -> tuple[str, str]:
        return f"{self.processor.image_token * images}{prompt}", target


def _starts_with(text: str, token: str | None) -> bool:
    return token is not None and text.startswith(token)
