"""Idefics3 and SmolVLM: SigLIP features, neighbours folded into one, before Llama."""

from typing import Any

from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from . import templates, tokenizers_of_letters
from .common import SIDE, WIDTH, Checkpoint, llama_config

PATCH = 8
FOLD = 2
SIZES = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
IMAGE_TOKENS = (SIDE // PATCH // FOLD) ** 2


def idefics3() -> Checkpoint:
    """As Idefics3-8B-Llama3: a picture is cut into up to 2 x 2 tiles, and seen whole."""
    tokenizer = tokenizers_of_letters.idefics3()
    processor = Idefics3Processor(
        Idefics3ImageProcessor(**SIZES), tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=templates.IDEFICS3
    )
    config = Idefics3Config(**_parts(tokenizer))
    return _ended(Idefics3ForConditionalGeneration(config), tokenizer), processor


def smolvlm() -> Checkpoint:
    """As SmolVLM2-Instruct, a picture seen whole only."""
    tokenizer = tokenizers_of_letters.smolvlm()
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**SIZES, do_image_splitting=False),
        tokenizer,
        SmolVLMVideoProcessor(**SIZES),
        image_seq_len=IMAGE_TOKENS,
        chat_template=templates.SMOLVLM,
    )
    config = SmolVLMConfig(**_parts(tokenizer))
    return _ended(SmolVLMForConditionalGeneration(config), tokenizer), processor


def _parts(tokenizer: Any) -> dict[str, Any]:
    return {
        "vision_config": VISION,
        "text_config": llama_config(tokenizer).to_dict(),
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": tokenizer.pad_token_id,
        "scale_factor": FOLD,
    }


def _ended(model: Any, tokenizer: Any) -> Any:
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model
