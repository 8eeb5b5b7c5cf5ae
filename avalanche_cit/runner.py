"""One configuration in, one finished run directory out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks import CLScenario
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin

from avalanche_cit.benchmarks.catalogue import MINI_SIZES, benchmark_tasks, find_benchmark
from avalanche_cit.benchmarks.scenario import instruction_benchmark
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.errors import UserError, unknown_name
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
from avalanche_cit.models.lmm import LMM, model_folder
from avalanche_cit.training.strategies import DirectFT, JointFT, Replay, SeqFT, memory_size_of
from avalanche_cit.training.templates import InstructionTuning

STRATEGIES = {"seqft": "sequence", "replay": "sequence", "directft": "independent", "jointft": "joint"}
"""Strategies by name, with the kind of matrix that each one fills."""

BASE_STARTS = ("tiny-base",)
"""Starts that have learned no member of any task 0."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that decides the result of a run. The defaults are those of the mini world.

    Attributes:
        strategy: Name of a strategy.
        benchmark: Name of a benchmark, or a YAML file.
        model: Start: a shipped model, a folder, or a name on the hub.
        seed: Fixes the drawn data, the data order and all sampling.
        task0: Evaluate (and, where a strategy uses it, remember) task 0's members; None: where the benchmark has
            members, unless the start is a base model.
        train_samples: Training samples per task; None: 800 drawn ones, or all that are on disk.
        validation_samples: Validation samples per task; None: 200, or all.
        test_samples: Test samples per task; None: 200, or all.
        trainable: What is tuned: bridge, projection, language, all, or a list of patterns of parameter names.
        epochs: Epochs per task.
        batch_size: Samples per optimizer step.
        micro_batch_size: Samples per forward pass; None: the whole batch.
        eval_batch_size: Samples per batch of generation.
        lr: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW, none on norms and biases.
        warmup: Share of each task's steps that warm the learning rate up; a cosine to zero follows.
        max_grad_norm: Gradients are clipped to this norm.
        memory_fraction: Replay memory, as a share of all training samples of the stream.
        memory_batch_size: Memory samples per batch; None: a quarter of batch_size.
        bf16: Run forward passes in bfloat16.
        dtype: Data type of the model's weights.
        device: cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.
        threads: CPU threads; None leaves torch's choice. The bits of a result depend on it.
        workers: Processes that load data; 0 loads in the main one.
        cache_features: Keep what the frozen vision tower makes of each image in memory.
        data_root: Folder of the data, if not where the benchmark says.
    """

    strategy: str
    benchmark: str = "mini_cit1"
    model: str = "tiny-base"
    seed: int = 0
    task0: bool | None = None
    train_samples: int | None = None
    validation_samples: int | None = None
    test_samples: int | None = None
    trainable: str | list[str] = "bridge"
    epochs: int = 3
    batch_size: int = 64
    micro_batch_size: int | None = None
    eval_batch_size: int = 200
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.03
    max_grad_norm: float = 1.0
    memory_fraction: float = 0.1
    memory_batch_size: int | None = None
    bf16: bool = False
    dtype: str = "float32"
    device: str = "auto"
    threads: int | None = None
    workers: int = 0
    cache_features: bool = True
    data_root: Path | None = None

    def resolved(self) -> RunConfig:
        """Return the configuration with every choice made that was left open.

        Raises:
            UserError: A name does not exist, or a number is out of its range.
        """
        if self.strategy not in STRATEGIES:
            raise unknown_name("strategy", self.strategy, STRATEGIES)
        model_folder(self.model)
        found = find_benchmark(self.benchmark)
        drawn = MINI_SIZES if found.drawn_by else {}
        sizes = {
            "train": self.train_samples if self.train_samples is not None else drawn.get("train"),
            "validation": self.validation_samples if self.validation_samples is not None else drawn.get("validation"),
            "test": self.test_samples if self.test_samples is not None else drawn.get("test"),
        }
        for name, number in {
            **{f"{split}_samples": size for split, size in sizes.items()},
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "micro_batch_size": self.micro_batch_size,
            "eval_batch_size": self.eval_batch_size,
            "memory_batch_size": self.memory_batch_size,
            "lr": self.lr,
            "threads": self.threads,
        }.items():
            if number is not None and number <= 0:
                raise UserError(f"{name} is {number}: it must be above 0")
        task0 = self.task0 if self.task0 is not None else bool(found.task0) and self.model not in BASE_STARTS
        if task0 and not found.task0:
            raise UserError(f"benchmark '{self.benchmark}' has no task 0: leave --task0 away")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return dataclasses.replace(
            self,
            task0=task0,
            train_samples=sizes["train"],
            validation_samples=sizes["validation"],
            test_samples=sizes["test"],
            device=device if self.device == "auto" else self.device,
            threads=self.threads if self.threads is not None else torch.get_num_threads(),
        )

    def plain(self) -> dict[str, Any]:
        """Return the configuration as plain values, as they stand in ``config.yaml``."""
        values = dataclasses.asdict(self)
        return values | {"data_root": None if self.data_root is None else str(self.data_root)}


def run(config: RunConfig, folder: Path, *, vision_features: VisionFeatures | None = None) -> MatrixFile:
    """Carry out one run, or read its matrix where the folder holds the same run, finished.

    Args:
        config: What to run.
        folder: The run directory.
        vision_features: Cache of vision features to share among runs of one start model in one process.

    Raises:
        UserError: An option, the data or the folder is wrong.
    """
    config = config.resolved()
    directory = RunDirectory(folder, config.plain())
    if directory.finished:
        return directory.read_matrix()
    directory.clear()
    begin = time.monotonic()
    torch.set_num_threads(config.threads or torch.get_num_threads())
    task0, sequence = _load(config)
    benchmark = instruction_benchmark(sequence, task0)
    features = (vision_features or VisionFeatures()) if config.cache_features else None
    model = LMM.from_pretrained(config.model, trainable=config.trainable, dtype=config.dtype, vision_features=features)
    _say_what_is_new(model, sequence)
    matrix = ForgettingMatrix(benchmark, predictions=directory.predictions)
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
    _keep_pictures(directory.folder, file, [*task0, *sequence])
    directory.finish(
        {
            **provenance(model, [*task0, *sequence], config.seed),
            "samples_seen": progress.samples_seen,
            "wall_time_s": round(time.monotonic() - begin, 1),
        }
    )
    write_report([directory.folder], directory.folder / "report.html")
    return file


def _load(config: RunConfig) -> tuple[list[Task], list[Task]]:
    given = {"train": config.train_samples, "validation": config.validation_samples, "test": config.test_samples}
    task0, sequence = benchmark_tasks(
        config.benchmark,
        seed=config.seed,
        sizes={split: size for split, size in given.items() if size is not None},
        data_root=config.data_root,
        task0=bool(config.task0),
    )
    for task in (*task0, *sequence):
        get_score(task.score)
    return task0, sequence


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
    match config.strategy:
        case "seqft":
            return SeqFT(**common)
        case "directft":
            return DirectFT(**common)
        case "jointft":
            return JointFT(**common)
        case "replay":
            memory = memory_size_of(benchmark.train_stream, config.memory_fraction)
            return Replay(memory_size=memory, memory_batch_size=config.memory_batch_size, **common)
        case _:
            raise unknown_name("strategy", config.strategy, STRATEGIES)


def _train_and_evaluate(config: RunConfig, strategy: InstructionTuning, benchmark: CLScenario, write: Any) -> None:
    """Fill the matrix row by row; what is written is whole after every row."""

    def evaluate(experiences: Iterable[Any]) -> None:
        strategy.eval(experiences, num_workers=config.workers)

    def evaluate_all() -> None:
        evaluate(benchmark.test_stream)
        if config.task0:
            evaluate(benchmark.task0_test_stream)
        write()

    evaluate_all()
    if config.strategy == "jointft":
        strategy.train(benchmark.train_stream, num_workers=config.workers)
        evaluate_all()
        return
    for experience, test in zip(benchmark.train_stream, benchmark.test_stream, strict=True):
        strategy.train(experience, num_workers=config.workers)
        if config.strategy == "directft":
            evaluate([test])
            write()
        else:
            evaluate_all()


def _batches(config: RunConfig, benchmark: CLScenario) -> int:
    """Mini-batches of the whole run."""

    def count(stream: Iterable[Any], size: int) -> int:
        return sum(-(-len(experience.dataset) // size) for experience in stream)

    test = count(benchmark.test_stream, config.eval_batch_size)
    members = count(benchmark.task0_test_stream, config.eval_batch_size) if config.task0 else 0
    tasks = len(benchmark.train_stream)
    rows = {"sequence": tasks + 1, "joint": 2, "independent": 1}[STRATEGIES[config.strategy]]
    train = count(benchmark.train_stream, config.batch_size)
    if config.strategy == "jointft":
        train = -(-sum(len(experience.dataset) for experience in benchmark.train_stream) // config.batch_size)
    alone = test if config.strategy == "directft" else 0
    return config.epochs * train + rows * (test + members) + alone


def _say_what_is_new(model: LMM, tasks: list[Task]) -> None:
    """Warn where a frozen language model is asked to say what it may never have learned to say."""
    if any(weight.requires_grad for weight in model.hf.language_model.parameters()):
        return
    for task in tasks:
        share = model.spelled_share(task.train[: min(len(task.train), 200)]["target"])
        if share > 0.5:
            print(
                f"note: {share:.0%} of the target words of task '{task.name}' are spelled out in bytes: the frozen "
                "language model may never have learned to say them; --trainable all can teach it"
            )


def _keep_pictures(folder: Path, file: MatrixFile, tasks: list[Task]) -> None:
    """Keep the pictures of the samples that the report shows."""
    for task in tasks:
        rows = {sample_id: i for i, sample_id in enumerate(task.test["id"])}
        for example in choose_examples(read_examples(folder, task.name, file.rows)):
            target = picture_file(folder, task.name, example.id)
            target.parent.mkdir(parents=True, exist_ok=True)
            task.test[rows[example.id]]["image"].convert("RGB").save(target)
