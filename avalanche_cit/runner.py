"""One configuration in, one finished run directory out, whatever interrupts it in between."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks import CLScenario
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import EvaluationPlugin
from datasets import Dataset
from safetensors.torch import save_file

from avalanche_cit.benchmarks.catalogue import find_benchmark
from avalanche_cit.benchmarks.images import side_by_side
from avalanche_cit.benchmarks.instruction_data import images_of
from avalanche_cit.benchmarks.scenario import instruction_benchmark, task_name
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.building import load_model, load_tasks, make_strategy, say_what_is_new, without_bad
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.loss import loss_metrics
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.evaluation.text_score import ForgettingMatrix
from avalanche_cit.logging.examples import choose_examples, picture_file, read_examples
from avalanche_cit.logging.json_lines import JSONLinesLogger
from avalanche_cit.logging.plots import plot_matrix, save_figure
from avalanche_cit.logging.progress import ProgressPlugin
from avalanche_cit.logging.provenance import circumstances, ingredients
from avalanche_cit.logging.report import write_report
from avalanche_cit.logging.run_directory import RunDirectory, read_config
from avalanche_cit.logging.run_record import RunRecord
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.processes import Processes, join_processes
from avalanche_cit.run_config import MAY_CHANGE, STRATEGIES, RunConfig, defaults
from avalanche_cit.training.checkpoint_file import CheckpointFolder, separate
from avalanche_cit.training.checkpointing import CheckpointPlugin, maybe_load_checkpoint
from avalanche_cit.training.interruption import StopRequest, stop_on_signals
from avalanche_cit.training.templates import InstructionTuning
from avalanche_cit.whole_file import whole_file

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def run(config: RunConfig, folder: Path, *, vision_features: VisionFeatures | None = None) -> MatrixFile:
    """Carry out one run, go on with one that was broken off, or read its matrix where it is finished.

    SIGINT and SIGTERM save a checkpoint after the optimizer step at hand and raise `Interrupted`.

    Args:
        config: What to run.
        folder: The run directory.
        vision_features: Opened vision features, to share among runs in one process; the configuration says how much
            room they may take.

    Raises:
        UserError: An option, the data or the folder is wrong, another process writes to the folder, the disk is full,
            or the loss is no finite number.
        Interrupted: A signal asked the process to end.
    """
    config = config.resolved()
    processes = join_processes(config.processes, config.device)
    config, directory = open_run(config, folder, processes)
    if processes.of_main(directory.finished and (folder / "report.html").exists()):
        return directory.read_matrix()
    with directory.locked(), processes.quiet_but_main():
        if processes.of_main(not directory.finished):  # another run may have been faster
            with stop_on_signals() as stop, _computing_as(config), _telling_what_is_saved(directory):
                _run(config, directory, vision_features, stop, processes)
        if processes.is_main:
            write_report([folder], folder / "report.html")
            CheckpointFolder(directory.checkpoints).clear()
    processes.wait()
    return directory.read_matrix()


def open_run(config: RunConfig, folder: Path, processes: Processes) -> tuple[RunConfig, RunDirectory]:
    """Return a configuration with every choice made, and its run directory.

    Args:
        config: What to run.
        folder: The run directory.
        processes: Who carries the run out.

    Raises:
        UserError: An option is wrong, or the folder holds a run with other options.
    """
    config = config.resolved()
    if config.threads is None:
        file = folder / "config.yaml"
        threads = read_config(file).get("threads") if file.exists() else None
        config = dataclasses.replace(config, threads=threads or torch.get_num_threads())
    if not processes.is_main:
        processes.wait()  # until the main process has made the folder
    directory = RunDirectory(folder, config.plain(), defaults(), MAY_CHANGE, writes=processes.is_main)
    if processes.is_main:
        processes.wait()
    return config, directory


def _run(
    config: RunConfig,
    directory: RunDirectory,
    features: VisionFeatures | None,
    stop: StopRequest,
    processes: Processes,
) -> None:
    """Carry out what is left of a run, and have the main process write everything that it leaves behind."""
    is_main = processes.is_main
    begun = processes.of_main(CheckpointFolder(directory.checkpoints).newest is not None)
    if not begun and is_main:
        directory.clear()
    task0, sequence = load_tasks(config)
    RNGManager.set_random_seeds(config.seed)  # LoRA adapters are drawn
    model = load_model(config, features)
    left_out: dict[str, dict[str, int]] = {}
    if config.on_bad_sample == "skip":
        task0, sequence = ([without_bad(task, model, left_out) for task in tasks] for tasks in (task0, sequence))
    benchmark = instruction_benchmark(sequence, task0)
    say_what_is_new(model, sequence)
    matrix = ForgettingMatrix(benchmark, stream=config.stream, predictions=directory.predictions if is_main else None)
    names = [task.name for task in (*sequence, *task0)]
    progress = ProgressPlugin(_batches(config, benchmark), f"{config.strategy}, seed {config.seed}")
    record = RunRecord(ingredients(model, [*task0, *sequence]))
    checkpoints = CheckpointPlugin(
        directory.checkpoints,
        every_steps=config.checkpoint_steps,
        every_minutes=config.checkpoint_minutes,
        stop=stop,
    )
    evaluator = EvaluationPlugin(
        matrix,
        loss_metrics(minibatch=True, epoch=True),
        loggers=[JSONLinesLogger(path=directory.metrics, task_names=names)] if is_main else [],
    )
    strategy = make_strategy(config, model, benchmark, [progress, record, checkpoints], evaluator, processes)
    strategy, trained = maybe_load_checkpoint(strategy, directory.checkpoints)
    if begun:
        print(_where(directory, strategy, trained, len(sequence)))

    def matrix_file() -> MatrixFile:
        return matrix.as_file(
            kind=STRATEGIES[config.strategy],
            benchmark=find_benchmark(config.benchmark).name,
            strategy=config.strategy,
            model=config.model,
            seed=config.seed,
        )

    with closing(progress):
        for row, experiences, streams in _stages(config, benchmark, strategy, trained):
            if experiences:
                strategy.train(experiences, num_workers=config.data_workers)
            for stream in streams:
                missing = matrix.missing(row, stream)
                if missing:
                    strategy.eval(missing, num_workers=config.data_workers)
            if streams and is_main:
                matrix_file().write(directory.folder)
    if not is_main:
        return
    file = matrix_file()
    file.write(directory.folder)
    save_figure(plot_matrix(file), directory.folder / "matrix.png")
    _keep_pictures(directory.folder, file, {task.name: _scored(config, task) for task in (*task0, *sequence)})
    directory.checkpoints.mkdir(exist_ok=True)
    with whole_file(directory.checkpoints / "final.safetensors") as unfinished:
        save_file(separate(model.tuned_state()), unfinished)
    directory.finish(
        {
            **record.ingredients,
            **circumstances(config.seed),
            **record.cost(),
            "samples_seen": progress.samples_seen,
            "bad_samples_left_out": left_out,
        }
    )


Stage = tuple[str, Any, list[Iterable[Any]]]


def _stages(config: RunConfig, benchmark: CLScenario, strategy: InstructionTuning, trained: int) -> Iterator[Stage]:
    """Yield what is left to do: per row of the matrix its name, what to train on first, and the streams to evaluate.

    Of a row whose training is over, only the evaluation is left; of one before it, or before one in whose training a
    checkpoint stopped, nothing.
    """
    stream = benchmark.streams[config.stream]
    whole = [stream, benchmark.task0_test_stream] if _evaluates_task0(config) else [stream]
    every_row = config.stream == "test"  # options are chosen by the last row, so validation has no other
    stages: list[Stage] = [("initial", None, whole if every_row else [])]
    if config.strategy == "jointft":
        stages.append(("joint", benchmark.train_stream, whole))
    else:
        for number, (experience, own) in enumerate(zip(benchmark.train_stream, stream, strict=True), start=1):
            last = number == len(stream)
            scored = [[own]] if config.strategy == "directft" else whole if every_row or last else []
            stages.append((str(task_name(experience.dataset)), experience, scored))
    for number, (row, experiences, streams) in enumerate(stages):
        if number > trained:
            yield row, experiences, streams
        elif number == trained and strategy.continue_at is None:
            yield row, None, streams


def _where(directory: RunDirectory, strategy: InstructionTuning, trained: int, tasks: int) -> str:
    place = f"after task {trained} of {tasks}" if trained else "before the first task"
    if strategy.continue_at is not None:
        place = f"in task {trained + 1} of {tasks}, epoch {strategy.continue_at.epoch + 1}"
    return f"resuming from step {strategy.clock.train_iterations} of {directory.folder} ({place})"


@contextmanager
def _computing_as(config: RunConfig) -> Iterator[None]:
    """Have torch compute with the run's number of threads and, if asked to, in a deterministic way."""
    torch.set_num_threads(config.threads or torch.get_num_threads())
    before = torch.are_deterministic_algorithms_enabled()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _telling_what_is_saved(directory: RunDirectory) -> Iterator[None]:
    """Add to an error what the run can go on from, and turn one of the disk into a line."""
    try:
        yield
    except (UserError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError):
            if error.errno not in _OF_THE_DISK:
                raise
            reason = f"cannot write to {error.filename or directory.folder}: {error.strerror}"
        newest = CheckpointFolder(directory.checkpoints).newest
        raise UserError(reason if newest is None else f"{reason}; saved so far: {newest}") from error


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
