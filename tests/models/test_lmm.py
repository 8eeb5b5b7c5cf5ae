"""An LMM computes what the stock model computes: inputs, loss and greedy answers, whatever the company in the batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from avalanche_cit.benchmarks.batch import IGNORED, InstructionBatch
from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM

TEXT_POSITIONS = 64


def stock_greedy(stock: Any, batch: InstructionBatch, encoder_decoder: bool, end: int, limit: int) -> list[int]:
    """Decode one sample by plain forward passes over an ever longer text, without transformers' generation."""
    inputs = dict(batch.prompt_inputs)
    answer: list[int] = []
    while len(answer) < limit and (not answer or answer[-1] != end):
        if encoder_decoder:
            start = stock.config.text_config.decoder_start_token_id
            inputs["decoder_input_ids"] = torch.tensor([[start, *answer]])
        logits = stock(pixel_values=batch.images.tensors["pixel_values"].to(stock.dtype), **inputs).logits
        answer.append(int(logits[0, -1].argmax()))
        if not encoder_decoder:
            inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[answer[-1]]])], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return answer


def test_one_samples_inputs_are_the_stock_processors(
    load: Callable[..., LMM], kind: str, folder: Path, samples: list[Any]
) -> None:
    model = load(kind)
    x, _, _ = model.collator(samples[:1])

    image = Image.open(samples[0][0].row["image"]["path"])
    stock = AutoProcessor.from_pretrained(folder)(images=image, text=x.prompts[0], return_tensors="pt")

    # the tokenizer ends every text with the end token, after which a decoder-only model would write nothing
    cut = slice(None) if model.encoder_decoder else slice(None, -1)
    assert torch.equal(x.prompt_inputs["input_ids"], stock["input_ids"][:, cut])
    assert torch.equal(x.prompt_inputs["attention_mask"], stock["attention_mask"][:, cut])
    assert torch.equal(x.prompt_inputs["qformer_input_ids"], stock["qformer_input_ids"])
    assert torch.equal(x.prompt_inputs["qformer_attention_mask"], stock["qformer_attention_mask"])
    assert torch.equal(x.images.tensors["pixel_values"], stock["pixel_values"])


def test_loss_is_the_stock_models_own(load: Callable[..., LMM], kind: str, folder: Path, samples: list[Any]) -> None:
    model = load(kind)
    x, y, _ = model.collator(samples)

    stock = AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = stock(pixel_values=x.images.tensors["pixel_values"], labels=y, **x.inputs).loss
        loss = nn.CrossEntropyLoss(ignore_index=IGNORED)(model(x), y)

    assert float(loss) > 1
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)


def test_logits_line_up_with_the_labels_and_are_zero_elsewhere(
    load: Callable[..., LMM], kind: str, samples: list[Any]
) -> None:
    model = load(kind)
    x, y, _ = model.collator(samples)

    logits = model(x).detach()

    silent = y == IGNORED
    assert logits.shape == (len(samples), len(model.processor.tokenizer), y.shape[1])
    assert silent.any()
    assert (logits.transpose(1, 2)[silent] == 0).all()
    assert (logits.transpose(1, 2)[~silent] != 0).any(dim=1).all()


def test_labels_are_the_answer_and_its_end(load: Callable[..., LMM], kind: str, samples: list[Any]) -> None:
    model = load(kind)
    tokenizer = model.processor.tokenizer
    x, y, _ = model.collator(samples)

    lengths = set()
    for labels, sample in zip(y, samples, strict=True):
        ids = labels[labels != IGNORED].tolist()
        lengths.add(len(ids))
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids[:-1]).strip() == sample[0].row["target"]
    assert torch.equal(y, x.labels)
    assert len(lengths) > 3


def test_a_decoder_only_model_reads_prompt_and_answer_as_one_text(load: Callable[..., LMM], samples: list[Any]) -> None:
    model = load("llama")
    x, _, _ = model.collator(samples)

    texts = zip(x.inputs["input_ids"], x.inputs["attention_mask"].bool(), x.labels, strict=True)
    for (ids, read, labels), prompt, sample in zip(texts, x.prompts, samples, strict=True):
        written = labels != IGNORED
        assert torch.equal(ids[written], labels[written])
        assert read[written].all()
        text = model.processor.tokenizer.decode(ids[read], skip_special_tokens=True)
        assert text.strip() == f"{prompt} {sample[0].row['target']}"


def test_a_batch_answers_as_its_samples_one_by_one(load: Callable[..., LMM], kind: str, samples: list[Any]) -> None:
    model = load(kind, dtype=torch.float64)

    together = model.generate(model.collator(samples)[0])
    alone = [model.generate(model.collator([sample])[0])[0] for sample in samples]

    assert together == alone
    assert len(set(together)) > len(samples) / 2
    assert len({len(text.split()) for text in together}) > 2


