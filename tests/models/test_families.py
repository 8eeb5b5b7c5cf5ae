"""Every family answers, learns, saves and loads as its plain transformers model does, and only what is tuned changes.

The plain model is given one sample at a time, as a user of transformers would; ours answers a padded batch.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor
from zoo import ZOO, checkpoint

from avalanche_cit.benchmarks.batch import IGNORED, InstructionBatch
from avalanche_cit.benchmarks.collator import decode_image
from avalanche_cit.models import LMM
from avalanche_cit.training import EWC, SeqFT
from avalanche_cit.training.plugins.regularization import RegularizationPlugin

Snapshot = Callable[[nn.Module], dict[str, Tensor]]

# what each model reads of one sample, a token that repeats shortened to <token>*n, and what it learns to say after it
ASKED = "Question: colour? Answer:"
QWEN = f"<|vision_start|><|image_pad|>*4<|vision_end|>{ASKED}<|im_end|>\n<|im_start|>assistant\n"
SAID = {
    "instructblip_t5": (f"<image>*4 {ASKED}</s>", "pale yellow</s>"),
    "instructblip_llama": (f"<image>*4</s> {ASKED}", "pale yellow</s>"),
    "blip2_t5": (f"<image>*4 {ASKED}</s>", "pale yellow</s>"),
    "blip2_opt": (f"<image>*4</s>{ASKED}", " pale yellow\n"),
    "llava": (f"<s> USER: <image>*16\n{ASKED} ASSISTANT:", "pale yellow</s>"),
    "llava_onevision": (
        f"<|im_start|>user <image>*36\n{ASKED}<|im_end|><|im_start|>assistant\n",
        "pale yellow<|im_end|>",
    ),
    "qwen2_vl": (f"<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n{QWEN}", "pale yellow<|im_end|>"),
    "qwen2_5_vl": (f"<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n{QWEN}", "pale yellow<|im_end|>"),
    "qwen3_vl": (f"<|im_start|>user\n{QWEN}", "pale yellow<|im_end|>"),
    "idefics3": (
        "<|begin_of_text|>User:<fake_token_around_image><row_1_col_1><image>*4<fake_token_around_image><row_1_col_2>"
        "<image>*4\n<fake_token_around_image><row_2_col_1><image>*4<fake_token_around_image><row_2_col_2><image>*4\n\n"
        f"<fake_token_around_image><global-img><image>*4<fake_token_around_image>{ASKED}<end_of_utterance>\nAssistant:",
        " pale yellow<end_of_utterance>",
    ),
    "smolvlm": (
        "<|im_start|>User:<fake_token_around_image><global-img><image>*4<fake_token_around_image>"
        f"{ASKED}<end_of_utterance>\nAssistant:",
        " pale yellow<end_of_utterance>",
    ),
    "paligemma": (f"<image>*16<bos>{ASKED}\n", "pale yellow<eos>"),
    "gemma3": (
        "<bos><start_of_turn>user\n\n\n<start_of_image><image_soft_token>*4<end_of_image>\n\n"
        f"{ASKED}<end_of_turn>\n<start_of_turn>model\n",
        "pale yellow<end_of_turn>",
    ),
    "internvl": (
        f"<|im_start|>user\n<img><IMG_CONTEXT>*4</img>\n{ASKED}<|im_end|>\n<|im_start|>assistant\n",
        "pale yellow<|im_end|>",
    ),
}


@pytest.fixture(scope="module", params=ZOO)
def name(request: pytest.FixtureRequest) -> str:
    """A family."""
    family: str = request.param
    return family


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family's checkpoint."""
    return checkpoint(name, tmp_path_factory)


@pytest.fixture(scope="module")
def model(folder: Path) -> LMM:
    """The family's model, in double precision."""
    return LMM.from_pretrained(folder, dtype="float64")


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[Any, Any]:
    """The same of plain transformers, with its processor."""
    hf = AutoModelForImageTextToText.from_pretrained(folder, dtype="float64")
    return hf, AutoProcessor.from_pretrained(folder)


def plain_inputs(processor: Any, example: Any, *, answered: bool = False) -> dict[str, Tensor]:
    """What plain transformers makes of one sample, with or without its answer."""
    question, image = example.task.render(example.row), decode_image(example)
    if processor.chat_template is not None:
        turns = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
        if answered:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": example.row["target"]}]})
        made = processor.apply_chat_template(
            turns, add_generation_prompt=not answered, tokenize=True, return_dict=True, return_tensors="pt"
        )
    elif "PaliGemma" in type(processor).__name__:
        suffix = {"suffix": example.row["target"]} if answered else {}
        made = processor(images=image, text=f"<image>{question}", return_tensors="pt", **suffix)
    else:
        made = processor(images=image, text=question, return_tensors="pt")
    return {key: tensor for key, tensor in made.items() if key != "labels"}


