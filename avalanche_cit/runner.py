"""One configuration in, one finished run directory out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks import CLScenario
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from datasets import Dataset

from avalanche_cit.benchmarks.catalogue import benchmark_tasks, find_benchmark
from avalanche_cit.benchmarks.images import side_by_side, without_unreadable
from avalanche_cit.benchmarks.instruction_data import images_of
from avalanche_cit.benchmarks.lengths import without_too_long
from avalanche_cit.benchmarks.scenario import instruction_benchmark
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.errors import unknown_name
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.evaluation.scores import get_score
from avalanche_cit.evaluation.text_score import ForgettingMatrix
from avalanche_cit.logging.examples import choose_examples, picture_file, read_examples
from avalanche_cit.logging.json_lines import JSONLinesLogger
from avalanche_cit.logging.plots import plot_matrix, save_figure
from avalanche_cit.logging.progress import ProgressPlugin
from avalanche_cit.logging.provenance import provenance
from avalanche_cit.logging.report import write_report
from avalanche_cit.logging.run_directory import RunDirectory
from avalanche_cit.models.frozen_prefix import VisionFeatures
from avalanche_cit.models.lmm import LMM
from avalanche_cit.models.plain_options import family_of, lora_config, quantization_config
from avalanche_cit.run_config import STRATEGIES, RunConfig, defaults
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


def run(config: RunConfig, folder: Path, *, vision_features: VisionFeatures | None = None) -> MatrixFile:
    """Carry out one run, or read its matrix where the folder holds the same run, finished.

    Args:
        config: What to run.
        folder: The run directory.
        vision_features: Cache of vision features to share among runs of one start model in one process.

    Raises:
        UserError: An option, the data or the folder is wrong, another process writes to the folder, or the loss is no
            finite number.
    """
    config = config.resolved()
    directory = RunDirectory(folder, config.plain(), defaults())
    if directory.finished:
        return directory.read_matrix()
    with directory.locked():
        if not directory.finished:  # another process may have been faster
            _run(config, directory, vision_features)
    return directory.read_matrix()


def _run(config: RunConfig, directory: RunDirectory, vision_features: VisionFeatures | None) -> None:
    """Carry out a run from its beginning, and write everything that it leaves behind."""
    directory.clear()
    begin = time.monotonic()
    torch.set_num_threads(config.threads or torch.get_num_threads())
    task0, sequence = _load(config)
    features = (vision_features or VisionFeatures()) if config.cache_features else None
    model = LMM.from_pretrained(
        config.model,
        trainable=config.trainable,
        lora=lora_config(config.lora),
        family=family_of(config.modules),
        dtype=config.dtype,
        gradient_checkpointing=config.gradient_checkpointing,
        device_map=config.device_map,
        quantization_config=quantization_config(config.quantization, config.dtype),
        trust_remote_code=config.trust_remote_code,
        vision_features=features,
    )
    left_out: dict[str, dict[str, int]] = {}
    if config.on_bad_sample == "skip":
        task0, sequence = ([_without_bad(task, model, left_out) for task in tasks] for tasks in (task0, sequence))
    benchmark = instruction_benchmark(sequence, task0)
    _say_what_is_new(model, sequence)
    matrix = ForgettingMatrix(benchmark, stream=config.stream, predictions=directory.predictions)
    names = [task.name for task in (*sequence, *task0)]
    progress = ProgressPlugin(_batches(config, benchmark), f"{config.strategy}, seed {config.seed}")
    evaluator = EvaluationPlugin(
        matrix,
        loss_metrics(minibatch=True, epoch=True),
        loggers=[JSONLinesLogger(path=directory.metrics, task_names=names)],
    )
    strategy = _strategy(config, model, benchmark, progress, evaluator)

    def write() -> MatrixFile:
        file = matrix.as_file(
            kind=STRATEGIES[config.strategy],
            benchmark=find_benchmark(config.benchmark).name,
            strategy=config.strategy,
            model=config.model,
            seed=config.seed,
        )
        file.write(directory.folder)
        return file

    _train_and_evaluate(config, strategy, benchmark, write)
    progress.close()
    file = write()
    save_figure(plot_matrix(file), directory.folder / "matrix.png")
    _keep_pictures(directory.folder, file, {task.name: _scored(config, task) for task in (*task0, *sequence)})
    directory.finish(
        {
            **provenance(model, [*task0, *sequence], config.seed),
            "samples_seen": progress.samples_seen,
            "bad_samples_left_out": left_out,
            "wall_time_s": round(time.monotonic() - begin, 1),
        }
    )
    write_report([directory.folder], directory.folder / "report.html")


def _load(config: RunConfig) -> tuple[list[Task], list[Task]]:
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


def _without_bad(task: Task, model: LMM, left_out: dict[str, dict[str, int]]) -> Task:
    """Leave out samples whose image cannot be read or that are too long for the model, and note how many."""
    task, unreadable = without_unreadable(task)
    task, too_long = without_too_long(task, model.collator)
    left_out[task.name] = {split: unreadable[split] + too_long[split] for split in unreadable}
    for counts, what in ((unreadable, "whose image cannot be read"), (too_long, "that are too long for the model")):
        if count := sum(counts.values()):
            parts = ", ".join(f"{number} of {split}" for split, number in counts.items() if number)
            print(f"note: task '{task.name}': {count} samples {what} are left out ({parts})")
    return task


def _strategy(
    config: RunConfig, model: LMM, benchmark: CLScenario, progress: ProgressPlugin, evaluator: EvaluationPlugin
) -> InstructionTuning:
    common: dict[str, Any] = {
        "model": model,
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "warmup": config.warmup,
        "train_mb_size": config.batch_size,
        "micro_batch_size": config.micro_batch_size,
        "train_epochs": config.epochs,
        "eval_mb_size": config.eval_batch_size,
        "max_grad_norm": config.max_grad_norm,
        "bf16": config.bf16,
        "eval_loss": False,
        "seed": config.seed,
        "device": config.device,
        "plugins": [progress],
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


def _train_and_evaluate(config: RunConfig, strategy: InstructionTuning, benchmark: CLScenario, write: Any) -> None:
    """Fill the matrix row by row; what is written is whole after every row."""
    stream = benchmark.streams[config.stream]
    every_row = config.stream == "test"  # options are chosen by the last row, so validation has no other

    def evaluate(experiences: Iterable[Any]) -> None:
        strategy.eval(experiences, num_workers=config.workers)

    def evaluate_all() -> None:
        evaluate(stream)
        if _evaluates_task0(config):
            evaluate(benchmark.task0_test_stream)
        write()

    if every_row:
        evaluate_all()
    if config.strategy == "jointft":
        strategy.train(benchmark.train_stream, num_workers=config.workers)
        evaluate_all()
        return
    for number, (experience, own) in enumerate(zip(benchmark.train_stream, stream, strict=True), start=1):
        strategy.train(experience, num_workers=config.workers)
        if config.strategy == "directft":
            evaluate([own])
            write()
        elif every_row or number == len(stream):
            evaluate_all()


def _evaluates_task0(config: RunConfig) -> bool:
    return bool(config.task0) and config.stream == "test"


def _batches(config: RunConfig, benchmark: CLScenario) -> int:
    """Mini-batches of the whole run."""

    def count(stream: Iterable[Any], size: int) -> int:
        return sum(-(-len(experience.dataset) // size) for experience in stream)

    test = count(benchmark.streams[config.stream], config.eval_batch_size)
    members = count(benchmark.task0_test_stream, config.eval_batch_size) if _evaluates_task0(config) else 0
    tasks = len(benchmark.train_stream)
    rows = {"sequence": tasks + 1, "joint": 2, "independent": 1}[STRATEGIES[config.strategy]]
    if config.stream == "validation":
        rows = 0 if config.strategy == "directft" else 1
    train = count(benchmark.train_stream, config.batch_size)
    if config.strategy == "jointft":
        train = -(-sum(len(experience.dataset) for experience in benchmark.train_stream) // config.batch_size)
    alone = test if config.strategy == "directft" else 0
    return config.epochs * train + rows * (test + members) + alone


def _say_what_is_new(model: LMM, tasks: list[Task]) -> None:
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


def _scored(config: RunConfig, task: Task) -> Dataset:
    return task.test if config.stream == "test" else task.validation


def _keep_pictures(folder: Path, file: MatrixFile, data: Mapping[str, Dataset]) -> None:
    """Keep the pictures of the samples that the report shows; one without an image has none."""
    for task in file.tasks:
        rows = {sample_id: i for i, sample_id in enumerate(data[task]["id"])}
        for example in choose_examples(read_examples(folder, task, file.rows)):
            images = [image.convert("RGB") for image in images_of(data[task][rows[example.id]])]
            if not images:
                continue
            target = picture_file(folder, task, example.id)
            target.parent.mkdir(parents=True, exist_ok=True)
            side_by_side(images).save(target)
