"""The cache of vision features changes the time that things take, and nothing else."""

from collections.abc import Callable
from typing import Any

import torch
from avalanche.benchmarks import CLScenario

from avalanche_cit.models import LMM, VisionFeatures
from avalanche_cit.models.frozen_prefix import FeaturesOrPixels, tower_features


def prepared(load: Callable[..., LMM], kind: str, benchmark: CLScenario, features: VisionFeatures) -> LMM:
    model = load(kind, vision_features=features)
    for experience in benchmark.test_stream:
        model.prepare(experience.dataset)
    return model


def test_logits_answers_and_embeddings_are_those_without_the_cache(
    load: Callable[..., LMM], kind: str, benchmark: CLScenario, samples: list[Any]
) -> None:
    plain = load(kind)
    cached = prepared(load, kind, benchmark, VisionFeatures())
    x, _, _ = plain.collator(samples)
    known, _, _ = cached.collator(samples)

    assert x.images is not None
    assert known.images is None
    torch.testing.assert_close(cached(known), plain(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cached.embed_images(known), plain.embed_images(x), rtol=1e-5, atol=1e-5)
    assert cached.generate(known) == plain.generate(x)


def test_the_tower_sees_every_image_once(
    load: Callable[..., LMM], kind: str, benchmark: CLScenario, samples: list[Any]
) -> None:
    features = VisionFeatures()
    model = load(kind, vision_features=features)
    calls = []
    tower = model.hf.vision_model
    assert isinstance(tower, FeaturesOrPixels)
    tower.tower.register_forward_hook(lambda *_: calls.append(1))

    for _ in range(2):
        for experience in benchmark.test_stream:
            model.prepare(experience.dataset)
        x, _, _ = model.collator(samples)
        model(x)
        model.generate(x)

    assert len(calls) == len(benchmark.test_stream)
    assert len(features) == len(samples)


def test_a_feature_does_not_depend_on_its_company(load: Callable[..., LMM], samples: list[Any]) -> None:
    model = load()
    pixels = model.collator(samples)[0].images.tensors["pixel_values"]
    tower = model.hf.vision_model

    together = tower_features(tower, pixels)

    assert torch.equal(tower_features(tower, pixels[3:4])[0], together[3])
    assert torch.equal(tower_features(tower, pixels.flip(0)).flip(0), together)


def test_images_beyond_the_memory_run_through_the_tower(
    load: Callable[..., LMM], kind: str, benchmark: CLScenario, samples: list[Any]
) -> None:
    features = VisionFeatures(max_bytes=1)
    cached = prepared(load, kind, benchmark, features)
    plain = load(kind)
    x, _, _ = cached.collator(samples)

    assert len(features) == 1
    assert features.full
    assert x.images is not None
    assert torch.equal(cached(x), plain(plain.collator(samples)[0]))


def test_a_tower_that_is_trained_is_not_cached(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    features = VisionFeatures()
    model = load(trainable="all", vision_features=features)

    model.prepare(benchmark.test_stream[0].dataset)

    assert model.vision_features is None
    assert len(features) == 0
    assert model.collator([benchmark.test_stream[0].dataset[0]])[0].images is not None
