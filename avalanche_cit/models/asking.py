"""How a model is asked: which collator makes its batches, what ends its answers, and how much it takes."""

from __future__ import annotations

from typing import Any

from avalanche_cit.benchmarks.chat_collator import ChatCollator, PrefixCollator
from avalanche_cit.benchmarks.collator import InstructionCollator, TextLimits
from avalanche_cit.benchmarks.qformer_collator import QFormerCollator
from avalanche_cit.models.families import Family


def make_collator(hf: Any, processor: Any, family: Family | None) -> InstructionCollator:
    """Make the collator of a stock model; one that is not known is asked by its chat template.

    Args:
        hf, processor: The stock model and its processor.
        family: The model's family, or None.
    """
    text_config = hf.config.get_text_config()
    limits = TextLimits(text_config.to_dict().get("max_position_embeddings"), end_tokens(hf, processor))
    match "chat" if family is None else family.prompt:
        case "qformer":
            reads_text = hf.config.model_type == "instructblip"
            return QFormerCollator(
                processor,
                limits,
                encoder_decoder=bool(text_config.is_encoder_decoder),
                max_instruction_tokens=hf.config.qformer_config.max_position_embeddings if reads_text else None,
            )
        case "prefix":
            return PrefixCollator(processor, limits)
        case _:
            return ChatCollator(processor, limits)


def end_tokens(hf: Any, processor: Any) -> tuple[int, ...]:
    """Return the tokens that end an answer when the stock model generates; its tokenizer's own where it names none."""
    ends = hf.generation_config.eos_token_id
    if ends is None:
        return (processor.tokenizer.eos_token_id,)
    return tuple(ends) if isinstance(ends, list) else (ends,)
