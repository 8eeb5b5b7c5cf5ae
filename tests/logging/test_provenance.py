"""Provenance: every fact is the machine's, the model's and the data's own."""

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import psutil
import pytest
import torch
from PIL import Image

from avalanche_cit.benchmarks.instruction_data import FEATURES
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.logging import provenance as module
from avalanche_cit.logging.provenance import circumstances, ingredients, peak_memory
from avalanche_cit.models.fingerprint import module_fingerprint
from avalanche_cit.models.lmm import LMM
from avalanche_cit.models.tiny.architecture import build_model, build_processor, build_tokenizer

MakeTask = Callable[..., Task]


@pytest.fixture(scope="module")
def model() -> LMM:
    tokenizer = build_tokenizer(["a red circle"])
    return LMM(build_model(tokenizer, seed=0), build_processor(tokenizer), trainable="projection")


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")

    def make(name: str = "vqa", **changes: Any) -> Task:
        row = {"image": str(tmp_path / "picture.png"), "more_images": None, "instruction": "what?", "target": "red"}
        row |= {"references": ["red", "rose"], "task": name, "choices": ["red", "blue"]}
        rows = [row | {"id": str(i)} for i in range(3)]
        data = datasets.Dataset.from_list(rows, features=FEATURES)
        test = datasets.Dataset.from_list([rows[0], rows[1] | changes, rows[2]], features=FEATURES)
        return Task(name, data, data.select([0]), test, prompt="{question}", score="exact_match", max_new_tokens=5)

    return make


def test_what_a_run_was_made_of(model: LMM, make_task: MakeTask) -> None:
    facts = {**ingredients(model, [make_task(), make_task("other")]), **circumstances(seed=7)}

    assert json.loads(json.dumps(facts)) == facts  # plain values
    assert facts["seed"] == 7
    assert facts["packages"]["torch"] == metadata.version("torch")
    assert {"avalanche_cit", "avalanche-lib", "transformers", "peft", "datasets"} <= facts["packages"].keys()
    projection = model.hf.language_projection
    assert facts["model"] == {
        "architecture": "InstructBlipForConditionalGeneration",
        "parameters": sum(weight.numel() for weight in model.hf.parameters()),
        "trainable_parameters": projection.weight.numel() + projection.bias.numel(),
        "fingerprint": f"sha256 {module_fingerprint(model.hf)}",
    }
    assert facts["hardware"]["threads"] == torch.get_num_threads()
    assert len(facts["hardware"]["gpus"]) == torch.cuda.device_count()
    assert len(peak_memory()) == 1 + torch.cuda.device_count()
    assert 50 < peak_memory()["peak_memory_mb"] < facts["hardware"]["memory_mb"]
    assert list(facts["data"]) == ["vqa", "other"]
    assert list(facts["data"]["vqa"]) == ["train", "validation", "test"]
    assert facts["data"]["vqa"]["test"].startswith("3 samples, sha256 ")


def test_the_model_is_fingerprinted_as_it_stands(model: LMM) -> None:
    before = ingredients(model, [])["model"]
    bias = model.hf.language_projection.bias
    with torch.no_grad():
        bias[0] += 1
    after = ingredients(model, [])["model"]
    with torch.no_grad():
        bias[0] -= 1
    assert {key for key in before if before[key] != after[key]} == {"fingerprint"}


def test_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two GPUs that are not there, and a processor as Linux describes it on x86 and elsewhere."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"gpu {i}")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda i: (i + 3) * 2**20 + 5)
    cpu_info = tmp_path / "cpuinfo"
    monkeypatch.setattr(module, "_CPU_INFO", cpu_info)
    cpu_info.write_text("processor\t: 0\nmodel name\t: Fast: 3 GHz\n\nprocessor\t: 1\nmodel name\t: Fast: 3 GHz\n")
    facts = circumstances(seed=0)
    assert facts["hardware"]["gpus"] == ["gpu 0", "gpu 1"]
    assert {key: peak for key, peak in peak_memory().items() if "gpu" in key} == {
        "peak_gpu0_memory_mb": 3,
        "peak_gpu1_memory_mb": 4,
    }
    assert facts["hardware"]["processor"] == "Fast: 3 GHz"
    assert facts["hardware"]["memory_mb"] == round(psutil.virtual_memory().total / 2**20)

    monkeypatch.setattr("platform.processor", lambda: "arm")
    cpu_info.write_text("processor\t: 0\nFeatures\t: fp\n")
    assert circumstances(seed=0)["hardware"]["processor"] == "arm"
    cpu_info.unlink()
    monkeypatch.setattr("platform.processor", lambda: "")
    assert circumstances(seed=0)["hardware"]["processor"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "9"},
        {"instruction": "where?"},
        {"target": "rose"},
        {"references": ["red"]},
        {"choices": ["red", "green"]},
        {"choices": None},
    ],
)
def test_any_changed_text_changes_the_fingerprint_of_its_split(
    model: LMM, make_task: MakeTask, changes: dict[str, Any]
) -> None:
    before = ingredients(model, [make_task()])["data"]["vqa"]
    after = ingredients(model, [make_task(**changes)])["data"]["vqa"]
    assert ingredients(model, [make_task()])["data"]["vqa"] == before
    assert {split for split in before if before[split] != after[split]} == {"test"}


def test_the_commit_of_the_checkout(model: LMM, tmp_path: Path) -> None:
    """The same module in a checkout of its own: not yet one, without a commit, clean, changed."""
    file = tmp_path / "checkout" / "avalanche_cit" / "logging" / "provenance.py"
    file.parent.mkdir(parents=True)
    shutil.copy(str(module.__file__), file)
    spec = importlib.util.spec_from_file_location("provenance_of_a_checkout", file)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)

    def git(*command: str) -> str:
        options = ["-C", str(tmp_path / "checkout"), "-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", *options, *command], check=True, capture_output=True, text=True).stdout.strip()

    def facts() -> tuple[str | None, bool | None]:
        found = copy.ingredients(model, [])
        return found["git_commit"], found["git_dirty"]

    assert facts() == (None, None)
    git("init", "-q")
    assert facts() == (None, None)
    git("add", "avalanche_cit/logging/provenance.py")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert len(commit) == 40
    assert facts() == (commit, False)
    beside = tmp_path / "checkout" / "avalanche_cit" / "runner.py"
    beside.write_text("# a file of another folder of the package\n")
    assert facts() == (commit, True)
    beside.unlink()
    assert facts() == (commit, False)
    file.write_text(file.read_text() + "# changed\n")
    assert facts() == (commit, True)
