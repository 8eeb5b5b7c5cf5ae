"""Every checkpoint of the zoo is one that plain transformers loads, trains and generates with."""

import re
import string
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from zoo import ZOO, checkpoint, write

QUESTIONS = ("colour?", "what do you see in the middle of this picture?")

# what the tokenizer puts around a text, and what ends an answer
AROUND = {
    "instructblip_t5": ("", "</s>", ["</s>"]),
    "instructblip_llama": ("</s>", "", ["</s>"]),
    "blip2_t5": ("", "</s>", ["</s>"]),
    "blip2_opt": ("</s>", "", ["\n"]),
    "llava": ("<s>", "", ["</s>"]),
    "llava_onevision": ("", "", ["<|im_end|>", "<|endoftext|>"]),
    "qwen2_vl": ("", "", ["<|im_end|>", "<|endoftext|>"]),
    "qwen2_5_vl": ("", "", ["<|im_end|>", "<|endoftext|>"]),
    "qwen3_vl": ("", "", ["<|im_end|>", "<|endoftext|>"]),
    "idefics3": ("<|begin_of_text|>", "", ["<end_of_utterance>"]),
    "smolvlm": ("", "", ["<end_of_utterance>"]),
    # the processor of PaliGemma writes the beginning token itself
    "paligemma": ("", "", ["<eos>"]),
    "gemma3": ("<bos>", "", ["<eos>", "<end_of_turn>"]),
    "internvl": ("", "", ["<|im_end|>"]),
}


class Loaded(NamedTuple):
    name: str
    model: Any
    processor: Any
    report: dict[str, Any]


@pytest.fixture(scope="module", params=ZOO)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = checkpoint(request.param, tmp_path_factory)
    model, report = AutoModelForImageTextToText.from_pretrained(folder, dtype="float64", output_loading_info=True)
    return Loaded(request.param, model, AutoProcessor.from_pretrained(folder), report)


def picture(number: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(number))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def chat(question: str, image: Image.Image) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]


def inputs(loaded: Loaded, image: Image.Image, question: str) -> dict[str, torch.Tensor]:
    processor = loaded.processor
    if processor.chat_template is None:
        text = f"<image>{question}" if loaded.name == "paligemma" else question
        made = processor(images=image, text=text, return_tensors="pt")
    else:
        made = processor.apply_chat_template(
            chat(question, image), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
    return {name: tensor for name, tensor in made.items() if name != "labels"}


def test_the_stored_weights_are_those_of_the_architecture(loaded: Loaded) -> None:
    assert not any(loaded.report.values()), loaded.report
    assert sum(weight.numel() for weight in loaded.model.parameters()) < 500_000


def test_the_loss_reaches_tower_and_language_model(loaded: Loaded) -> None:
    given = inputs(loaded, picture(0), QUESTIONS[0])
    loss = loaded.model(**given, labels=given["input_ids"]).loss
    assert torch.isfinite(loss)
    loss.backward()
    reached = {
        name
        for name, weight in loaded.model.named_parameters()
        if weight.grad is not None and weight.grad.abs().max() > 0
    }
    loaded.model.zero_grad()
    for part in ("visi|visual", "language_model|text_model"):
        assert any(re.search(rf"({part}).*layers?\.0|({part}).*bloc.*\.0", name) for name in reached), part


@torch.no_grad()
def test_another_picture_changes_the_logits(loaded: Loaded) -> None:
    labels = torch.tensor([[5, 6, 7]])
    first, second = (inputs(loaded, picture(number), QUESTIONS[1]) for number in (0, 1))
    assert torch.equal(first["input_ids"], second["input_ids"])
    if loaded.name.endswith("_t5"):
        first["labels"] = second["labels"] = labels
    one, other = loaded.model(**first).logits, loaded.model(**second).logits
    assert (one[0, -1] - other[0, -1]).abs().max() > 1e-2


def test_greedy_answers_hang_on_the_picture_and_never_tie(loaded: Loaded) -> None:
    answers = set()
    for number in range(6):
        given = inputs(loaded, picture(number), QUESTIONS[number % 2])
        output = loaded.model.generate(
            **given, max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        best = torch.cat(output.logits).topk(2).values
        assert (best[:, 0] - best[:, 1]).min() > 1e-4
        answers.add(tuple(output.sequences[0, -len(output.logits) :].tolist()))
    assert len(answers) > 4


def test_the_tokenizer_spells_ascii(loaded: Loaded) -> None:
    tokenizer = loaded.processor.tokenizer
    text = string.ascii_letters + " " + string.digits + " " + string.punctuation
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text


def test_beginning_and_end_are_those_of_the_published_tokenizers(loaded: Loaded) -> None:
    tokenizer = loaded.processor.tokenizer
    front, back, ends = AROUND[loaded.name]
    assert tokenizer.decode(tokenizer("a")["input_ids"]).replace(" ", "") == f"{front}a{back}"
    stops = loaded.model.generation_config.eos_token_id
    assert tokenizer.batch_decode([[stop] for stop in (stops if isinstance(stops, list) else [stops])]) == ends
    assert loaded.model.generation_config.pad_token_id == tokenizer.pad_token_id is not None


def test_special_tokens_are_whole_and_a_prompt_begins_once(loaded: Loaded) -> None:
    tokenizer = loaded.processor.tokenizer
    ids = inputs(loaded, picture(0), "?")["input_ids"][0].tolist()
    assert "<" not in tokenizer.decode(ids, skip_special_tokens=True)
    begins = tokenizer.bos_token_id
    assert begins is None or ids.count(begins) == 1


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "idefics3", "internvl"])
def test_tokens_of_a_picture_depend_on_its_shape(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint(name, tmp_path_factory))
    given = (inputs(Loaded(name, None, processor, {}), picture(0, size), "?") for size in ((16, 16), (64, 24)))
    square, wide = (tensors["input_ids"].shape[1] for tensors in given)
    assert square != wide


def test_the_seed_fixes_the_weights(tmp_path: Path) -> None:
    for folder, seed in (("one", 0), ("same", 0), ("other", 1)):
        write("llava", tmp_path / folder, seed)
    one, same, other = (load_file(tmp_path / folder / "model.safetensors") for folder in ("one", "same", "other"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
