"""A checkpoint that is not as it was written leads to the one before it or to one line, and is left as it is."""

import copy
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin, ReplayPlugin
from damage import VALUES, changed, counts, damaged, files_of, fuzz
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from avalanche_cit.benchmarks import Task, instruction_benchmark
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.logging.json_lines import JSONLinesLogger
from avalanche_cit.models import LMM
from avalanche_cit.similarity import SeenTasks
from avalanche_cit.similarity.encoders import TokenEmbedding, VisionTower
from avalanche_cit.training import (
    AGEMPlugin,
    EProj,
    EWCImportance,
    InstructionTuning,
    LwFPlugin,
    RegularizationPlugin,
    SeqFT,
)
from avalanche_cit.training.checkpointing import CheckpointPlugin, maybe_load_checkpoint
from avalanche_cit.training.plugins.balanced_memory import BalancedMemory, MemoryPlugin


def _methods(model: LMM, **common: Any) -> InstructionTuning:
    """Every method's plugin at once, but for EProj's, which combines with none."""
    memory = BalancedMemory(4)
    tir = RegularizationPlugin(
        EWCImportance(),
        1e3,
        merge="max",
        weighting="dissimilarity",
        seen_tasks=SeenTasks(VisionTower(model), TokenEmbedding(model)),
    )
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    schedule = LRSchedulerPlugin(torch.optim.lr_scheduler.StepLR(optimizer, 2))
    plugins = [AGEMPlugin(4), MemoryPlugin(memory), ReplayPlugin(4, 2, storage_policy=memory), tir, LwFPlugin(1.0)]
    common["plugins"] = [*plugins, schedule, *common["plugins"]]
    return SeqFT(model=model, optimizer=optimizer, warmup=None, **common)


def _eproj(model: LMM, **common: Any) -> InstructionTuning:
    return EProj(model=model, threshold=0.9, **common)


class _Stop(SupervisedPlugin):
    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.clock.train_iterations == 6:
            raise KeyboardInterrupt

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Saved(NamedTuple):
    """A strategy, the folder of its two checkpoints, the newer one inside the second task, and its logged lines."""

    strategy: InstructionTuning
    folder: Path
    metrics: Path
    lines: bytes

    def load(self, content: dict[str, bytes | None], folder: Path) -> None:
        """Load from a folder of that content, which may fail by one line, and changes nothing in it."""
        self.metrics.write_bytes(self.lines)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, data in content.items():
            if data is None:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(data)
        before, said = files_of(folder), ""
        try:
            maybe_load_checkpoint(self.strategy, folder)
        except UserError as error:
            said = str(error)
        assert "\n" not in said
        assert files_of(folder) == before


@pytest.fixture(scope="module", params=[_methods, _eproj])
def saved(
    request: pytest.FixtureRequest, tasks: dict[str, Task], load: Callable[..., LMM], tmp_path_factory: Any
) -> Saved:
    run = tmp_path_factory.mktemp("run")
    benchmark = instruction_benchmark([tasks["colour"], tasks["shape"]])

    def make(*plugins: SupervisedPlugin) -> InstructionTuning:
        metrics = [ForgettingMatrix(benchmark), loss_metrics(epoch=True)]
        evaluator = EvaluationPlugin(*metrics, loggers=[JSONLinesLogger(path=run / "metrics.jsonl")])
        model = load("llama", trainable="projection")
        made: InstructionTuning = request.param(
            model, train_mb_size=4, evaluator=evaluator, plugins=[*plugins, _Stop()], seed=1
        )
        return made

    strategy = make(CheckpointPlugin(run / "checkpoints", every_steps=1))
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream[:1])
    with pytest.raises(KeyboardInterrupt):
        strategy.train(benchmark.train_stream[1])
    return Saved(make(), run / "checkpoints", run / "metrics.jsonl", (run / "metrics.jsonl").read_bytes())


def _document(content: dict[str, Any]) -> bytes:
    """A checkpoint's document, with the checksum that is right for what it holds."""
    whole = {key: value for key, value in content.items() if key != "crc32"}
    crc32 = zlib.crc32(json.dumps(whole, sort_keys=True).encode())
    return json.dumps({**whole, "crc32": f"{crc32:08x}"}).encode()


