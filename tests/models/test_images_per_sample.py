"""Samples without an image, and with two: every family answers as its plain model does, or says why it does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from zoo import ZOO, checkpoint

from avalanche_cit.benchmarks.collator import decode_images
from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM

ONE_IMAGE = ("instructblip_t5", "instructblip_llama", "blip2_t5", "blip2_opt")
CHAT = [name for name in ZOO if name not in (*ONE_IMAGE, "paligemma")]
SEVERAL_IMAGES = [*CHAT, "paligemma"]

Samples = list[tuple[Example, int]]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LMM]:
    """Load a family's model in double precision, once."""
    loaded: dict[str, LMM] = {}

    def load(family: str) -> LMM:
        if family not in loaded:
            loaded[family] = LMM.from_pretrained(checkpoint(family, tmp_path_factory), dtype="float64")
        return loaded[family]

    return load


def with_images(sample: Any, *images: dict[str, Any]) -> tuple[Example, int]:
    row = {**sample[0].row, "image": images[0] if images else None, "more_images": list(images[1:]) or None}
    return Example(sample[0].task, row), sample[1]


def changed(samples: list[Any], images: int) -> Samples:
    """Samples with no image or with two at the even places, between others with one."""
    pictures = [sample[0].row["image"] for sample in samples]
    return [
        with_images(sample, *(pictures[i], pictures[i - 1])[:images]) if i % 2 == 0 else sample
        for i, sample in enumerate(samples)
    ]


def plain_inputs(processor: Any, example: Example) -> dict[str, torch.Tensor]:
    """One sample as a user of plain transformers would give it to the model."""
    question, images = example.task.render(example.row), decode_images(example)
    if processor.chat_template is None:
        made = processor(images=images, text="<image>" * len(images) + question, return_tensors="pt")
    else:
        content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": question}]
        made = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    inputs = {name: tensor for name, tensor in made.items() if name != "labels"}
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}


def answers_of_the_plain_model(folder: Path, samples: Samples, ends: tuple[int, ...]) -> tuple[list[str], float]:
    """What plain transformers generates for each sample alone, and how far the best token was ahead at least."""
    hf = AutoModelForImageTextToText.from_pretrained(folder, dtype="float64")
    processor = AutoProcessor.from_pretrained(folder)
    answers, margins = [], []
    for example, _ in samples:
        made = hf.generate(
            **plain_inputs(processor, example),
            max_new_tokens=example.task.max_new_tokens,
            do_sample=False,
            num_beams=1,
            output_logits=True,
            return_dict_in_generate=True,
            eos_token_id=list(ends),
        )
        best = torch.stack(made.logits).topk(2, dim=-1).values
        tokens = made.sequences[0, -len(made.logits) :]
        answers.append(processor.tokenizer.decode(tokens, skip_special_tokens=True).strip())
        margins.append(float((best[..., 0] - best[..., 1]).min()))
    return answers, min(margins)


