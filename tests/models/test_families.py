"""Every family answers and learns as its plain transformers model does, and only what is tuned changes."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor
from zoo import ZOO, checkpoint

from avalanche_cit.benchmarks.batch import IGNORED, InstructionBatch
from avalanche_cit.benchmarks.collator import decode_image
from avalanche_cit.models import LMM
from avalanche_cit.training import SeqFT

ENCODER_DECODERS = ("instructblip_t5", "blip2_t5")


@pytest.fixture(scope="module", params=ZOO)
def name(request: pytest.FixtureRequest) -> str:
    family: str = request.param
    return family


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(name, tmp_path_factory)


@pytest.fixture(scope="module")
def model(folder: Path) -> LMM:
    return LMM.from_pretrained(folder, dtype="float64")


@pytest.fixture(scope="module")
def stock(folder: Path) -> tuple[Any, Any]:
    hf = AutoModelForImageTextToText.from_pretrained(folder, dtype="float64")
    return hf, AutoProcessor.from_pretrained(folder)


def plain_inputs(processor: Any, example: Any, answer: bool) -> dict[str, Tensor]:
    """One sample as a user of plain transformers would give it to the model."""
    question = example.task.render(example.row)
    image = decode_image(example)
    if processor.chat_template is not None:
        turns = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
        if answer:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": example.row["target"]}]})
        made = processor.apply_chat_template(
            turns, add_generation_prompt=not answer, tokenize=True, return_dict=True, return_tensors="pt"
        )
    elif "PaliGemma" in type(processor).__name__:
        suffix = {"suffix": example.row["target"]} if answer else {}
        made = processor(images=image, text=f"<image>{question}", return_tensors="pt", **suffix)
    else:
        made = processor(images=image, text=question, return_tensors="pt")
    return {key: tensor for key, tensor in made.items() if key != "labels"}


def doubled(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in inputs.items()}


def plain_greedy(hf: Any, inputs: dict[str, Tensor], limit: int, ends: tuple[int, ...]) -> tuple[list[int], float]:
    """What the plain model generates for one sample, and how far the best token was ahead of the next at least."""
    made = hf.generate(
        **inputs,
        max_new_tokens=limit,
        do_sample=False,
        num_beams=1,
        output_logits=True,
        return_dict_in_generate=True,
        eos_token_id=list(ends),
    )
    best = torch.stack(made.logits).topk(2, dim=-1).values
    tokens = made.sequences[0, -len(made.logits) :].tolist()
    return tokens, float((best[..., 0] - best[..., 1]).min())


def test_a_padded_batch_answers_as_the_plain_model_alone(
    model: LMM, stock: tuple[Any, Any], samples: list[Any]
) -> None:
    hf, processor = stock
    batch, _, _ = model.collator(samples)
    assert len({len(prompt) for prompt in batch.prompts}) > 2

    answers = model.generate(batch)

    margins = []
    for sample, answer in zip(samples, answers, strict=True):
        inputs = doubled(plain_inputs(processor, sample[0], answer=False))
        if (
            not model.encoder_decoder
            and processor.chat_template is None
            and "PaliGemma" not in type(processor).__name__
        ):
            pass
        tokens, margin = plain_greedy(hf, inputs, sample[0].task.max_new_tokens, model.limits.end_tokens)
        assert answer == processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        margins.append(margin)
    assert min(margins) > 1e-4
    assert len(set(answers)) > 2


def test_the_loss_is_the_plain_models_own(folder: Path, samples: list[Any]) -> None:
    model = LMM.from_pretrained(folder)
    hf = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    batch, labels, _ = model.collator(samples)
    with torch.no_grad():
        logits = model(batch)
        expected = hf(**batch.images.tensors, **batch.inputs, labels=labels).loss

    loss = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert logits.shape[::2] == labels.shape


def test_training_inputs_are_those_of_the_plain_processor(
    model: LMM, stock: tuple[Any, Any], samples: list[Any]
) -> None:
    _, processor = stock
    for sample in samples:
        batch, labels, _ = model.collator([sample])
        expected = plain_inputs(processor, sample[0], answer=True)
        for key, tensor in batch.images.tensors.items():
            torch.testing.assert_close(tensor, expected[key])
        if model.encoder_decoder:
            assert torch.equal(batch.inputs["input_ids"], expected["input_ids"])
            assert labels[0].tolist() == processor.tokenizer(sample[0].row["target"])["input_ids"]


def test_one_step_changes_the_trainable_weights_alone(folder: Path, benchmark: CLScenario, snapshot: Callable) -> None:
    model = LMM.from_pretrained(folder)
    before = snapshot(model)
    SeqFT(model=model, train_mb_size=16, lr=1e-2, warmup=0.0).train(benchmark.train_stream[0])
    changed = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    assert changed == set(model.trainable_state())


def test_saved_and_loaded_by_plain_transformers(
    folder: Path, benchmark: CLScenario, samples: list[Any], tmp_path: Path
) -> None:
    model = LMM.from_pretrained(folder)
    SeqFT(model=model, train_mb_size=16, lr=1e-2).train(benchmark.train_stream[0])
    model.save_pretrained(tmp_path)
    batch, labels, _ = model.collator(samples)
    hf = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="float32")
    with torch.no_grad():
        logits = [
            m(**batch.images.tensors, **batch.inputs, **({"labels": labels} if model.encoder_decoder else {})).logits
            for m in (model.hf, hf)
        ]
    assert torch.equal(*logits)
