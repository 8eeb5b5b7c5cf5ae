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
import pytest
import torch
from PIL import Image

from avalanche_cit.benchmarks.instruction_data import FEATURES
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.logging import provenance as module
from avalanche_cit.logging.provenance import provenance
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
    facts = provenance(model, [make_task(), make_task("other")], seed=7)

    assert json.loads(json.dumps(facts)) == facts  # plain values
    assert facts["seed"] == 7
    assert facts["packages"]["torch"] == metadata.version("torch")
    assert {"avalanche_cit", "avalanche-lib", "transformers", "peft", "datasets"} <= facts["packages"].keys()
    projection = model.hf.language_projection
    assert facts["model"] == {
        "architecture": "InstructBlipForConditionalGeneration",
        "parameters": sum(weight.numel() for weight in model.hf.parameters()),
        "trainable_parameters": projection.weight.numel() + projection.bias.numel(),
    }
    assert facts["hardware"]["threads"] == torch.get_num_threads()
    assert len(facts["hardware"]["gpus"]) == torch.cuda.device_count()
    assert 50 < facts["peak_memory_mb"] < 1_000_000
    assert list(facts["data"]) == ["vqa", "other"]
    assert list(facts["data"]["vqa"]) == ["train", "validation", "test"]
    assert facts["data"]["vqa"]["test"].startswith("3 samples, sha256 ")


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
    before = provenance(model, [make_task()], seed=0)["data"]["vqa"]
    after = provenance(model, [make_task(**changes)], seed=0)["data"]["vqa"]
    assert provenance(model, [make_task()], seed=0)["data"]["vqa"] == before
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
        found = copy.provenance(model, [], seed=0)
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
