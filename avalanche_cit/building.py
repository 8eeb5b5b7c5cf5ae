"""What a configuration names, made: its tasks, its model and its strategy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avalanche.benchmarks import CLScenario
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from avalanche_cit.benchmarks.catalogue import benchmark_tasks
from avalanche_cit.benchmarks.images import without_unreadable
from avalanche_cit.benchmarks.lengths import without_too_long
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.errors import unknown_name
from avalanche_cit.evaluation.scores import get_score
from avalanche_cit.models.feature_cache import GB, VisionFeatures
from avalanche_cit.models.lmm import LMM
from avalanche_cit.models.plain_options import family_of, lora_config, quantization_config
from avalanche_cit.processes import Processes
from avalanche_cit.run_config import STRATEGIES, RunConfig
from avalanche_cit.similarity import SeenTasks, TextEncoder, embedding_cache, make_image_encoder, make_text_encoder
from avalanche_cit.training.methods import (
    AGEM,
    EWC,
    MAS,
    TIR,
    EProj,
    LwF,
    Replay,
    SimilarityReplay,
    memory_size_of,
)
from avalanche_cit.training.plugins.importance import EWCImportance, MASImportance
from avalanche_cit.training.strategies import DirectFT, JointFT, SeqFT
from avalanche_cit.training.templates import InstructionTuning


def load_tasks(config: RunConfig) -> tuple[list[Task], list[Task]]:
    """Load task 0's members and the sequence."""
    given = {"train": config.train_samples, "validation": config.validation_samples, "test": config.test_samples}
    task0, sequence = benchmark_tasks(
        config.benchmark,
        seed=config.seed,
        sizes={split: size for split, size in given.items() if size is not None},
        data_root=config.data_root,
        task0=bool(config.task0),
        image_roots=[Path(str(folder)) for folder in config.image_root],
        keep_missing_images=config.on_bad_sample == "skip",
    )
    for task in (*task0, *sequence):
        get_score(task.score)
    return task0, sequence


def load_model(config: RunConfig, features: VisionFeatures | None) -> LMM:
    """Load the start model.

    Args:
        config: Names it, and says whether and in how much room its vision features are kept.
        features: Those that are open already, if any are.
    """
    if config.cache_features:
        features = features or VisionFeatures()
        features.max_bytes = round(config.cache_gb * GB)
    return LMM.from_pretrained(
        config.model,
        trainable=config.trainable,
        lora=lora_config(config.lora),
        family=family_of(config.modules),
        dtype=config.dtype,
        gradient_checkpointing=config.gradient_checkpointing,
        device_map=config.device_map,
        quantization_config=quantization_config(config.quantization, config.dtype),
        trust_remote_code=config.trust_remote_code,
        vision_features=features if config.cache_features else None,
    )


def without_bad(task: Task, model: LMM, left_out: dict[str, dict[str, int]]) -> Task:
    """Leave out samples whose image cannot be read or that are too long for the model, and note how many."""
    task, unreadable = without_unreadable(task)
    task, too_long = without_too_long(task, model.collator)
    left_out[task.name] = {split: unreadable[split] + too_long[split] for split in unreadable}
    for counts, what in ((unreadable, "whose image cannot be read"), (too_long, "that are too long for the model")):
        if count := sum(counts.values()):
            parts = ", ".join(f"{number} of {split}" for split, number in counts.items() if number)
            print(f"note: task '{task.name}': {count} samples {what} are left out ({parts})")
    return task


def say_what_is_new(model: LMM, tasks: list[Task]) -> None:
    """Warn where a frozen language model is asked to say what it may never have learned to say."""
    if not model.language_is_frozen:
        return
    for task in tasks:
        share = model.spelled_share(task.train["target"][:200])
        if share > 0.5:
            print(
                f"note: {share:.0%} of the target words of task '{task.name}' are spelled out in bytes: the frozen "
                "language model may never have learned to say them; --trainable all can teach it"
            )


def make_strategy(
    config: RunConfig,
    model: LMM,
    benchmark: CLScenario,
    plugins: Sequence[SupervisedPlugin],
    evaluator: EvaluationPlugin,
    processes: Processes,
) -> InstructionTuning:
    """Make the strategy, with further plugins."""
    common: dict[str, Any] = {
        "model": model,
        "processes": processes,
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "warmup": config.warmup,
        "train_mb_size": config.batch_size,
        "micro_batch_size": config.micro_batch_size,
        "train_epochs": config.epochs,
        "eval_mb_size": config.eval_batch_size,
        "max_grad_norm": config.max_grad_norm,
        "bf16": config.bf16,
        "compile": config.compile,
        "group_by_length": config.group_by_length,
        "eval_loss": False,
        "seed": config.seed,
        "device": config.device,
        "plugins": list(plugins),
        "evaluator": evaluator,
    }
    task0 = benchmark.task0_train_stream if config.task0 else ()
    penalty: dict[str, Any] = {"lambda_": config.lambda_}

    def memory() -> dict[str, Any]:
        size = memory_size_of([*benchmark.train_stream, *task0], config.memory_fraction)
        return {"memory_size": size, "task0": task0}

    match config.strategy:
        case "seqft" | "seqft_projection":
            return SeqFT(**common)
        case "directft":
            return DirectFT(**common)
        case "jointft":
            return JointFT(**common)
        case "replay":
            return Replay(memory_batch_size=config.memory_batch_size, **memory(), **common)
        case "similarity_replay":
            return SimilarityReplay(
                seen_tasks=_seen_tasks(config, model),
                memory_batch_size=config.memory_batch_size,
                **memory(),
                **common,
            )
        case "agem":
            return AGEM(**memory(), **common)
        case "lwf":
            return LwF(temperature=config.temperature, from_start=bool(task0), **penalty, **common)
        case "ewc" | "mas" | "ewc_max" | "mas_max":
            method = EWC if config.strategy.startswith("ewc") else MAS
            merged: dict[str, Any] = {"merge": "max", "normalised": True} if config.strategy.endswith("_max") else {}
            return method(
                per_sample=config.per_sample,
                importance_samples=config.importance_samples,
                task0=task0,
                **merged,
                **penalty,
                **common,
            )
        case "ewc_tir" | "mas_tir":
            importance = EWCImportance if config.strategy == "ewc_tir" else MASImportance
            return TIR(
                importance=importance(per_sample=config.per_sample, samples=config.importance_samples),
                weighting=config.weighting,
                rescale=config.rescale,
                seen_tasks=_seen_tasks(config, model),
                task0=task0,
                **penalty,
                **common,
            )
        case "eproj" | "eproj_expand":
            encode_text = make_text_encoder(config.text_encoder, model)
            return EProj(
                threshold=config.threshold if config.strategy == "eproj" else None,
                encode_text=encode_text,
                seen_tasks=_seen_tasks(config, model, encode_text),
                task0=task0,
                **common,
            )
        case _:
            raise unknown_name("strategy", config.strategy, STRATEGIES)


def _seen_tasks(config: RunConfig, model: LMM, encode_text: TextEncoder | None = None) -> SeenTasks:
    return SeenTasks(
        make_image_encoder(config.image_encoder, model),
        encode_text or make_text_encoder(config.text_encoder, model),
        fusion=config.fusion,
        samples=config.similarity_samples,
        cache=embedding_cache(),
    )