def test_the_undamaged_one_is_loaded(saved: Saved) -> None:
    strategy, trained = maybe_load_checkpoint(saved.strategy, saved.folder)

    assert (trained, strategy.clock.train_iterations) == (1, 6)
    document = json.loads(max(saved.folder.glob("*.json")).read_bytes())
    assert json.loads(_document(document)) == document


@counts(30, 750)
def test_damaged_files(saved: Saved, tmp_path: Path, examples: int) -> None:
    whole = {path.name: path.read_bytes() for path in saved.folder.iterdir()}
    others = [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"crc32": "00000000"}', b"[" * 10**5, b'{"a":' * 600, save({})]

    def check(data: st.DataObject) -> None:
        content: dict[str, bytes | None] = dict(whole)
        for name in data.draw(st.lists(st.sampled_from(sorted(content)), min_size=1, max_size=4, unique=True)):
            kind = data.draw(st.sampled_from(["bytes", "cut", "gone", "folder", "other", "swapped"]))
            original = whole[name]
            if kind == "gone":
                del content[name]
            elif kind == "cut":
                content[name] = original[: data.draw(st.integers(0, len(original)))]
            elif kind == "other":
                content[name] = data.draw(st.sampled_from(others))
            elif kind == "swapped":
                content[name] = whole[data.draw(st.sampled_from(sorted(whole)))]
            else:
                content[name] = damaged(data, original) if kind == "bytes" else None
        saved.load(content, tmp_path / "checkpoints")

    fuzz(check, examples)


@counts(30, 750)
def test_wrong_content_with_a_right_checksum(saved: Saved, tmp_path: Path, examples: int) -> None:
    newest = max(saved.folder.glob("*.json"))
    document = json.loads(newest.read_bytes())
    tensor_file = document["tensors"]["file"]
    tensors = load_file(saved.folder / tensor_file)

    def check(data: st.DataObject) -> None:
        wrong = _changed_somewhere(data, document)
        content: dict[str, bytes | None] = {tensor_file: (saved.folder / tensor_file).read_bytes()}
        if data.draw(st.booleans()):
            own = dict(tensors)
            name = data.draw(st.sampled_from(sorted(own)))
            own[name] = data.draw(st.sampled_from([_shorter, _longer, _other_type, _flat]))(own[name])
            if data.draw(st.booleans()):
                own[data.draw(st.sampled_from(["other", *sorted(own)]))] = own.pop(name)
            content[tensor_file] = save({key: tensor.contiguous().clone() for key, tensor in own.items()})
            if isinstance(wrong, dict) and isinstance(wrong.get("tensors"), dict):
                wrong["tensors"]["crc32"] = f"{zlib.crc32(content[tensor_file]):08x}"
        content[newest.name] = _document(wrong) if isinstance(wrong, dict) else json.dumps(wrong).encode()
        saved.load(content, tmp_path / "checkpoints")

    fuzz(check, examples)


def _changed_somewhere(data: st.DataObject, document: dict[str, Any]) -> Any:
    """Change a document, or the state of one part of it: most places are in the long lists of random numbers."""
    document = copy.deepcopy(document)
    training = document["training"]
    kind = data.draw(st.sampled_from(["whole", "plugin", "metric", "training", "optimizer", "random", "nothing"]))
    if kind == "whole":
        return changed(data, document)
    holder = {
        "plugin": training["plugins"],
        "metric": document["evaluation"],
        "optimizer": training["optimizer"],
        "random": training["random"][0],
        "training": training,
        "nothing": {},
    }[kind]
    if not holder:
        return document
    key = data.draw(st.sampled_from(sorted(holder)))
    how = data.draw(st.sampled_from(["replace", "delete", "inside"]))
    if how == "delete":
        del holder[key]
    else:
        holder[key] = data.draw(VALUES) if how == "replace" else changed(data, holder[key])
    return document


def _shorter(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:-1] if tensor.ndim else tensor[None]


def _longer(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat([tensor, tensor]) if tensor.ndim else tensor.repeat(2)


def _other_type(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.int64 if tensor.is_floating_point() else torch.float32)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1, 1)
