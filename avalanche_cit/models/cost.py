"""What BLIP-2 and InstructBLIP cost per sample, from their stock configuration alone: operations, weights, bytes.

A multiplication and an addition count as two operations. A matrix of w weights that n tokens pass through takes 2 w n
of them; attention of width d over p pairs of tokens takes 4 d p. All else (norms, activations, softmax, the loss) is
left out, as it is by ``torch.utils.flop_counter``, with which the tests compare.

A training step has a backward pass too, whose parts cost once the forward pass each: one for the gradients of weights,
one for those of their inputs. So a tuned part costs three times its forward pass, and a frozen one behind it twice;
attention between tokens that both have gradients costs three times in either case. What lies before the first tuned
weight has no backward pass, and none of the forward pass either once its outputs are cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from avalanche_cit.errors import unknown_name
from avalanche_cit.models.families import FAMILIES

CHANNELS = 3


@dataclass(frozen=True)
class Tokens:
    """Lengths of one sample in tokens.

    Attributes:
        instruction: What the Q-Former reads beside its query tokens; 0 for BLIP-2.
        prompt: What the language model reads beside the image's tokens.
        answer: What is learned or generated, its end token included.
    """

    instruction: int
    prompt: int
    answer: int


@dataclass(frozen=True)
class ByPart:
    """A number for each of the three parts of a model."""

    vision: int
    bridge: int
    language: int

    @property
    def total(self) -> int:
        """Their sum."""
        return self.vision + self.bridge + self.language


@dataclass(frozen=True)
class _Work:
    """Operations of a forward pass: with weights, and between tokens."""

    linear: int
    attention: int = 0

    def __add__(self, other: _Work) -> _Work:
        return _Work(self.linear + other.linear, self.attention + other.attention)

    @property
    def forward(self) -> int:
        return self.linear + self.attention

    @property
    def tuned(self) -> int:
        """Forward, gradients of weights, gradients of inputs."""
        return 3 * self.linear + 3 * self.attention

    @property
    def passed_through(self) -> int:
        """Forward, gradients of inputs."""
        return 2 * self.linear + 3 * self.attention


def forward_operations(config: Any, tokens: Tokens) -> ByPart:
    """Return the operations of a forward pass over one sample.

    Args:
        config: Stock configuration of a BLIP-2 or InstructBLIP with T5, OPT or Llama.
        tokens: Lengths of the sample.

    Raises:
        UserError: The architecture, or that of its language model, is another one.

    Example:
        >>> config = AutoConfig.from_pretrained("Salesforce/instructblip-flan-t5-xl")
        >>> forward_operations(config, Tokens(instruction=16, prompt=16, answer=4)).vision
        520719260160
    """
    own, keys, projection = _bridge(config, tokens)
    bridge = (own + keys + projection).forward
    return ByPart(_vision(config).forward, bridge, _language(config, tokens).forward)


def training_operations(config: Any, tokens: Tokens, *, trainable: str = "bridge", cached: bool = False) -> ByPart:
    """Return the operations of forward and backward pass over one sample.

    Args:
        config, tokens: See `forward_operations`.
        trainable: What is tuned: ``"bridge"``, or ``"projection"``, which is what EProj copies.
        cached: What lies before the first tuned weight is read and not computed: the vision tower, and the Q-Former
            too where the projection is tuned.

    Raises:
        UserError: See `forward_operations`; or something else is tuned.
    """
    own, keys, projection = _bridge(config, tokens)
    vision = 0 if cached else _vision(config).forward
    if trainable == "bridge":
        # the image's features, from which keys and values are made, have no gradients
        bridge = own.tuned + 2 * keys.linear + projection.tuned
    elif trainable == "projection":
        bridge = 2 * projection.linear + (0 if cached else (own + keys).forward)
    else:
        raise unknown_name("trainable part with a cost model", trainable, ("bridge", "projection"))
    return ByPart(vision, bridge, _language(config, tokens).passed_through)


def generation_operations(config: Any, tokens: Tokens, *, cached: bool = False) -> ByPart:
    """Return the operations of answering one sample, token by token with a cache of keys and values.

    Args:
        config, tokens: See `forward_operations`.
        cached: The vision tower's features are read and not computed.

    Raises:
        UserError: See `forward_operations`.
    """
    own, keys, projection = _bridge(config, tokens)
    vision = 0 if cached else _vision(config).forward
    return ByPart(vision, (own + keys + projection).forward, _language(config, tokens, by_token=True).forward)


def weights(config: Any) -> ByPart:
    """Return the number of weights, embeddings and norms included; no memory is taken.

    Raises:
        UserError: See `forward_operations`.
    """
    family = FAMILIES[_known(config)]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}

    def held(*prefixes: str) -> int:
        return sum(size for name, size in sizes.items() if name.startswith(prefixes))

    return ByPart(held(f"{family.vision}."), held(*family.bridge), held(f"{family.language}."))


def cached_values(config: Any, *, trainable: str = "bridge") -> int:
    """Return how many numbers are cached: per image where the bridge is tuned, per sample where the projection is.

    With the projection tuned these are the Q-Former's outputs and the image's class token, which chooses the expert.

    Raises:
        UserError: See `training_operations`.
    """
    _known(config)
    width = config.vision_config.hidden_size
    if trainable == "bridge":
        return int(_image_tokens(config) * width)
    if trainable == "projection":
        return int(config.num_query_tokens * config.qformer_config.hidden_size + width)
    raise unknown_name("trainable part with a cost model", trainable, ("bridge", "projection"))


def _known(config: Any) -> str:
    known = ("blip-2", "instructblip")
    if config.model_type not in known:
        raise unknown_name("architecture with a cost model", config.model_type, known)
    return str(config.model_type)


def _image_tokens(config: Any) -> int:
    """Patches and class token."""
    vision = config.vision_config
    return int((vision.image_size // vision.patch_size) ** 2 + 1)


def _vision(config: Any) -> _Work:
    _known(config)
    vision, tokens = config.vision_config, _image_tokens(config)
    width, layers = vision.hidden_size, vision.num_hidden_layers
    patches = _dense(CHANNELS * vision.patch_size**2 * width, tokens - 1)
    matrices = layers * (4 * width**2 + 2 * width * vision.intermediate_size)
    return patches + _dense(matrices, tokens) + _attention(layers * width, tokens**2)


def _bridge(config: Any, tokens: Tokens) -> tuple[_Work, _Work, _Work]:
    """The Q-Former without, and for, what it makes of the image's features: keys and values; and the projection."""
    reads_text = _known(config) == "instructblip"
    former, image, queries = config.qformer_config, _image_tokens(config), config.num_query_tokens
    width, layers = former.hidden_size, former.num_hidden_layers
    looking = -(-layers // former.cross_attention_frequency)  # layers that look at the image
    read = queries + (tokens.instruction if reads_text else 0)
    own = (
        _dense(layers * (4 * width**2 + 2 * width * former.intermediate_size), read)
        + _attention(layers * width, read**2)
        + _dense(looking * 2 * width**2, queries)
        + _attention(looking * width, queries * image)
    )
    keys = _dense(looking * 2 * width * former.encoder_hidden_size, image)
    return own, keys, _dense(width * config.get_text_config().hidden_size, queries)


def _language(config: Any, tokens: Tokens, *, by_token: bool = False) -> _Work:
    """The language model, over a whole answer at once or token by token."""
    text = config.get_text_config()
    known = {"t5": _t5, "opt": _opt, "llama": _llama}
    if text.model_type not in known:
        raise unknown_name("language model with a cost model", text.model_type, known)
    return known[text.model_type](text, config.num_query_tokens + tokens.prompt, tokens.answer, by_token)


def _t5(text: Any, read: int, answer: int, by_token: bool) -> _Work:
    width, inner = text.d_model, text.num_heads * text.d_kv
    layer = 4 * width * inner + (3 if text.is_gated_act else 2) * width * text.d_ff
    layers = text.num_decoder_layers
    pairs = answer * (answer + 1) // 2 if by_token else answer**2
    return (
        _dense(text.num_layers * layer, read)
        + _attention(text.num_layers * inner, read**2)
        + _dense(layers * layer, answer)
        + _attention(layers * inner, pairs)
        + _dense(layers * 2 * width * inner, answer)
        + _dense(layers * 2 * width * inner, read)
        + _attention(layers * inner, answer * read)
        + _dense(width * text.vocab_size, answer)
    )


def _opt(text: Any, read: int, answer: int, by_token: bool) -> _Work:
    width = text.hidden_size
    return _decoder(text, 4 * width**2 + 2 * width * text.ffn_dim, width, read, answer, by_token)


def _llama(text: Any, read: int, answer: int, by_token: bool) -> _Work:
    width, inner = text.hidden_size, text.num_attention_heads * text.head_dim
    shared = text.num_key_value_heads * text.head_dim
    layer = 2 * width * inner + 2 * width * shared + 3 * width * text.intermediate_size
    return _decoder(text, layer, inner, read, answer, by_token)


def _decoder(text: Any, layer: int, inner: int, read: int, answer: int, by_token: bool) -> _Work:
    """A decoder-only model, whose head is asked at every position in training and at the last one in generation."""
    if by_token:  # the last token is answered and not read again
        tokens, asked = read + answer - 1, answer
        pairs = read**2 + sum(read + i for i in range(1, answer))
    else:
        tokens = asked = read + answer
        pairs = tokens**2
    layers = text.num_hidden_layers
    head = _dense(text.hidden_size * text.vocab_size, asked)
    return _dense(layers * layer, tokens) + _attention(layers * inner, pairs) + head


def _dense(weights: int, tokens: int) -> _Work:
    return _Work(2 * weights * tokens)


def _attention(width: int, pairs: int) -> _Work:
    return _Work(0, 4 * width * pairs)
