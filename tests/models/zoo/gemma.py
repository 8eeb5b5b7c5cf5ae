"""PaliGemma and Gemma 3: SigLIP before Gemma, whose prompt (PaliGemma) or pictures (Gemma 3) see both ways."""

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    GenerationConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
)

from . import templates, tokenizers_of_letters
from .common import DECODER, SIDE, WIDTH, Checkpoint, siglip_config, special_ids

PATCH = 8
MEAN = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def paligemma() -> Checkpoint:
    """As paligemma-pt: no chat template; the processor writes ``<image>`` tokens, ``<bos>``, the text, a line break."""
    tokenizer = tokenizers_of_letters.gemma(["<image>"])
    images = SiglipImageProcessor(size={"height": SIDE, "width": SIDE}, image_seq_length=(SIDE // PATCH) ** 2, **MEAN)
    processor = PaliGemmaProcessor(images, tokenizer)
    text = GemmaConfig(**DECODER, **special_ids(tokenizer), head_dim=16)
    config = PaliGemmaConfig(
        vision_config=siglip_config(PATCH),
        text_config=text,
        image_token_index=processor.image_token_id,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    model = PaliGemmaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model, processor


def gemma3() -> Checkpoint:
    """As gemma-3-it: one layer of sliding attention and one over everything, four tokens a picture."""
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = tokenizers_of_letters.gemma(named | {"sot_token": "<start_of_turn>", "eot_token": "<end_of_turn>"})
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}, **MEAN),
        tokenizer,
        chat_template=templates.GEMMA3,
        image_seq_length=4,
    )
    text = Gemma3TextConfig(
        **DECODER,
        **special_ids(tokenizer),
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    )
    config = Gemma3Config(
        vision_config=siglip_config(PATCH),
        text_config=text,
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )
    model = Gemma3ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.eot_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    return model, processor
