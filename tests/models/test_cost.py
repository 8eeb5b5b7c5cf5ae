"""The cost model counts what torch counts: exactly in a forward pass and in generation, nearly in training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForImageTextToText, LlavaConfig
from zoo import checkpoint

from avalanche_cit.errors import UserError
from avalanche_cit.models.cost import (
    ByPart,
    Tokens,
    cached_values,
    forward_operations,
    generation_operations,
    training_operations,
    weights,
)
from avalanche_cit.models.families import FAMILIES
from avalanche_cit.models.loading import model_folder
from avalanche_cit.models.trainable import select_trainable

MODELS = ("tiny-base", "instructblip_t5", "instructblip_llama", "blip2_t5", "blip2_opt")
TOKENS = Tokens(instruction=7, prompt=5, answer=3)


@pytest.fixture(scope="module", params=MODELS)
def hf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A stock model, whose attention is computed by plain products: other kernels compute some of them twice."""
    name: str = request.param
    folder = model_folder(name) if name.startswith("tiny-") else checkpoint(name, tmp_path_factory)
    return AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()


def inputs(hf: Any, tokens: Tokens) -> dict[str, torch.Tensor]:
    """What the stock model takes of one sample, answer left out."""
    config = hf.config
    side = config.vision_config.image_size
    ids = [config.image_token_id] * config.num_query_tokens + [5] * tokens.prompt
    asked = {"qformer_input_ids": torch.full((1, tokens.instruction), 5)} if config.model_type == "instructblip" else {}
    return {"pixel_values": torch.rand(1, 3, side, side), "input_ids": torch.tensor([ids]), **asked}


def loss(hf: Any, tokens: Tokens) -> torch.Tensor:
    given, labels = inputs(hf, tokens), torch.full((1, tokens.answer), 5)
    if not hf.config.get_text_config().is_encoder_decoder:
        given["input_ids"] = labels = torch.cat([given["input_ids"], labels], dim=1)
    result: torch.Tensor = hf(**given, labels=labels, use_cache=False).loss
    return result


def counted(work: Callable[[], object]) -> dict[str, int]:
    """What torch counts, by module."""
    with FlopCounterMode(display=False, depth=3) as counter:
        work()
    return {name: sum(by_kind.values()) for name, by_kind in counter.get_flop_counts().items()}


@pytest.mark.parametrize("tokens", [TOKENS, Tokens(instruction=2, prompt=9, answer=6)])
def test_forward_pass_of_each_part(hf: Any, tokens: Tokens) -> None:
    family = FAMILIES[hf.config.model_type]
    hf.requires_grad_(False)

    found = counted(lambda: loss(hf, tokens))

    vision, language = (found[f"{type(hf).__name__}.{part}"] for part in (family.vision, family.language))
    expected = ByPart(vision, found["Global"] - vision - language, language)
    assert forward_operations(hf.config, tokens) == expected


@pytest.mark.parametrize("answer", [1, 4])
def test_generation(hf: Any, answer: int) -> None:
    hf.requires_grad_(False)
    tokens = Tokens(instruction=7, prompt=5, answer=answer)
    sizes = {"min_new_tokens": answer, "max_new_tokens": answer}

    found = counted(lambda: hf.generate(**inputs(hf, tokens), do_sample=False, **sizes))

    expected = generation_operations(hf.config, tokens)
    assert expected.total == found["Global"]
    cached = generation_operations(hf.config, tokens, cached=True)
    assert (cached.vision, cached.bridge, cached.language) == (0, expected.bridge, expected.language)


@pytest.mark.parametrize("trainable", ["bridge", "projection"])
def test_training(hf: Any, trainable: str) -> None:
    """A little more than torch counts: the first layer of a frozen decoder has less to go back to."""
    select_trainable(hf, FAMILIES[hf.config.model_type], trainable, None)

    found = counted(lambda: loss(hf, TOKENS).backward())

    expected = training_operations(hf.config, TOKENS, trainable=trainable)
    assert 1 <= expected.total / found["Global"] < 1.03


def test_what_is_cached_is_not_computed(hf: Any) -> None:
    forward = forward_operations(hf.config, TOKENS)
    bridge, projection = (
        {cached: training_operations(hf.config, TOKENS, trainable=what, cached=cached) for cached in (False, True)}
        for what in ("bridge", "projection")
    )

    assert (bridge[False].vision, bridge[True].vision) == (forward.vision, 0)
    assert bridge[False].bridge == bridge[True].bridge
    width, text = hf.config.qformer_config.hidden_size, hf.config.get_text_config().hidden_size
    once = 2 * width * text * hf.config.num_query_tokens
    assert (projection[True].vision, projection[True].bridge) == (0, 2 * once)
    assert projection[False].bridge - projection[True].bridge == forward.bridge - once
    assert projection[True].language == bridge[False].language


def test_weights(hf: Any) -> None:
    found = weights(hf.config)

    assert found.total == sum(weight.numel() for weight in hf.parameters())
    assert found.vision == sum(weight.numel() for weight in hf.vision_model.parameters())
    assert found.language == sum(weight.numel() for weight in hf.language_model.parameters())


def test_cached_values(hf: Any) -> None:
    """As many as the parts put out."""
    given = inputs(hf, TOKENS)
    with torch.no_grad():
        image = hf.vision_model(pixel_values=given["pixel_values"]).last_hidden_state

    assert cached_values(hf.config) == image.numel()
    assert cached_values(hf.config, trainable="projection") == hf.query_tokens.numel() + image[:, 0].numel()


def test_what_is_not_known_is_refused(hf: Any) -> None:
    with pytest.raises(UserError, match="trainable part"):
        training_operations(hf.config, TOKENS, trainable="language")
    with pytest.raises(UserError, match="trainable part"):
        cached_values(hf.config, trainable="language")


@pytest.mark.parametrize("of", [lambda config: forward_operations(config, TOKENS), weights, cached_values])
def test_other_architectures_are_refused(of: Callable[[Any], object]) -> None:
    with pytest.raises(UserError, match="'llava'"):
        of(LlavaConfig())


def test_other_language_models_are_refused() -> None:
    config = AutoConfig.from_pretrained(model_folder("tiny-base"))
    config.text_config.model_type = "mamba"
    with pytest.raises(UserError, match="'mamba'"):
        forward_operations(config, TOKENS)
