"""Tokenizers that spell any ASCII text letter by letter, each of its family's class and with its special tokens."""

from tokenizers import pre_tokenizers
from transformers import (
    BertTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

LONGEST = 384
"""Tokens of text that every model of the zoo takes."""

ASCII = [chr(code) for code in range(ord("!"), ord("~") + 1)]
BYTES = [*ASCII, *pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(" \n")[0][0]]
SENTENCE_PIECES = [*ASCII, "▁", "\n"]

CHAT_ML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
IDEFICS = ["<end_of_utterance>", "<fake_token_around_image>", "<global-img>", "<image>", "<video>"]
IDEFICS_GRID = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]


def bert() -> PreTrainedTokenizerFast:
    """Of InstructBLIP's Q-Former: lower case, ``[CLS]`` in front, ``[SEP]`` behind."""
    named = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    vocab = _numbered(named + ASCII + [f"##{letter}" for letter in ASCII])
    return BertTokenizer(vocab=vocab, bos_token="[DEC]", model_max_length=LONGEST)


def t5() -> PreTrainedTokenizerFast:
    """``</s>`` behind every text; line breaks count as spaces."""
    named = ["<pad>", "</s>", "<unk>"]
    scored = [(token, 0.0) for token in named] + [(token, -1.0) for token in SENTENCE_PIECES]
    return T5Tokenizer(vocab=scored, extra_ids=0, extra_special_tokens=["<image>"], model_max_length=LONGEST)


def llama(**special: str) -> PreTrainedTokenizerFast:
    """The beginning token, ``<s>`` unless told otherwise, in front; ``</s>`` ends an answer."""
    vocab = _numbered(["<unk>", "<s>", "</s>", *SENTENCE_PIECES])
    named = ["<unk>", "<s>", "<image>"]
    return LlamaTokenizer(
        vocab=vocab, add_bos_token=True, extra_special_tokens=named, model_max_length=LONGEST, **special
    )


def opt() -> PreTrainedTokenizerFast:
    """``</s>`` in front."""
    vocab = _numbered(["<s>", "<pad>", "</s>", "<unk>", *BYTES])
    return GPT2Tokenizer(
        vocab=vocab,
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
        add_bos_token=True,
        extra_special_tokens=["<s>", "<unk>", "<image>"],
        model_max_length=LONGEST,
    )


def qwen(special: list[str] | dict[str, str]) -> PreTrainedTokenizerFast:
    """Nothing in front or behind; ``<|im_end|>`` ends a turn, ``<|endoftext|>`` pads.

    Args:
        special: More special tokens; those with a name become attributes of the tokenizer.
    """
    tokenizer = Qwen2Tokenizer(
        vocab=_numbered([*BYTES, *CHAT_ML]),
        eos_token="<|im_end|>",
        extra_special_tokens=special,
        model_max_length=LONGEST,
    )
    tokenizer.add_tokens(CHAT_ML, special_tokens=True)
    return tokenizer


def smolvlm() -> PreTrainedTokenizerFast:
    """``<end_of_utterance>`` ends a turn, ``<|im_end|>`` pads; the chat template writes the beginning token."""
    return GPT2Tokenizer(
        vocab=_numbered([*CHAT_ML, *BYTES]),
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        extra_special_tokens=IDEFICS + IDEFICS_GRID,
        model_max_length=LONGEST,
    )


def idefics3() -> PreTrainedTokenizerFast:
    """``<|begin_of_text|>`` in front, ``<end_of_utterance>`` ends a turn."""
    return GPT2Tokenizer(
        vocab=_numbered(["<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", *BYTES]),
        bos_token="<|begin_of_text|>",
        eos_token="<end_of_utterance>",
        unk_token="<|end_of_text|>",
        pad_token="<|finetune_right_pad_id|>",
        add_bos_token=True,
        extra_special_tokens=IDEFICS + IDEFICS_GRID,
        model_max_length=LONGEST,
    )


def gemma(special: list[str] | dict[str, str]) -> PreTrainedTokenizerFast:
    """``<bos>`` in front; ``<eos>`` ends a text.

    Args:
        special: More special tokens; those with a name become attributes of the tokenizer.
    """
    vocab = _numbered(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *SENTENCE_PIECES])
    return GemmaTokenizer(vocab=vocab, add_bos_token=True, extra_special_tokens=special, model_max_length=LONGEST)


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}
