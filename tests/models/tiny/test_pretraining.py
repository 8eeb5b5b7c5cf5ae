"""The pre-training of the tiny models: the same loss as the stock model, and resumable to the bit."""

import dataclasses

import numpy as np
import pytest
import torch

from avalanche_cit.benchmarks.mini.language import describe
from avalanche_cit.benchmarks.mini.scenes import sample_scene
from avalanche_cit.models.tiny.architecture import build_model, build_processor, build_tokenizer
from avalanche_cit.models.tiny.pretraining import (
    STAGES,
    StageRun,
    Tokens,
    VisionTraining,
    language_loss,
    one_cycle,
    to_pixel_values,
    train_base,
    train_instruct,
    vision_features,
)
from avalanche_cit.models.tiny.pretraining_data import DENSE_PROMPT, HEADS, corpus, draw_pictures


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(corpus(0, count=400))


@pytest.fixture(scope="module")
def pictures():
    return draw_pictures(40, "train", seed=0)


def test_tokenizer_says_any_text(tokenizer):
    for text in ["a red circle", "Zürich 東京 🙂 x<y", "tab\tand\nnewline"]:
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True).strip(" ") == text
    whole = tokenizer("a large red circle", add_special_tokens=False).input_ids
    assert len(whole) == 4


def test_tokenizer_has_a_token_for_every_word_of_the_world(tokenizer):
    full = build_tokenizer(corpus(0, count=20_000))
    rng = np.random.default_rng(99)
    for domain in ("park", "book", "street"):
        caption = describe(sample_scene(domain, "test", rng))
        assert len(full(caption, add_special_tokens=False).input_ids) == len(caption.split())


def test_loss_is_the_stock_models(tokenizer, pictures):
    model = build_model(tokenizer, seed=0).eval()
    processor = build_processor(tokenizer)
    prompts = [DENSE_PROMPT, "Question: what is this? Short answer:"]
    targets = ["a red circle", "a large blue star top left"]
    inputs = processor(images=list(pictures.pixels[:2]), text=prompts, padding=True, return_tensors="pt")
    labels = Tokens(tokenizer).labels(targets)
    stock = model(**inputs, labels=labels).loss
    features = model.vision_model(to_pixel_values(pictures.pixels[:2])).last_hidden_state
    ours = language_loss(model, Tokens(tokenizer), features, prompts, targets)
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


def test_patch_labels_follow_the_things(pictures):
    for scene, shapes in zip(pictures.scenes, pictures.patches["shape"], strict=True):
        seen = {int(label) for label in np.unique(shapes)} - {0}
        assert bool(seen) == (bool(scene.things) and not scene.unreadable)
    assert all(labels.max() < HEADS[head] for head, labels in pictures.patches.items())


def test_one_cycle_rises_and_falls():
    assert one_cycle(0) == 0
    assert one_cycle(0.08) == pytest.approx(1)
    assert one_cycle(1) == pytest.approx(0.01)


def _stages(folder, steps):
    return [
        StageRun(dataclasses.replace(stage, steps=steps, batch_size=4), seed=0, folder=folder, save_every=2)
        for stage in STAGES
    ]


def _pretrain(tokenizer, pictures, folder, steps=5):
    model = build_model(tokenizer, seed=0)
    vision, domains, base, instruct = _stages(folder, steps)
    tower = VisionTraining(model, pictures, seed=0)
    tower.train_vision(vision)
    tower.train_domains(domains)
    features = vision_features(model, pictures.pixels)
    train_base(model, Tokens(tokenizer), pictures, features, base)
    after_base = {name: weight.clone() for name, weight in model.state_dict().items()}
    train_instruct(model, Tokens(tokenizer), pictures, features, instruct)
    return after_base, model.state_dict()


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("stage", ["vision", "domains", "base", "instruct"])
def test_a_killed_stage_goes_on_to_the_same_weights(tokenizer, pictures, tmp_path, monkeypatch, stage):
    _, whole = _pretrain(tokenizer, pictures, tmp_path / "whole")
    original = StageRun._save

    def save_and_die(self, module, optimizer, step):
        original(self, module, optimizer, step)
        if self.stage.name == stage and step == 4:
            raise _KilledError

    monkeypatch.setattr(StageRun, "_save", save_and_die)
    with pytest.raises(_KilledError):
        _pretrain(tokenizer, pictures, tmp_path / "killed")
    monkeypatch.undo()
    _, resumed = _pretrain(tokenizer, pictures, tmp_path / "killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_base_and_instruct_differ_in_the_bridge_only(tokenizer, pictures, tmp_path):
    base, instruct = _pretrain(tokenizer, pictures, tmp_path)
    changed = {name.split(".")[0] for name in base if not torch.equal(base[name], instruct[name])}
    assert changed == {"query_tokens", "qformer", "language_projection"}
