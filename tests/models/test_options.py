"""Precision, memory, LoRA, names of modules by hand, and what a user can get wrong with them: one clear line each."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.opt.modeling_opt import OPTDecoderLayer
from zoo import checkpoint

from avalanche_cit.benchmarks import Task
from avalanche_cit.benchmarks.lengths import without_too_long
from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM, Family
from avalanche_cit.models.plain_options import family_of, lora_config, quantization_config
from avalanche_cit.training import SeqFT

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model."""
    return checkpoint("qwen2_5_vl", tmp_path_factory)


def weights(model: LMM) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


# --- LoRA -------------------------------------------------------------------------------------------------------------


def test_lora_beside_the_bridge(qwen: Path, benchmark: CLScenario, tmp_path: Path) -> None:
    model = LMM.from_pretrained(qwen, trainable="bridge", lora=LoraConfig(r=2, target_modules=["q_proj"]))
    names = set(model.trainable_state())
    assert {name for name in names if "lora" not in name} == {
        f"hf.model.visual.merger.{name}" for name, _ in model.hf.model.visual.merger.named_parameters()
    }
    before = weights(model)
    SeqFT(model=model, train_mb_size=16).train(benchmark.train_stream[0])
    assert {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])} <= names
    with pytest.raises(UserError, match="modules_to_save"):
        model.save_pretrained(tmp_path)


def test_modules_to_save_are_saved_with_the_adapter(qwen: Path, samples: list[Any], tmp_path: Path) -> None:
    lora = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["merger"], init_lora_weights=False)
    model = LMM.from_pretrained(qwen, lora=lora)
    with torch.no_grad():
        for weight in model.trainable_state().values():
            weight.add_(0.01)
    model.save_pretrained(tmp_path)
    batch, _, _ = model.collator(samples)

    again = LMM(AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="float32"), model.processor)

    assert torch.equal(again(batch), model(batch))


def test_the_users_configuration_of_lora_stays_as_it_is(qwen: Path) -> None:
    lora = LoraConfig(r=2)
    LMM.from_pretrained(qwen, lora=lora)
    assert lora.target_modules is None


def test_lora_targets_that_match_nothing(qwen: Path) -> None:
    with pytest.raises(UserError, match=r"^lora: Target modules .*no_proj") as caught:
        LMM.from_pretrained(qwen, lora=LoraConfig(target_modules=["no_proj"]))
    assert "\n" not in str(caught.value)


# --- Precision and memory ---------------------------------------------------------------------------------------------


