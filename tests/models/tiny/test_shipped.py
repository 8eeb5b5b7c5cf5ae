"""The models that ship: they load, share what they must, and see what their cards say."""

import json

import pytest
import torch
from safetensors import safe_open

from avalanche_cit.models.lmm import LMM
from avalanche_cit.models.loading import SHIPPED, model_folder
from avalanche_cit.models.tiny import probes


def _tensors(name):
    with safe_open(f"{model_folder(name)}/model.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)


def test_vision_tower_and_language_model_are_identical_in_both():
    base, instruct = _tensors("tiny-base"), _tensors("tiny-instruct")
    assert base.keys() == instruct.keys()
    changed = {name.split(".")[0] for name in base if not torch.equal(base[name], instruct[name])}
    assert changed == {"query_tokens", "qformer", "language_projection"}
    assert {weight.dtype for weight in base.values()} == {torch.float16}


@pytest.mark.parametrize("name", SHIPPED)
def test_cards_numbers_are_the_scores(name):
    folder = model_folder(name)
    with open(f"{folder}/scores.json", encoding="utf-8") as file:
        scores = json.load(file)
    with open(f"{folder}/README.md", encoding="utf-8") as file:
        card = file.read()
    for rows in scores.values():
        for key, value in rows.items():
            assert f"| {key} | {value:.1f} |" in card


def test_the_class_token_tells_the_domain():
    assert probes.domain_by_class_token(LMM.from_pretrained("tiny-base"), count=300) >= 95


def test_tiny_base_describes_what_it_sees():
    scores = probes.dense_captions(LMM.from_pretrained("tiny-base"), count=200)
    assert scores["token_accuracy"] >= 93
    assert scores["exact"] >= 45


def test_tiny_instruct_looks_at_the_picture():
    model = LMM.from_pretrained("tiny-instruct")
    seeing = probes.questions(model, ["room"], count=400)["all"]
    blind = probes.questions(model, ["room"], count=400, shuffled=True)["all"]
    prior = probes.text_only_prior(["room"], count=400)["all"]
    assert seeing > prior + 25
    assert blind < prior + 5