@pytest.mark.parametrize(("family", "images"), [*((name, 0) for name in CHAT), *((name, 2) for name in SEVERAL_IMAGES)])
def test_a_mixed_batch_answers_as_the_plain_model_alone(
    family: str, images: int, load: Callable[[str], LMM], samples: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, mixed = load(family), changed(samples[:10], images)

    batch, _, _ = model.collator(mixed)
    answers = model.generate(batch)

    ends = model.collator.limits.end_tokens
    expected, margin = answers_of_the_plain_model(checkpoint(family, tmp_path_factory), mixed, ends)
    assert margin > 1e-4
    assert answers == expected
    assert answers[::2] != model.generate(model.collator(samples[:10:2])[0])  # the images are seen, or missed
    assert answers[::2] == model.generate(batch.select(range(0, 10, 2)))  # without the samples of one image


@pytest.mark.parametrize("family", SEVERAL_IMAGES)
def test_the_second_image_counts(family: str, load: Callable[[str], LMM], samples: list[Any]) -> None:
    model = load(family)
    first, second, third = (samples[i][0].row["image"] for i in range(3))
    batch, labels, _ = model.collator([with_images(samples[0], first, other) for other in (second, third, second)])

    logits = model(batch)[..., labels[0] >= 0]

    assert torch.equal(logits[0], logits[2])
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", CHAT)
def test_a_sample_without_an_image_has_a_vector_of_zeros(
    family: str, load: Callable[[str], LMM], samples: list[Any]
) -> None:
    model = load(family)
    mixed = model.embed_images(model.collator(changed(samples[:4], 0))[0])
    alone = model.embed_images(model.collator([with_images(samples[0])])[0])

    assert torch.equal(mixed[[1, 3]], model.embed_images(model.collator(samples[1:4:2])[0]))
    assert mixed[[1, 3]].abs().sum() > 0
    assert torch.equal(mixed[[0, 2]], torch.zeros_like(mixed[[0, 2]]))
    assert torch.equal(alone, mixed[:1])


@pytest.mark.parametrize("images", [0, 2])
@pytest.mark.parametrize("family", ONE_IMAGE)
def test_a_model_of_one_image_says_so(family: str, images: int, load: Callable[[str], LMM], samples: list[Any]) -> None:
    name = samples[0][0].row["id"]
    has = "2 images" if images else "no image"
    with pytest.raises(UserError, match=rf"task 'colour', sample '{name}': it has {has}, the model takes one image"):
        load(family).collator(changed(samples[:4], images))


def test_paligemma_needs_an_image(load: Callable[[str], LMM], samples: list[Any]) -> None:
    with pytest.raises(UserError, match=r"task 'colour', sample '.*': it has no image, the model takes at least"):
        load("paligemma").collator(changed(samples[:4], 0))


# --- Texts that look like images --------------------------------------------------------------------------------------

QWEN_VL = ("<|image_pad|>", "<|video_pad|>")
PLACEHOLDERS = dict.fromkeys(ZOO, ("<image>",)) | {
    "llava_onevision": ("<image>", "<video>"),
    "qwen2_vl": QWEN_VL,
    "qwen2_5_vl": QWEN_VL,
    "qwen3_vl": QWEN_VL,
    "gemma3": ("<start_of_image>", "<image_soft_token>"),
    "internvl": ("<IMG_CONTEXT>", "<video>"),
}


@pytest.mark.parametrize("images", [0, 1])
@pytest.mark.parametrize("place", ["instruction", "target"])
@pytest.mark.parametrize("family", ZOO)
def test_a_text_that_stands_for_an_image_is_named(
    family: str, place: str, images: int, load: Callable[[str], LMM], samples: list[Any]
) -> None:
    model, sample = load(family), with_images(samples[0], *[samples[0][0].row["image"]][:images])
    what = {"instruction": "text input", "target": "target"}[place]
    for token in PLACEHOLDERS[family]:
        example = Example(sample[0].task, {**sample[0].row, place: f"what does {token} mean?"})
        with pytest.raises(UserError) as caught:
            model.collator([(example, 0)])
        text = str(caught.value)
        assert text.startswith(f"task 'colour', sample '{example.row['id']}': its {what} holds '{token}', which")
        assert len(text.splitlines()) == 1


@pytest.mark.parametrize("family", ZOO)
def test_other_angle_brackets_are_text(family: str, load: Callable[[str], LMM], samples: list[Any]) -> None:
    example = Example(samples[0][0].task, {**samples[0][0].row, "instruction": "is a < b > c, <img2>, <images>?"})
    batch, _, _ = load(family).collator([(example, 0)])
    assert batch.prompts == ["Question: is a < b > c, <img2>, <images>? Answer:"]


def test_what_a_processor_refuses_is_one_line(
    load: Callable[[str], LMM], samples: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("llava")
    monkeypatch.setattr(model.processor, "chat_template", "{{ messages[0].content[-1].text }}")  # no place for images
    with pytest.raises(UserError, match=r"task 'colour', sample '.*': the model's processor refuses it \(.*<image>"):
        model.collator([samples[0]])
