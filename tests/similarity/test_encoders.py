"""Encoders against plain computations with the stock libraries; and every way in which one cannot be had."""

import json
import shutil
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import CLScenario
from huggingface_hub import constants
from PIL import Image
from transformers import AutoModel, AutoModelForImageTextToText, AutoTokenizer

from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM, VisionFeatures
from avalanche_cit.models.frozen_prefix import CHUNK
from avalanche_cit.similarity import (
    OpenClip,
    SentenceEncoder,
    TokenEmbedding,
    VisionTower,
    make_image_encoder,
    make_text_encoder,
)

TEXTS = ["a red circle", "dark green small square on white ?", "blue", "Question: what is it? Answer:"]


@pytest.fixture
def examples(samples: list[Any]) -> list[Example]:
    """Test samples of all three tasks."""
    return [example for example, _ in samples]


# --- The model's own parts --------------------------------------------------------------------------------------------


def test_vision_tower_gives_the_stock_class_tokens(
    load: Callable[..., LMM], kind: str, folder: Path, examples: list[Example]
) -> None:
    model = load(kind)
    stock = AutoModelForImageTextToText.from_pretrained(folder).vision_model.eval()

    vectors = VisionTower(model)(examples)

    assert vectors.dtype == torch.float32
    for vector, example in zip(vectors, examples, strict=True):
        image = Image.open(example.row["image"]["path"])
        pixels = model.processor.image_processor(image, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            expected = stock(pixel_values=pixels).last_hidden_state[0, 0]
        torch.testing.assert_close(vector, expected, rtol=1e-5, atol=1e-5)
    assert len(vectors.unique(dim=0)) > len(examples) / 2


def test_vision_tower_takes_more_images_than_go_at_a_time(load: Callable[..., LMM], examples: list[Example]) -> None:
    model = load()
    tower, sizes = VisionTower(model), []
    model.hf.vision_model.register_forward_hook(lambda module, _, output: sizes.append(len(output.last_hidden_state)))
    many = examples * 4  # 72, of which 16 go at a time

    assert torch.equal(tower(many), tower(examples).repeat(4, 1))
    assert torch.equal(tower(examples[3:4]), tower(examples)[3:4])
    assert set(sizes) == {CHUNK}  # the one shape that cached features are computed in, or the bits could differ


def test_vision_tower_reads_cached_features_bit_for_bit(
    load: Callable[..., LMM], kind: str, benchmark: CLScenario, examples: list[Example]
) -> None:
    plain, cached = load(kind), load(kind, vision_features=VisionFeatures())
    for experience in benchmark.test_stream:
        cached.prepare(experience.dataset)
    calls: list[int] = []
    cached.hf.vision_model.tower.register_forward_hook(lambda *_: calls.append(1))

    vectors = VisionTower(cached)(examples)

    assert calls == []
    assert torch.equal(vectors, VisionTower(plain)(examples))
    assert VisionTower(cached).name == VisionTower(plain).name


def test_token_embedding_is_the_mean_over_the_tokens(load: Callable[..., LMM], kind: str) -> None:
    model = load(kind)
    weight = model.hf.language_model.get_input_embeddings().weight.detach().numpy()
    ids = model.processor.tokenizer(TEXTS)["input_ids"]
    end = model.processor.tokenizer.eos_token_id
    assert all(row[-1] == end for row in ids)  # what is left out

    vectors = TokenEmbedding(model)(TEXTS)

    expected = np.stack([weight[row[:-1]].mean(axis=0) for row in ids])
    np.testing.assert_allclose(vectors.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert len({len(row) for row in ids}) > 2


def test_token_embedding_of_nothing_is_zero(load: Callable[..., LMM]) -> None:
    encoder = TokenEmbedding(load())

    vectors = encoder(["", "red circle", ""])

    assert vectors[1].abs().sum() > 0
    assert torch.equal(vectors[[0, 2]], torch.zeros_like(vectors[[0, 2]]))
    assert torch.equal(encoder([""]), vectors[:1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_own_parts_of_a_half_precision_model_give_single_precision(
    load: Callable[..., LMM], dtype: torch.dtype, examples: list[Example]
) -> None:
    model, whole = load(dtype=dtype), load()

    images = VisionTower(model)(examples)
    assert images.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(images, VisionTower(whole)(examples)).min() > 0.98
    texts = TokenEmbedding(model)(TEXTS)
    assert texts.dtype == torch.float32
    torch.testing.assert_close(texts, TokenEmbedding(whole)(TEXTS), rtol=0.02, atol=0.02)


def test_parts_that_are_trained_are_refused(load: Callable[..., LMM]) -> None:
    with pytest.raises(UserError, match=r"the model's vision tower is trained, .* or take open_clip:NAME_OR_FOLDER"):
        VisionTower(load(trainable="all"))
    with pytest.raises(UserError, match=r"the model's vision tower is trained"):
        VisionTower(load(trainable=["vision_model.post_layernorm.weight"]))
    with pytest.raises(UserError, match=r"text embedding is trained, .* or take sentence_transformers:NAME_OR_FOLDER"):
        TokenEmbedding(load(trainable="language"))
    VisionTower(load(trainable="language"))
    TokenEmbedding(load("llama", trainable=["language_model.lm_head.weight"]))


# --- External models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_open_clip_from_a_folder(
    save_clip: Callable[..., Any], weights: str, examples: list[Example], tmp_path: Path
) -> None:
    saved = save_clip(tmp_path / "clip", weights=weights)

    encoder = OpenClip(str(tmp_path / "clip"))
    vectors = encoder(examples)

    for vector, example in zip(vectors, examples, strict=True):
        values = np.asarray(Image.open(example.row["image"]["path"]).convert("RGB"), dtype=np.float32) / 255
        pixels = torch.from_numpy((values - (0.4, 0.5, 0.6)) / (0.2, 0.3, 0.4)).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            expected = saved.encode_image(pixels, normalize=False)[0]
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)
    assert vectors.dtype == torch.float32
    assert len(vectors.unique(dim=0)) > len(examples) / 2
    assert not vectors.requires_grad
    assert len(encoder(examples * 4)) == 72


def test_sentence_encoder_pools_berts_first_token(sentence_folder: Path) -> None:
    bert = sentence_folder.with_name("sentences-bert")
    stock, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)

    vectors = SentenceEncoder(str(sentence_folder), device="cpu")(TEXTS)

    for vector, text in zip(vectors, TEXTS, strict=True):
        with torch.no_grad():
            expected = stock(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0]
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)
    assert vectors.dtype == torch.float32
    key = torch.ones(16, requires_grad=True)
    (vectors @ key).sum().backward()  # vectors may take part in a loss, and get no gradient
    assert key.grad is not None
    assert not vectors.requires_grad


