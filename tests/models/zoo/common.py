"""What the families share: sizes, language models that several have, and weights drawn wide."""

from typing import Any

import torch
from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, SiglipVisionConfig

from .tokenizers_of_letters import LONGEST

SIDE = 32
WIDTH = 32

Checkpoint = tuple[Any, Any]
"""A stock model and its stock processor."""

EMBEDDING, GAIN = 0.05, 2.0
"""Standard deviation of embeddings, and of what a matrix makes of inputs of unit variance."""

DECODER = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": LONGEST,
}
"""Of language models alike: two heads of width 16 share one key."""


def special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    """The vocabulary's size and the ids that a configuration of a language model names."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def llama_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Of Vicuna, and of what SmolVLM and Idefics3 speak with."""
    return LlamaConfig(**DECODER, **special_ids(tokenizer), tie_word_embeddings=False)


def qwen2_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    """Of what LLaVA-OneVision and InternVL speak with."""
    return Qwen2Config(**DECODER, **special_ids(tokenizer), tie_word_embeddings=False)


def siglip_config(patch_size: int) -> SiglipVisionConfig:
    """Of a SigLIP tower without its pooling head."""
    return SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=patch_size,
        vision_use_head=False,
    )


@torch.no_grad()
def widen(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Draw all matrices anew, so wide that greedy answers differ between pictures and the best two logits never tie.

    Vectors (norms, biases, layer scales) keep their initialisation. Answers are made of letters: of all special
    tokens only the first end token is ever the likeliest, and that often enough for answers to end at several lengths.

    Args:
        model: The model, changed in place.
        tokenizer: Its tokenizer.
    """
    embeddings = {module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    for weight in model.parameters():
        if weight.ndim > 1:
            scale = EMBEDDING if weight in embeddings else GAIN * weight[0].numel() ** -0.5
            weight.normal_(0, scale)
    head = model.get_output_embeddings().weight
    ends = model.generation_config.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends
    silent = {*tokenizer.get_added_vocab().values(), *tokenizer.all_special_ids} - {end}
    head[sorted(silent)] = 0
    head[end] *= 2
