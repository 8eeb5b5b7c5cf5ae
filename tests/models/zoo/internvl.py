"""InternVL: InternViT features, neighbours folded into one, before Qwen2."""

from transformers import (
    GenerationConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
)

from . import templates, tokenizers_of_letters
from .common import SIDE, WIDTH, Checkpoint, qwen2_config

PATCH = 8


def internvl() -> Checkpoint:
    """As InternVL3-hf: a picture is cut into up to two tiles, and then seen whole too."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = tokenizers_of_letters.qwen(named)
    size = {"height": SIDE, "width": SIDE}
    image_tokens = (SIDE // PATCH // 2) ** 2
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=2),
        tokenizer,
        InternVLVideoProcessor(size=size),
        image_seq_length=image_tokens,
        chat_template=templates.INTERNVL,
    )
    vision = InternVLVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=[SIDE, SIDE],
        patch_size=[PATCH, PATCH],
        attention_bias=True,
        layer_scale_init_value=1.0,
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=qwen2_config(tokenizer),
        image_token_id=processor.image_token_id,
        image_seq_length=image_tokens,
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model, processor