def test_weights_in_bfloat16_are_tuned(qwen: Path, benchmark: CLScenario) -> None:
    model = LMM.from_pretrained(qwen, dtype="bfloat16")
    before = weights(model)
    SeqFT(model=model, train_mb_size=16, lr=0.1).train(benchmark.train_stream[0])
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert any(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_quantised_base_stays_as_it_is(bits: str, benchmark: CLScenario, tmp_path_factory: Any) -> None:
    folder = checkpoint("llava", tmp_path_factory)
    model = LMM.from_pretrained(folder, lora=LoraConfig(r=2), quantization_config=quantization_config(bits, "float32"))
    quantised = {name: w.detach().clone() for name, w in model.named_parameters() if not w.is_floating_point()}
    assert quantised
    assert model.to("meta") is model
    assert "meta" not in {weight.device.type for weight in model.parameters()}

    if bits == "8bit":  # bitsandbytes computes 4 bits on CPUs in blocks that are wider than this model
        SeqFT(model=model, train_mb_size=16).train(benchmark.train_stream[0])

    assert all(torch.equal(weight, dict(model.named_parameters())[name]) for name, weight in quantised.items())
    assert all("lora" in name for name in model.trainable_state())
    with pytest.raises(UserError, match="is quantised and cannot be tuned"):
        LMM.from_pretrained(folder, trainable="language", quantization_config=quantization_config(bits, "float32"))


def test_a_model_spread_over_devices_stays_where_it_is(qwen: Path, samples: list[Any], tmp_path: Path) -> None:
    batch, _, _ = LMM.from_pretrained(qwen).collator(samples)
    places = {"model.visual": "cpu", "model.language_model": "disk", "lm_head": "cpu"}
    hf = AutoModelForImageTextToText.from_pretrained(qwen, device_map=places, offload_folder=tmp_path)
    model = LMM(hf, AutoProcessor.from_pretrained(qwen))
    before = {name: weight.device for name, weight in model.named_parameters()}

    assert model.to("meta") is model

    assert {name: weight.device for name, weight in model.named_parameters()} == before
    assert model.generate(batch) == LMM.from_pretrained(qwen).generate(batch)


@pytest.mark.parametrize("fits", [8, 3, 1])
def test_when_memory_runs_out_the_step_means_the_same(
    fits: int, load: Callable[..., LMM], benchmark: CLScenario, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A forward pass of more than so many samples fails as on a GPU; 16, 8, 4 ... are tried."""
    gradients = []
    for limit in (16, fits):
        model = load(dtype=torch.float64)
        plain = model.hf.forward

        def forward(*args: Any, limit: int = limit, plain: Any = plain, **kwargs: Any) -> Any:
            if len(kwargs["input_ids"]) > limit:
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            return plain(*args, **kwargs)

        monkeypatch.setattr(model.hf, "forward", forward)
        strategy = SeqFT(model=model, train_mb_size=16, train_epochs=2, lr=1e-9)
        strategy.train(benchmark.train_stream[0])
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
        assert strategy.micro_batch_size == {16: None, 8: 8, 3: 2, 1: 1}[limit]
        # found once, kept from then on
        assert capsys.readouterr().out.count("memory ran out") == {16: 0, 8: 1, 3: 3, 1: 4}[limit]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-6, atol=1e-8)


def test_a_step_that_fails_halfway_begins_anew(
    load: Callable[..., LMM], benchmark: CLScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two micro-batches does not fit: the gradient of the first one must not count twice."""
    gradients = []
    for failing in (0, 2):
        model = load(dtype=torch.float64)
        plain, passes = model.hf.forward, [0]

        def forward(*args: Any, failing: int = failing, plain: Any = plain, passes: Any = passes, **kw: Any) -> Any:
            passes[0] += 1
            if passes[0] == failing:
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            return plain(*args, **kw)

        monkeypatch.setattr(model.hf, "forward", forward)
        SeqFT(model=model, train_mb_size=16, micro_batch_size=8).train(benchmark.train_stream[0])
        assert passes[0] == {0: 2, 2: 2 + 4}[failing]
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-6, atol=1e-8)


def test_checkpointing_turns_no_dropout_of_frozen_layers_on(
    samples: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """OPT's layers drop out by themselves, and have to be told that they are in training to be checkpointed."""
    folder = checkpoint("blip2_opt", tmp_path_factory)
    outputs = []
    for checkpointing in (False, True):
        model = LMM.from_pretrained(folder, gradient_checkpointing=checkpointing)
        for layer in model.language_model.modules():
            if isinstance(layer, OPTDecoderLayer):
                layer.dropout = 0.5
        model.train()
        outputs.append(model(model.collator(samples)[0]))
        assert outputs[-1].requires_grad
    assert torch.equal(*outputs)


def test_answers_are_the_same_when_memory_runs_out(
    load: Callable[..., LMM], samples: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load()
    batch, _, _ = model.collator(samples)
    answers = model.generate(batch)
    plain = model.hf.generate

    def generate(**kwargs: Any) -> Any:
        if len(kwargs["input_ids"]) > 5:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return plain(**kwargs)

    monkeypatch.setattr(model.hf, "generate", generate)
    assert model.generate(batch) == answers


def test_a_sample_that_never_fits_is_told(load: Callable[..., LMM], samples: list[Any], monkeypatch: Any) -> None:
    model = load()

    def generate(**kwargs: Any) -> Any:
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    monkeypatch.setattr(model.hf, "generate", generate)
    with pytest.raises(UserError, match="memory does not suffice for a single sample"):
        model.generate(model.collator(samples)[0])


def test_other_errors_pass(load: Callable[..., LMM], samples: list[Any], monkeypatch: Any) -> None:
    model = load()

    def generate(**kwargs: Any) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(model.hf, "generate", generate)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        model.generate(model.collator(samples)[0])


# --- Architectures that are not known ---------------------------------------------------------------------------------


@pytest.fixture
def unlisted(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The chat model, as if nothing were known of its architecture."""
    monkeypatch.setattr("avalanche_cit.models.lmm.FAMILIES", {})
    return qwen


def test_an_unlisted_architecture_is_tuned_by_patterns(unlisted: Path, benchmark: CLScenario, samples: Any) -> None:
    model = LMM.from_pretrained(unlisted, trainable=["model.visual.merger.*"])
    SeqFT(model=model, train_mb_size=16).train(benchmark.train_stream[0])
    assert len(model.generate(model.collator(samples)[0])) == len(samples)
    with pytest.raises(UserError, match="modules of the architecture 'qwen2_5_vl' are not known"):
        _ = model.vision


def test_an_unlisted_architecture_with_named_modules_has_its_parts(unlisted: Path) -> None:
    modules = {"vision": "model.visual", "projection": "model.visual.merger", "language": "model.language_model"}
    family = family_of({**modules, "bridge": "model.visual.merger"})
    assert family == Family("model.visual", "model.visual.merger", ("model.visual.merger",), "model.language_model")
    model = LMM.from_pretrained(unlisted, family=family)
    assert all(name.startswith("hf.model.visual.merger.") for name in model.trainable_state())
    with pytest.raises(UserError, match="the bridge of this architecture is not known"):
        LMM.from_pretrained(unlisted)
    with pytest.raises(UserError, match=r"lora: .* give target_modules"):
        LMM.from_pretrained(unlisted, lora=LoraConfig(r=2))


def test_an_unlisted_architecture_without_a_chat_template(unlisted: Path) -> None:
    hf = AutoModelForImageTextToText.from_pretrained(unlisted)
    processor = AutoProcessor.from_pretrained(unlisted)
    processor.chat_template = None
    with pytest.raises(UserError, match="unknown model architecture without a chat template 'qwen2_5_vl'"):
        LMM(hf, processor)


# --- What can be wrong ------------------------------------------------------------------------------------------------


def test_a_folder_without_a_processor(qwen: Path, tmp_path: Path) -> None:
    AutoModelForImageTextToText.from_pretrained(qwen).save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        LMM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    AutoProcessor.from_pretrained(qwen).tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="processor") as caught:
        LMM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture(qwen: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    shutil.copytree(qwen, tmp_path, dirs_exist_ok=True)
    shutil.copy(checkpoint("llava", tmp_path_factory) / "model.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="does not hold the weights of Qwen2_5_VLForConditionalGeneration"):
        LMM.from_pretrained(tmp_path)


def test_weights_of_another_size(qwen: Path, tmp_path: Path) -> None:
    shutil.copytree(qwen, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        LMM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_model_is_not_run_unasked(qwen: Path, tmp_path: Path) -> None:
    shutil.copytree(qwen, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    traps = dict.fromkeys(("AutoConfig", "AutoModelForImageTextToText"), "trap.Trap")
    config |= {"model_type": "unheard_of", "auto_map": traps}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "trap.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\n")
    with pytest.raises(UserError, match="contains custom code") as caught:
        LMM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lora_config({"rr": 2}), "unknown option of lora 'rr'"),
        (lambda: lora_config({"r": 2, "layers_pattern": "h"}), "^lora: "),
        (lambda: family_of({"vision": "a"}), "the name of projection is missing"),
        (lambda: family_of({"visoin": "a"}), "did you mean 'vision'"),
        (lambda: family_of({"vision": 1, "projection": "b", "bridge": [], "language": "d"}), "are names of modules"),
        (lambda: quantization_config("3bit", "float32"), "unknown quantization '3bit'"),
    ],
)
def test_options_that_are_wrong(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


# --- Length -----------------------------------------------------------------------------------------------------------


def test_a_sample_that_is_too_long_is_named_or_left_out(qwen: Path, tasks: dict[str, Task]) -> None:
    model = LMM.from_pretrained(qwen)
    task = tasks["colour"]

    def lengthen(row: dict[str, Any], place: int) -> dict[str, Any]:
        return row | {"instruction": row["instruction"] * (50 if place == 2 else 1)}

    longer = replace(task, test=task.test.map(lengthen, with_indices=True))
    kept, left_out = without_too_long(longer, model.collator)

    assert left_out == {"train": 0, "validation": 0, "test": 1}
    assert kept.test["id"] == [name for i, name in enumerate(task.test["id"]) if i != 2]
    with pytest.raises(UserError, match=r"every sample is too long, such as task .*, the model takes 384"):
        without_too_long(replace(task, prompt="long " * 100), model.collator)


# --- The hub ----------------------------------------------------------------------------------------------------------


def test_what_is_pushed_is_what_is_saved(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Made:
        repo_id = "me/tuned"

    def upload(self: HfApi, *, repo_id: str, folder_path: str) -> str:
        sent[repo_id] = LMM.from_pretrained(folder_path).trainable_state()
        return f"https://hub/{repo_id}"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, *, private, exist_ok: Made())
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    model = LMM.from_pretrained(qwen)

    assert model.push_to_hub("me/tuned") == "https://hub/me/tuned"

    assert all(torch.equal(weight, sent["me/tuned"][name]) for name, weight in model.trainable_state().items())


def test_who_is_not_logged_in_is_told(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: HfApi, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        raise LocalTokenNotFoundError

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match="hf auth login"):
        LMM.from_pretrained(qwen).push_to_hub("me/tuned")