def test_names_tell_weights_and_settings(
    load: Callable[..., LMM], save_clip: Callable[..., Any], save_sentences: Callable[..., Any], tmp_path: Path
) -> None:
    t5, llama = load("t5"), load("llama")
    other_weights = load("t5")
    with torch.no_grad():
        next(other_weights.hf.vision_model.parameters()).view(-1)[-1] += 1e-3
        other_weights.hf.language_model.get_input_embeddings().weight[-1, -1] += 1e-3
    for folder, seed in (("a", 0), ("same", 0), ("b", 1), ("activation", 0), ("pixels", 0)):
        save_clip(tmp_path / folder, seed=seed)
    change_json(tmp_path / "activation" / "open_clip_config.json", lambda j: j["model_cfg"].update(quick_gelu=True))
    change_json(tmp_path / "pixels" / "open_clip_config.json", lambda j: j["preprocess_cfg"].update(mean=[0.1] * 3))
    save_sentences(tmp_path / "cls")
    save_sentences(tmp_path / "mean", pooling="mean")
    save_sentences(tmp_path / "c", seed=1)

    same = [(VisionTower(t5), VisionTower(load("t5"))), (TokenEmbedding(t5), TokenEmbedding(load("t5")))]
    same += [(OpenClip(str(tmp_path / "a")), OpenClip(str(tmp_path / "same")))]
    assert all(first.name == second.name for first, second in same)
    encoders = [*(VisionTower(model) for model in (t5, llama, other_weights, load("t5", dtype=torch.float16)))]
    encoders += [TokenEmbedding(model) for model in (t5, llama, other_weights)]
    encoders += [OpenClip(str(tmp_path / folder)) for folder in ("a", "b", "activation", "pixels")]
    encoders += [SentenceEncoder(str(tmp_path / folder)) for folder in ("cls", "mean", "c")]
    names = [encoder.name for encoder in encoders]
    assert len(set(names)) == len(names)
    assert [name.split(":")[0] for name in names] == (
        ["vision_tower"] * 4 + ["token_embedding"] * 3 + ["open_clip"] * 4 + ["sentence_transformers"] * 3
    )