def test_answers_are_the_stock_models_greedy_ones(
    load: Callable[..., LMM], kind: str, folder: Path, samples: list[Any]
) -> None:
    model = load(kind, dtype=torch.float64)
    stock = AutoModelForImageTextToText.from_pretrained(folder, dtype="float64").eval()
    tokenizer = model.processor.tokenizer
    together = model.generate(model.collator(samples)[0])

    for i in (0, 1, 2, 9):
        x, _, _ = model.collator([samples[i]])
        with torch.no_grad():
            ids = stock_greedy(stock, x, model.encoder_decoder, tokenizer.eos_token_id, x.tasks[0].max_new_tokens)
        assert together[i] == tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_answers_are_no_longer_than_the_task_allows(load: Callable[..., LMM], kind: str, samples: list[Any]) -> None:
    model = load(kind)
    short = [(Example(replace(example.task, max_new_tokens=2), example.row), label) for example, label in samples]

    long = model.generate(model.collator(samples)[0])
    cut = model.generate(model.collator(short)[0])

    assert max(len(text.split()) for text in long) > 2
    assert cut == [" ".join(text.split()[:2]) for text in long]


def test_micro_batches_carry_every_sample_once_and_in_order(
    load: Callable[..., LMM], kind: str, samples: list[Any]
) -> None:
    x, _, _ = load(kind).collator(samples)

    parts = x.split(5)

    assert [len(part) for part in parts] == [5, 5, 5, 3]
    assert [row["id"] for part in parts for row in part.rows] == [example.row["id"] for example, _ in samples]
    assert torch.equal(torch.cat([part.labels for part in parts]), x.labels)
    assert torch.equal(torch.cat([part.inputs["input_ids"] for part in parts]), x.inputs["input_ids"])


def test_image_embeddings_are_the_towers_class_tokens(
    load: Callable[..., LMM], kind: str, folder: Path, samples: list[Any]
) -> None:
    model = load(kind)
    x, _, _ = model.collator(samples)

    stock = AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = stock.vision_model(pixel_values=x.images.tensors["pixel_values"]).last_hidden_state[:, 0]

    assert torch.equal(model.embed_images(x), expected)
    assert len(expected.unique(dim=0)) > len(samples) / 2


def test_the_share_of_words_without_a_token(load: Callable[..., LMM]) -> None:
    model = load()

    assert model.spelled_share(["red circle", "a blue square"]) == 0
    assert model.spelled_share(["zebra", "xylophone"]) == 1
    assert model.spelled_share(["red zebra", "blue xylophone"]) == 0.5
    assert model.spelled_share([]) == 0


def test_the_longest_text_is_taken_and_one_token_more_is_refused(
    load: Callable[..., LMM], kind: str, samples: list[Any]
) -> None:
    model = load(kind)
    example, label = samples[0]

    def ask(words: int) -> Any:
        task = replace(example.task, prompt="it " * (words - 1) + "it")
        return model.collator([(Example(task, example.row), label)])

    x, _, _ = ask(TEXT_POSITIONS - 1)  # the end token takes one place
    assert x.inputs["qformer_input_ids"].shape == (1, TEXT_POSITIONS)
    assert model(x).isfinite().all()
    assert len(model.generate(x)) == 1
    with pytest.raises(UserError, match=r"task 'colour', sample 'colour-test-0': .* 65 tokens, the model takes 64"):
        ask(TEXT_POSITIONS)


def test_a_missing_image_is_named_with_its_sample(load: Callable[..., LMM], samples: list[Any]) -> None:
    example, label = samples[1]
    row = {**example.row, "image": {"path": "/nowhere/gone.png", "bytes": None}}

    with pytest.raises(UserError, match=r"task 'shape', sample 'shape-test-0': cannot read .*/nowhere/gone\.png"):
        load().collator([(Example(example.task, row), label)])


def test_a_damaged_image_is_named_with_its_sample(load: Callable[..., LMM], samples: list[Any], tmp_path: Path) -> None:
    collator = load().collator
    example, label = samples[1]
    sound = Path(example.row["image"]["path"]).read_bytes()
    file = tmp_path / "damaged.png"
    row = {**example.row, "image": {"path": str(file), "bytes": None}}
    damaged = [b"", b"no image", *(sound[:i] for i in range(1, len(sound) - 12, 5))]
    damaged += [sound[:i] + bytes([sound[i] ^ 255]) + sound[i + 1 :] for i in range(len(sound))]

    errors = []
    for content in damaged:
        file.write_bytes(content)
        try:
            collator([(Example(example.task, row), label)])
        except UserError as error:
            errors.append(str(error))
    assert len(errors) > len(damaged) / 2
    start = f"task 'shape', sample 'shape-test-0': cannot read the image {file}: "
    assert all(error.startswith(start) for error in errors)
