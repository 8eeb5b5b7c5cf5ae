"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, positions in three dimensions."""

from typing import Any

from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from . import templates, tokenizers_of_letters
from .common import DECODER, WIDTH, Checkpoint, special_ids

PATCH = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
PIXELS = {"shortest_edge": 2 * 8 * 8, "longest_edge": 12 * 8 * 8}
"""From 2 to 12 image tokens, each of 8 x 8 pixels."""

VISION = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
POSITIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}


def qwen2_vl() -> Checkpoint:
    """As Qwen2-VL-Instruct."""
    tokenizer, images, videos = _inputs()
    processor = Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(**videos), chat_template=templates.QWEN2_VL)
    config = Qwen2VLConfig(
        vision_config=VISION | {"embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 2},
        text_config=DECODER | special_ids(tokenizer) | {"rope_parameters": POSITIONS},
        **_image_ids(tokenizer),
    )
    return _ended(Qwen2VLForConditionalGeneration(config), tokenizer), processor


def qwen2_5_vl() -> Checkpoint:
    """As Qwen2.5-VL-Instruct: attention in windows in the tower's first layer, over the whole picture in the second."""
    tokenizer, images, videos = _inputs()
    processor = Qwen2_5_VLProcessor(
        images, tokenizer, Qwen2VLVideoProcessor(**videos), chat_template=templates.QWEN2_VL
    )
    vision = VISION | {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "out_hidden_size": WIDTH,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=DECODER | special_ids(tokenizer) | {"rope_parameters": POSITIONS},
        **_image_ids(tokenizer),
    )
    return _ended(Qwen2_5_VLForConditionalGeneration(config), tokenizer), processor


def qwen3_vl() -> Checkpoint:
    """As Qwen3-VL-Instruct: features of the tower's first layer enter the language model's first layer too."""
    tokenizer, images, videos = _inputs()
    processor = Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(**videos), chat_template=templates.QWEN3_VL)
    vision = VISION | {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    positions = POSITIONS | {"mrope_interleaved": True}
    config = Qwen3VLConfig(
        vision_config=vision,
        text_config=DECODER | special_ids(tokenizer) | {"head_dim": 16, "rope_parameters": positions},
        **_image_ids(tokenizer),
    )
    return _ended(Qwen3VLForConditionalGeneration(config), tokenizer), processor


def _inputs() -> tuple[Any, Any, dict[str, Any]]:
    tokenizer = tokenizers_of_letters.qwen(tokenizers_of_letters.QWEN_VISION)
    return tokenizer, Qwen2VLImageProcessor(size=PIXELS, **PATCH), {"size": PIXELS, **PATCH}


def _image_ids(tokenizer: Any) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _ended(model: Any, tokenizer: Any) -> Any:
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    return model