def test_loading_and_encoding_draw_nothing(
    load: Callable[..., LMM], clip_folder: Path, sentence_folder: Path, examples: list[Example]
) -> None:
    model = load()
    before = torch.get_rng_state()

    for image_encoder in (VisionTower(model), OpenClip(str(clip_folder))):
        image_encoder(examples)
    for text_encoder in (TokenEmbedding(model), SentenceEncoder(str(sentence_folder))):
        text_encoder(TEXTS)

    assert torch.equal(torch.get_rng_state(), before)


def test_a_damaged_image_is_named_with_its_sample(clip_folder: Path, examples: list[Example], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    row = {**examples[0].row, "image": {"path": str(tmp_path / "broken.png"), "bytes": None}}

    with pytest.raises(UserError, match=r"task 'colour', sample 'colour-test-0': cannot read the image .*broken\.png"):
        OpenClip(str(clip_folder))([Example(examples[0].task, row)])


def test_open_clip_takes_the_mean_of_several_images_and_zeros_for_none(
    clip_folder: Path, examples: list[Example]
) -> None:
    def example(*images: dict[str, Any]) -> Example:
        row = {**examples[0].row, "image": images[0] if images else None, "more_images": list(images[1:]) or None}
        return Example(examples[0].task, row)

    encoder = OpenClip(str(clip_folder))
    one, two = examples[0].row["image"], examples[1].row["image"]
    first, second = encoder([example(one), example(two)])
    assert not torch.equal(first, second)

    vectors = encoder([example(), example(one), example(one, two, two), example(), example(two)])

    expected = torch.stack([0 * first, first, (first + 2 * second) / 3, 0 * first, second])
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-6)


# --- By specification -------------------------------------------------------------------------------------------------


def test_specifications(
    load: Callable[..., LMM], clip_folder: Path, sentence_folder: Path, examples: list[Example], tmp_path: Path
) -> None:
    model = load()

    assert isinstance(make_image_encoder("vision_tower", model), VisionTower)
    assert isinstance(make_text_encoder("token_embedding", model), TokenEmbedding)
    clip = make_image_encoder(f"open_clip:{clip_folder}", model)
    assert torch.equal(clip(examples), OpenClip(str(clip_folder))(examples))
    shutil.copytree(clip_folder, tmp_path / "with:colon")
    assert torch.equal(make_image_encoder(f"open_clip:{tmp_path}/with:colon", model)(examples), clip(examples))
    sentences = make_text_encoder(f"sentence_transformers:{sentence_folder}", model)
    assert torch.equal(sentences(TEXTS), SentenceEncoder(str(sentence_folder))(TEXTS))


