"""The architecture of the shipped tiny models: a stock `InstructBlipForConditionalGeneration` of 2.5 M parameters.

Four of transformers' default initialisations keep a model of this size from learning at all; they are replaced here:
the vision tower starts at zero, all query tokens start equal, the projection starts too small, and learned positions
start too weak for the tower to tell where things are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

IMAGE_SIDE = 64
PATCH = 8
WIDTH = 128
QUERY_TOKENS = 16
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>", "<image>")
MAX_TEXT_TOKENS = 512


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Build a tokenizer of whole words that falls back to bytes.

    Every word of `texts` is one token; any other text becomes its UTF-8 bytes, so nothing is ever unknown and
    decoding gives back exactly what was encoded.

    Args:
        texts: Text whose words get tokens of their own.

    Example:
        >>> tokenizer = build_tokenizer(["a red circle"])
        >>> tokenizer.decode(tokenizer("a ünknown circle").input_ids, skip_special_tokens=True)
        ' a ünknown circle'
    """
    split = pre_tokenizers.ByteLevel(add_prefix_space=True)
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*SPECIAL_TOKENS, *letters, *words]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TEXT_TOKENS - QUERY_TOKENS,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> InstructBlipProcessor:
    """Build the processor: 64 x 64 images scaled to [-1, 1], one tokenizer for Q-Former and language model."""
    images = BlipImageProcessor(
        size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return InstructBlipProcessor(images, tokenizer, tokenizer, num_query_tokens=QUERY_TOKENS)


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> InstructBlipForConditionalGeneration:
    """Build the untrained model, its initial weights fixed by the seed."""
    vision = InstructBlipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_SIDE,
        patch_size=PATCH,
        initializer_range=0.02,
    )
    qformer = InstructBlipQFormerConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=4 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        cross_attention_frequency=1,
        encoder_hidden_size=WIDTH,
        max_position_embeddings=MAX_TEXT_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
    )
    text = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=32,
        d_ff=4 * WIDTH,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    config = InstructBlipConfig(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=QUERY_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(seed)
    model = InstructBlipForConditionalGeneration(config)
    _initialise(model)
    return model


@torch.no_grad()
def _initialise(model: InstructBlipForConditionalGeneration) -> None:
    for name, weight in model.vision_model.named_parameters():
        if weight.ndim >= 2 and "embedding" not in name:
            weight.normal_(0, 0.06)
    embeddings = model.vision_model.embeddings
    embeddings.patch_embedding.weight.normal_(0, 0.06)
    embeddings.class_embedding.normal_(0, 0.06)
    embeddings.position_embedding[:, 0] = 0
    embeddings.position_embedding[:, 1:] = 0.4 * _sine_positions(IMAGE_SIDE // PATCH, WIDTH)
    model.query_tokens.normal_(0, 1)
    model.language_projection.weight.normal_(0, WIDTH**-0.5)


def _sine_positions(side: int, width: int) -> torch.Tensor:
    """Two-dimensional sine-cosine positions, (side * side, width)."""
    frequencies = torch.exp(-math.log(100.0) * torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies
    one = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = one[:, None].expand(side, side, -1), one[None, :].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)