def stock_logits(hf: Any, batch: InstructionBatch, encoder_decoder: bool) -> Tensor:
    assert batch.images is not None
    labels = {"labels": batch.labels} if encoder_decoder else {}
    with torch.no_grad():
        logits: Tensor = hf(**batch.images.tensors, **batch.inputs, **labels).logits
    return logits


def tuned(folder: Path, benchmark: CLScenario, **options: Any) -> LMM:
    model = LMM.from_pretrained(folder, **options)
    SeqFT(model=model, train_mb_size=16, lr=1e-2).train(benchmark.train_stream[0])
    return model


# --- As the plain model -----------------------------------------------------------------------------------------------


def test_a_padded_batch_answers_as_the_plain_model_alone(
    model: LMM, plain: tuple[Any, Any], samples: list[Any]
) -> None:
    hf, processor = plain
    batch, _, _ = model.collator(samples)
    assert len({len(row[row != 0]) for row in batch.prompt_inputs["attention_mask"]}) > 2  # padding is at work

    answers = model.generate(batch)

    for sample, answer in zip(samples, answers, strict=True):
        made = hf.generate(
            **{k: t.double() if t.is_floating_point() else t for k, t in plain_inputs(processor, sample[0]).items()},
            max_new_tokens=sample[0].task.max_new_tokens,
            do_sample=False,
            eos_token_id=list(model.collator.limits.end_tokens),
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.stack(made.logits).topk(2, dim=-1).values
        assert float((best[..., 0] - best[..., 1]).min()) > 1e-4
        said = processor.tokenizer.decode(made.sequences[0, -len(made.logits) :], skip_special_tokens=True)
        assert answer == said.strip()
    assert len(set(answers)) > 2


def test_the_loss_is_the_plain_models_own(folder: Path, samples: list[Any]) -> None:
    model = LMM.from_pretrained(folder)
    hf = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    batch, labels, _ = model.collator(samples)
    assert batch.images is not None
    with torch.no_grad():
        logits = model(batch)
        expected = hf(**batch.images.tensors, **batch.inputs, labels=labels).loss

    loss = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)

    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)


def test_inputs_are_those_of_the_plain_processor(model: LMM, plain: tuple[Any, Any], samples: list[Any]) -> None:
    """Prompts token by token, pictures bit by bit, and where a template renders the answer, the answer too."""
    _, processor = plain
    for sample in samples:
        batch, _, _ = model.collator([sample])
        assert batch.images is not None
        expected = plain_inputs(processor, sample[0])
        for key, tensor in {**batch.images.tensors, **batch.prompt_inputs}.items():
            assert torch.equal(tensor, expected[key]), key
        answered = plain_inputs(processor, sample[0], answered=True)
        theirs, ours = answered["input_ids"][0].tolist(), batch.inputs["input_ids"][0].tolist()
        if len(theirs) > len(expected["input_ids"][0]):
            # LLaVA's template ends an answer by a space, OneVision's begins it with one: neither is an answer's own
            texts = ["".join(processor.tokenizer.decode(ids).split()) for ids in (theirs, ours)]
            assert texts[0] in (texts[1], texts[1].removesuffix("</s>"))
        if theirs[: len(ours)] == ours:
            for key, tensor in batch.inputs.items():
                assert torch.equal(tensor, answered[key][:, : len(ours)]), key


def test_labels_cover_the_answer_and_the_end_token_only(name: str, model: LMM, samples: list[Any]) -> None:
    example = next(s for s in samples if s[0].task.name == "colour" and s[0].row["instruction"] == "colour?")[0]
    example.row["target"] = "pale yellow"
    batch, labels, _ = model.collator([(example, 0)])
    tokenizer = model.processor.tokenizer
    answer = labels[0][labels[0] != IGNORED]

    read = tokenizer.decode(batch.prompt_inputs["input_ids"][0])
    shortened = re.sub(r"(<[^<>]+>)\1+", lambda run: f"{run[1]}*{run[0].count(run[1])}", read)
    assert (shortened, tokenizer.decode(answer)) == SAID[name]
    assert int(answer[-1]) in model.collator.limits.end_tokens
    if not model.encoder_decoder:
        prompt = batch.prompt_inputs["input_ids"][0].tolist()
        assert batch.inputs["input_ids"][0].tolist() == [*prompt, *answer.tolist()]
        assert labels[0, : len(prompt)].tolist() == [IGNORED] * len(prompt)