def test_an_open_clip_architecture_takes_the_weights_after_its_colon(
    load: Callable[..., LMM],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    examples: list[Example],
    save_clip: Callable[..., Any],
) -> None:
    import open_clip

    save_clip(tmp_path / "clip")
    config = json.loads((tmp_path / "clip" / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-Tiny", config)
    weights = tmp_path / "clip" / "open_clip_model.safetensors"

    encoder = make_image_encoder(f"open_clip:ViT-Tiny:{weights}", load())

    assert isinstance(encoder, OpenClip)
    assert encoder(examples).shape == (len(examples), 8)


@pytest.mark.parametrize(
    ("make", "spec", "message"),
    [
        (make_image_encoder, "vision_towr", "unknown image encoder 'vision_towr': did you mean 'vision_tower'"),
        (make_image_encoder, "vision_tower:x", "unknown image encoder 'vision_tower:x'"),
        (
            make_image_encoder,
            "open_clip",
            r"unknown image encoder 'open_clip': .*open_clip:NAME_OR_FOLDER\[:PRETRAINED\]",
        ),
        (make_image_encoder, "open_clip:", "unknown image encoder 'open_clip:'"),
        (make_image_encoder, "token_embedding", "unknown image encoder 'token_embedding'"),
        (
            make_image_encoder,
            "open_clip:ViT-B-33:openai",
            r"unknown open_clip model 'ViT-B-33': .*ViT-B-32[,;]",
        ),
        (
            make_image_encoder,
            "open_clip:ViT-B-32",
            r"open_clip model 'ViT-B-32' needs weights, such as ViT-B-32:openai",
        ),
        (
            make_image_encoder,
            "open_clip:ViT-B-32:openia",
            r"unknown weights .*'ViT-B-32' 'openia': did you mean 'openai'",
        ),
        (make_image_encoder, "open_clip:some/model:x", "'some/model' has weights of its own: leave 'x' away"),
        (make_text_encoder, "token_embeding", "unknown text encoder 'token_embeding': did you mean 'token_embedding'"),
        (make_text_encoder, "sentence_transformers:", "unknown text encoder 'sentence_transformers:'"),
    ],
)
def test_a_wrong_specification_is_one_line(
    load: Callable[..., LMM], make: Callable[[str, LMM], Any], spec: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        make(spec, load())
    assert "\n" not in str(error.value)


# --- Models that are elsewhere, or broken -----------------------------------------------------------------------------

ELSEWHERE = [
    ("open_clip:ViT-B-32:openai", "timm/vit_base_patch32_clip_224.openai"),
    ("open_clip:some/clip", "some/clip"),
    ("sentence_transformers:all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
    ("sentence_transformers:some/sentences", "some/sentences"),
]


def make(spec: str) -> Any:
    kind, name = spec.split(":", maxsplit=1)
    return OpenClip(*name.split(":")) if kind == "open_clip" else SentenceEncoder(name)


@pytest.mark.parametrize(("spec", "repository"), ELSEWHERE)
def test_an_encoder_that_cannot_be_downloaded_says_how_to_get_it(hub_cache: Any, spec: str, repository: str) -> None:
    begin = time.monotonic()

    with pytest.raises(UserError, match=rf"is not on this machine .*`hf download {repository}`") as error:
        make(spec)

    assert "\n" not in str(error.value)
    assert time.monotonic() - begin < 30  # most of it for the libraries' import


@pytest.mark.parametrize(("spec", "repository"), ELSEWHERE)
def test_offline_mode_says_so(hub_cache: Any, monkeypatch: pytest.MonkeyPatch, spec: str, repository: str) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(UserError, match=r"offline mode.*`hf download"):
        make(spec)


@pytest.mark.parametrize(("spec", "repository"), ELSEWHERE)
@pytest.mark.parametrize(("status", "message"), [(503, "is not on this machine"), (404, "there is no")])
def test_the_hub_is_asked_once(
    hub_cache: Any, monkeypatch: pytest.MonkeyPatch, spec: str, repository: str, status: int, message: str
) -> None:
    asked = []

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("X-Error-Code", "RepoNotFound" if status == 404 else "")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refuse)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(UserError, match=message):
            make(spec)
    finally:
        server.shutdown()

    assert [path.split("?")[0] for path in asked] == [f"/api/models/{repository}"]


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder"])
@pytest.mark.parametrize("encoder", [OpenClip, SentenceEncoder])
def test_a_missing_folder_is_one_line(hub_cache: Any, encoder: type, name: str) -> None:
    with pytest.raises(UserError, match=f"there is no .* model '{name}': no such folder"):
        encoder(name)


def test_models_in_the_hub_cache_need_no_network(
    hub_cache: Callable[[str, Path], None],
    clip_folder: Path,
    sentence_folder: Path,
    examples: list[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub_cache("some/clip", clip_folder)
    hub_cache("sentence-transformers/tiny", sentence_folder)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asks the network"))

    assert torch.equal(OpenClip("some/clip")(examples), OpenClip(str(clip_folder))(examples))
    assert torch.equal(SentenceEncoder("tiny")(TEXTS), SentenceEncoder(str(sentence_folder))(TEXTS))


def test_a_half_downloaded_model_is_not_on_this_machine(
    hub_cache: Callable[[str, Path], None], save_clip: Callable[..., Any], sentence_folder: Path, tmp_path: Path
) -> None:
    save_clip(tmp_path / "clip")
    (tmp_path / "clip" / "open_clip_model.safetensors").unlink()
    hub_cache("some/clip", tmp_path / "clip")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "modules.json").write_bytes((sentence_folder / "modules.json").read_bytes())
    hub_cache("some/sentences", tmp_path / "half")

    for spec in ("open_clip:some/clip", "sentence_transformers:some/sentences"):
        with pytest.raises(UserError, match="is not on this machine"):
            make(spec)


def test_a_plain_transformer_is_refused_for_want_of_a_pooling(sentence_folder: Path) -> None:
    with pytest.raises(UserError, match=r"no modules\.json, so its pooling is not known.*Pooling"):
        SentenceEncoder(str(sentence_folder.with_name("sentences-bert")))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "open_clip_model.safetensors").unlink(),
        lambda folder: (folder / "open_clip_model.safetensors").write_bytes(b"broken"),
        lambda folder: (folder / "open_clip_config.json").unlink(),
        lambda folder: (folder / "open_clip_config.json").write_text("{"),
        lambda folder: (folder / "open_clip_config.json").write_text("{}"),
        lambda folder: change_json(folder / "open_clip_config.json", lambda j: j["model_cfg"].pop("text_cfg")),
        lambda folder: change_json(folder / "open_clip_config.json", lambda j: j["model_cfg"].update(embed_dim=9)),
        lambda folder: change_json(
            folder / "open_clip_config.json", lambda j: j["model_cfg"]["vision_cfg"].update(depth=9)
        ),
    ],
)
def test_a_damaged_open_clip_folder_is_one_line(
    save_clip: Callable[..., Any], damage: Callable[[Path], Any], tmp_path: Path
) -> None:
    save_clip(tmp_path / "clip")
    damage(tmp_path / "clip")

    with pytest.raises(UserError, match=f"cannot load the open_clip model '{tmp_path}/clip': .") as error:
        OpenClip(str(tmp_path / "clip"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"broken"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "modules.json").write_text("{"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "1_Pooling" / "config.json").unlink(),
    ],
)
def test_a_damaged_sentence_transformer_is_one_line(
    save_sentences: Callable[..., Any], damage: Callable[[Path], Any], tmp_path: Path
) -> None:
    save_sentences(tmp_path / "s")
    damage(tmp_path / "s")

    with pytest.raises(UserError, match=f"cannot load the sentence-transformers model '{tmp_path}/s': .") as error:
        SentenceEncoder(str(tmp_path / "s"))
    assert "\n" not in str(error.value)


def test_a_folder_with_weights_of_its_own_takes_no_others(clip_folder: Path) -> None:
    with pytest.raises(UserError, match="is a folder with weights of its own: leave 'openai' away"):
        OpenClip(str(clip_folder), "openai")


def change_json(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
