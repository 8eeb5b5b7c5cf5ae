"""BLIP-2 and InstructBLIP: a Q-Former between an EVA-like tower and T5, OPT or Llama."""

from typing import Any

from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    GenerationConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from . import tokenizers_of_letters
from .common import SIDE, WIDTH, Checkpoint, llama_config

QUERY_TOKENS = 4
LAYER = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VISION = LAYER | {"image_size": SIDE, "patch_size": 8}
QFORMER = LAYER | {
    "cross_attention_frequency": 2,
    "encoder_hidden_size": WIDTH,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def instructblip_t5() -> Checkpoint:
    """As instructblip-flan-t5."""
    tokenizer = tokenizers_of_letters.t5()
    return _instructblip(tokenizer, _t5(tokenizer))


def instructblip_llama() -> Checkpoint:
    """As instructblip-vicuna, whose tokenizer has ``</s>`` for beginning, end and unknown."""
    tokenizer = tokenizers_of_letters.llama(bos_token="</s>", unk_token="</s>", pad_token="[PAD]")
    return _instructblip(tokenizer, llama_config(tokenizer))


def blip2_t5() -> Checkpoint:
    """As blip2-flan-t5."""
    tokenizer = tokenizers_of_letters.t5()
    return _blip2(tokenizer, _t5(tokenizer))


def blip2_opt() -> Checkpoint:
    """As blip2-opt, which ends an answer with a line break."""
    tokenizer = tokenizers_of_letters.opt()
    text = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        ffn_dim=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizers_of_letters.LONGEST,
        dropout=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.encode("\n", add_special_tokens=False)[0],
        pad_token_id=tokenizer.pad_token_id,
    )
    return _blip2(tokenizer, text)


def _instructblip(tokenizer: PreTrainedTokenizerFast, text: PreTrainedConfig) -> Checkpoint:
    asks = tokenizers_of_letters.bert()
    processor = InstructBlipProcessor(_images(), tokenizer, asks, num_query_tokens=QUERY_TOKENS)
    qformer = QFORMER | {
        "vocab_size": len(asks),
        "max_position_embeddings": tokenizers_of_letters.LONGEST,
        "pad_token_id": asks.pad_token_id,
    }
    config = InstructBlipConfig(qformer_config=qformer, **_parts(tokenizer, text))
    return _ended(InstructBlipForConditionalGeneration(config), text), processor


def _blip2(tokenizer: PreTrainedTokenizerFast, text: PreTrainedConfig) -> Checkpoint:
    processor = Blip2Processor(_images(), tokenizer, num_query_tokens=QUERY_TOKENS)
    config = Blip2Config(qformer_config=QFORMER | {"vocab_size": 30}, **_parts(tokenizer, text))
    return _ended(Blip2ForConditionalGeneration(config), text), processor


def _parts(tokenizer: PreTrainedTokenizerFast, text: PreTrainedConfig) -> dict[str, Any]:
    return {
        "vision_config": VISION,
        "text_config": text.to_dict(),
        "num_query_tokens": QUERY_TOKENS,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
    }


def _ended(model: Any, text: PreTrainedConfig) -> Any:
    start = {"decoder_start_token_id": text.pad_token_id} if text.is_encoder_decoder else {}
    model.generation_config = GenerationConfig(eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id, **start)
    return model


def _images() -> BlipImageProcessor:
    return BlipImageProcessor(size={"height": SIDE, "width": SIDE})


def _t5(tokenizer: PreTrainedTokenizerFast) -> T5Config:
    return T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=16,
        d_ff=2 * WIDTH,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