# --- What changes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["bridge", "projection", "language"])
def test_one_step_changes_exactly_the_trainable_weights(
    part: str, folder: Path, benchmark: CLScenario, snapshot: Snapshot
) -> None:
    model = LMM.from_pretrained(folder, trainable=part)
    before = snapshot(model)
    strategy = SeqFT(model=model, train_mb_size=16, lr=1e-2)

    strategy.train(benchmark.train_stream[0])

    assert strategy.clock.train_iterations == 1
    changed = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    assert changed == set(model.trainable_state())


def test_gradient_checkpointing_changes_no_gradient(folder: Path, samples: list[Any]) -> None:
    """And frozen layers compute anew in the backward pass: their activations were not kept."""
    gradients, passes = [], []
    for checkpointing in (False, True):
        model = LMM.from_pretrained(folder, gradient_checkpointing=checkpointing)
        model.train()
        attention = [module for module in model.language_model.modules() if type(module).__name__.endswith("Attention")]
        count = [0]
        for module in attention:
            module.register_forward_hook(lambda *_, c=count: c.__setitem__(0, c[0] + 1))
        batch, labels, _ = model.collator(samples[:4])
        nn.functional.cross_entropy(model(batch), labels, ignore_index=IGNORED).backward()
        gradients.append({key: weight.grad for key, weight in model.named_parameters() if weight.grad is not None})
        passes.append(count[0])

    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-5, atol=1e-6)
    assert passes[1] == 2 * passes[0]


# --- Saving -----------------------------------------------------------------------------------------------------------


def test_what_is_saved_plain_transformers_loads(
    folder: Path, benchmark: CLScenario, samples: list[Any], tmp_path: Path
) -> None:
    model = tuned(folder, benchmark)
    model.save_pretrained(tmp_path)

    hf, report = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="float32", output_loading_info=True)

    assert not any(report.values())
    batch, _, _ = model.collator(samples)
    logits = stock_logits(model.hf, batch, model.encoder_decoder)
    assert torch.equal(stock_logits(hf, batch, model.encoder_decoder), logits)
    start = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    assert not torch.equal(stock_logits(start, batch, model.encoder_decoder), logits)
    assert LMM.from_pretrained(tmp_path).generate(batch) == model.generate(batch)


def test_an_adapter_that_is_saved_plain_peft_loads(
    folder: Path, benchmark: CLScenario, samples: list[Any], tmp_path: Path
) -> None:
    model = tuned(folder, benchmark, lora=LoraConfig(r=2))
    model.save_pretrained(tmp_path)

    start = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    batch, _, _ = model.collator(samples)
    untuned = stock_logits(start, batch, model.encoder_decoder)
    theirs = stock_logits(PeftModel.from_pretrained(start, tmp_path), batch, model.encoder_decoder)

    logits = stock_logits(model.hf, batch, model.encoder_decoder)
    assert torch.equal(theirs, logits)
    assert not torch.equal(untuned, logits)


def test_lora_is_put_into_the_language_model_and_methods_hold_it_alone(folder: Path, benchmark: CLScenario) -> None:
    model = LMM.from_pretrained(folder, lora=LoraConfig(r=2))
    state = model.trainable_state()
    prefix = f"hf.{model.family.language}."
    linear = {
        name
        for name, layer in model.language_model.named_modules()
        if isinstance(layer, nn.Linear) and "lora" not in name and "lm_head" not in name
    }
    assert {name for name in state if not name.startswith(prefix)} == set()
    assert len(state) == 2 * len(linear)
    assert all(".lora_A." in name or ".lora_B." in name for name in state)

    strategy = EWC(model=model, lambda_=1.0, train_mb_size=16)
    strategy.train(benchmark.train_stream[0])
    plugin = next(plugin for plugin in strategy.plugins if isinstance(plugin, RegularizationPlugin))

    weights = sum(weight.numel() for weight in state.values())
    held = [value for value in plugin.state_dict().values() if isinstance(value, Tensor)]
    assert sum(tensor.numel() for tensor in held) == 2 * weights  # importance and anchor
