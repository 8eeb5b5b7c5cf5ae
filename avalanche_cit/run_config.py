"""All that decides the result of a run, with the defaults of the mini world."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ActionYesNo

from avalanche_cit.benchmarks.catalogue import MINI_SIZES, find_benchmark
from avalanche_cit.command_line import Parser, add_image_root
from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.models.loading import model_folder
from avalanche_cit.models.plain_options import family_of, lora_config, quantization_config
from avalanche_cit.processes import started_processes
from avalanche_cit.similarity.fusion import FUSIONS
from avalanche_cit.training.plugins.weighting import WEIGHTINGS

STRATEGIES = {
    "seqft": "sequence",
    "seqft_projection": "sequence",
    "directft": "independent",
    "jointft": "joint",
    "replay": "sequence",
    "similarity_replay": "sequence",
    "agem": "sequence",
    "lwf": "sequence",
    "ewc": "sequence",
    "mas": "sequence",
    "ewc_max": "sequence",
    "mas_max": "sequence",
    "ewc_tir": "sequence",
    "mas_tir": "sequence",
    "eproj": "sequence",
    "eproj_expand": "sequence",
}
"""Strategies by name, with the kind of matrix that each one fills."""

STREAMS = ("test", "validation")
"""What can be scored."""

ON_BAD_SAMPLE = ("fail", "skip")
"""What to do with a sample whose image cannot be read, or that is too long."""

DTYPES = ("float32", "bfloat16", "float16", "float64")
"""Data types of a model's weights."""

LAMBDAS = {
    "lwf": 1.0,
    "ewc": 100.0,
    "mas": 0.1,
    **dict.fromkeys(("ewc_max", "ewc_tir"), 1e5),
    **dict.fromkeys(("mas_max", "mas_tir"), 1e5),
}
"""Weight of the penalty, where `RunConfig.lambda_` is None."""

_IMPORTANCE = ("ewc", "mas", "ewc_max", "mas_max", "ewc_tir", "mas_tir")
_TIR = ("ewc_tir", "mas_tir")
_SIMILARITY = ("similarity_replay", *_TIR, "eproj")
METHOD_OPTIONS: dict[str, tuple[str, ...]] = {
    "memory_fraction": ("replay", "similarity_replay", "agem"),
    "memory_batch_size": ("replay", "similarity_replay"),
    "lambda_": tuple(LAMBDAS),
    "temperature": ("lwf",),
    "per_sample": _IMPORTANCE,
    "importance_samples": _IMPORTANCE,
    "weighting": _TIR,
    "rescale": _TIR,
    "threshold": ("eproj",),
    "fusion": _SIMILARITY,
    "similarity_samples": _SIMILARITY,
    "image_encoder": _SIMILARITY,
    "text_encoder": (*_SIMILARITY, "eproj_expand"),
}
"""Options that only some strategies have."""

OF_THE_PROJECTION = ("seqft_projection", "eproj", "eproj_expand")
"""Strategies that tune the projection alone. Sequential tuning of it is what EProj compares with: a smaller trainable
part forgets less by itself."""

QUICK = {"train_samples": 96, "validation_samples": 16, "test_samples": 24, "epochs": 2}
"""What ``--quick`` stands for, where an option is not given."""

MAY_CHANGE = ("data_workers", "checkpoint_minutes", "checkpoint_steps", "cache_gb", "workers")
"""Options that change no number, so that a run may be continued, or read, with others than it was begun with.

`workers` is what `data_workers` was called once."""

SWITCHES = {
    "task0": "evaluate task 0's members too",
    "bf16": "forward passes in bfloat16",
    "group_by_length": "make training batches of samples of about the same length",
    "gradient_checkpointing": "compute activations anew in the backward pass instead of keeping them",
    "trust_remote_code": "run code that comes with the model",
    "per_sample": "estimate importance per sample (slow) or per batch",
    "rescale": "TIR: scale the weighted importance back to the sum of the unweighted one",
    "deterministic": "refuse operations whose results may differ from one time to the next (some GPU kernels)",
    "cache_features": "keep on disk what the frozen part before the first tuned weight makes of images",
}
"""Options that are on or off, ``--name`` and ``--no_name``."""

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
        stream: What is scored: test, after every task; or validation, to choose options by, at the end alone and
            without task 0.
        task0: Evaluate (and, where a strategy uses it, remember) task 0's members; None: where the benchmark has
            members, unless the start is a base model.
        train_samples: Training samples per task; None: 800 drawn ones, or all that are on disk.
        validation_samples: Validation samples per task; None: 200, or all.
        test_samples: Test samples per task; None: 200, or all.
        trainable: What is tuned: bridge, projection, language, all, or a list of patterns of parameter names; None:
            the projection for EProj and seqft_projection, nothing beside LoRA where lora is given, else the bridge.
        lora: Options of peft's LoraConfig, such as ``{r: 16, lora_alpha: 32}``; without target_modules, adapters are
            put on every linear layer of the language model.
        modules: For an architecture that is not known by itself: the names of its modules, ``{vision: ..., projection:
            ..., bridge: [...], language: ...}``.
        epochs: Epochs per task.
        batch_size: Samples per optimizer step.
        micro_batch_size: Samples per forward pass; None: the whole batch.
        eval_batch_size: Samples per batch of generation.
        lr: Peak learning rate of AdamW; None: 5e-3 where the projection alone is tuned, 2e-4 with LoRA, else 1e-3.
        weight_decay: Weight decay of AdamW, none on norms and biases.
        warmup: Share of each task's steps that warm the learning rate up; a cosine to zero follows.
        max_grad_norm: Gradients are clipped to this norm.
        memory_fraction: Memory of replay and A-GEM, as a share of all training samples of the stream.
        memory_batch_size: Memory samples per batch; None: a quarter of batch_size.
        lambda_: Weight of the penalty of EWC, MAS, TIR and LwF; None: the method's own.
        temperature: Of LwF's two distributions.
        per_sample: Estimate importance per sample (slow) or per batch.
        importance_samples: Training samples per task that importance is estimated from; None: all.
        weighting: How TIR weights old tasks: dissimilarity, or a control: similarity, random_owner, ones.
        rescale: Scale TIR's weighted importance back to the sum of the unweighted one.
        threshold: Similarity from which on eproj trains an earlier task's projection further.
        fusion: How the similarities of image, text input and text output become one: product or mean.
        similarity_samples: Training samples per task that its embedding is made from.
        image_encoder: vision_tower, or open_clip:NAME_OR_FOLDER[:PRETRAINED].
        text_encoder: token_embedding, or sentence_transformers:NAME_OR_FOLDER.
        bf16: Run forward passes in bfloat16.
        compile: Backend of torch.compile for the forward passes of training, such as inductor; None: none. The first
            steps take long then.
        group_by_length: Make training batches of samples of about the same length, so that less is padded; not with
            replay.
        dtype: Data type of the model's weights.
        quantization: 4bit or 8bit, by bitsandbytes: the frozen weights of a model that LoRA adapters are tuned on.
        gradient_checkpointing: Compute activations anew in the backward pass instead of keeping them.
        device_map: How transformers spreads the model over devices, such as auto; None: all on `device`.
        trust_remote_code: Run code that comes with the model.
        device: cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.
        processes: Processes that carry the run out together, as ``torchrun`` or ``accelerate launch`` start them; an
            error where they are more or fewer. None: as many as have been started. Sizes of batches are those of all
            together.
        threads: CPU threads; None leaves torch's choice, and to a run that goes on those it had. The bits of a result
            depend on it.
        deterministic: Use torch's deterministic algorithms alone, and fail where an operation has none. One seed gives
            the same bits on a CPU anyway; on GPUs some kernels need this, and are slower for it.
        checkpoint_minutes: While training, save a checkpoint when so many minutes have gone by; None: not by time.
            Each finished task and each evaluated cell is saved anyway.
        checkpoint_steps: While training, save a checkpoint after so many optimizer steps; None: not by steps.
        data_workers: Processes that load data; 0 loads in the main one. They change no number.
        cache_features: Keep on disk, from run to run, what the frozen part before the first tuned weight makes of each
            image: the vision tower, or vision tower and Q-Former. Where that cannot be, a note says why.
        cache_gb: Disk space, in GB of 10^9 bytes, that such features of all models together may take; those of further
            images are computed every time. It changes no number.
        data_root: Folder of the data, if not where the benchmark says.
        image_root: Further folders that image paths may lead to.
        on_bad_sample: What to do with a sample whose image cannot be read, or that is too long for the model: fail
            where it is met; or skip, which looks at every sample before the run starts and leaves such ones out.
    """

    strategy: str
    benchmark: str = "mini_cit1"
    model: str = "tiny-base"
    seed: int = 0
    stream: str = "test"
    task0: bool | None = None
    train_samples: int | None = None
    validation_samples: int | None = None
    test_samples: int | None = None
    trainable: str | list[str] | None = None
    lora: dict[str, Any] | None = None
    modules: dict[str, Any] | None = None
    epochs: int = 3
    batch_size: int = 64
    micro_batch_size: int | None = None
    eval_batch_size: int = 200
    lr: float | None = None
    weight_decay: float = 0.05
    warmup: float = 0.03
    max_grad_norm: float = 1.0
    memory_fraction: float = 0.1
    memory_batch_size: int | None = None
    lambda_: float | None = None
    temperature: float = 1.0
    per_sample: bool = False
    importance_samples: int | None = None
    weighting: str = "dissimilarity"
    rescale: bool = False
    threshold: float = 0.5
    fusion: str = "product"
    similarity_samples: int = 1000
    image_encoder: str = "vision_tower"
    text_encoder: str = "token_embedding"
    bf16: bool = False
    compile: str | None = None
    group_by_length: bool = False
    dtype: str = "float32"
    quantization: str | None = None
    gradient_checkpointing: bool = False
    device_map: str | None = None
    trust_remote_code: bool = False
    device: str = "auto"
    processes: int | None = None
    threads: int | None = None
    deterministic: bool = False
    checkpoint_minutes: float | None = 5.0
    checkpoint_steps: int | None = None
    data_workers: int = 0
    cache_features: bool = True
    cache_gb: float = 20.0
    data_root: Path | None = None
    image_root: list[str] = field(default_factory=list)
    on_bad_sample: str = "fail"

    def resolved(self) -> RunConfig:
        """Return the configuration with every choice made that was left open.

        Raises:
            UserError: A name does not exist, or a number is out of its range.
        """
        for option in dataclasses.fields(self):
            if getattr(self, option.name) is None and "None" not in str(option.type):
                raise UserError(f"{option.name} has no value: give one, or leave it away")
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
            "max_grad_norm": self.max_grad_norm,
            "temperature": self.temperature,
            "memory_fraction": self.memory_fraction,
            "processes": self.processes,
            "threads": self.threads,
            "checkpoint_minutes": self.checkpoint_minutes,
            "checkpoint_steps": self.checkpoint_steps,
            "cache_gb": self.cache_gb,
            "importance_samples": self.importance_samples,
            "similarity_samples": self.similarity_samples,
        }.items():
            if number is not None and not 0 < number < math.inf:
                raise UserError(f"{name} is {number}: it must be above 0, and finite")
        for name, (number, least, greatest) in {
            "seed": (self.seed, 0, 2**32 - 1),
            "data_workers": (self.data_workers, 0, math.inf),
            "lambda_": (self.lambda_, 0, math.inf),
            "weight_decay": (self.weight_decay, 0, math.inf),
            "warmup": (self.warmup, 0, 1),
            "threshold": (self.threshold, 0, 1),
            "memory_fraction": (self.memory_fraction, 0, 1),
        }.items():
            if number is not None and not (least <= number <= greatest and number < math.inf):
                limits = f"between {least} and {greatest}" if greatest < math.inf else f"at least {least}, and finite"
                raise UserError(f"{name} is {number}: it must be {limits}")
        for name, chosen, known in (
            ("stream", self.stream, STREAMS),
            ("weighting", self.weighting, WEIGHTINGS),
            ("fusion", self.fusion, FUSIONS),
            ("on_bad_sample", self.on_bad_sample, ON_BAD_SAMPLE),
        ):
            if chosen not in known:
                raise unknown_name(name, chosen, known)
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES)
        lora_config(self.lora)
        family_of(self.modules)
        quantization_config(self.quantization, self.dtype)
        if self.strategy in OF_THE_PROJECTION and self.trainable not in (None, "projection"):
            raise UserError(f"strategy '{self.strategy}' tunes the projection: leave --trainable away")
        if self.strategy in OF_THE_PROJECTION and self.lora is not None:
            raise UserError(f"strategy '{self.strategy}' tunes the projection: leave --lora away")
        task0 = self.task0 if self.task0 is not None else bool(found.task0) and self.model not in BASE_STARTS
        if task0 and not found.task0:
            raise UserError(f"benchmark '{self.benchmark}' has no task 0: leave --task0 away")
        processes = started_processes(self.processes)
        for unproved, value in (("device_map", self.device_map), ("quantization", self.quantization)):
            if processes > 1 and value is not None:
                raise UserError(f"{unproved} is not proved to be right in several processes: leave --{unproved} away")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return dataclasses.replace(
            self,
            task0=task0,
            train_samples=sizes["train"],
            validation_samples=sizes["validation"],
            test_samples=sizes["test"],
            trainable=self.trainable or self._default_trainable(),
            lr=self.lr if self.lr is not None else self._default_lr(),
            processes=processes,
            lambda_=self.lambda_ if self.lambda_ is not None else LAMBDAS.get(self.strategy),
            device=device if self.device == "auto" else self.device,
        )

    def _default_trainable(self) -> str | None:
        if self.strategy in OF_THE_PROJECTION:
            return "projection"
        return "bridge" if self.lora is None else None

    def _default_lr(self) -> float:
        if self.strategy in OF_THE_PROJECTION:
            return 5e-3
        return 1e-3 if self.lora is None else 2e-4

    def plain(self) -> dict[str, Any]:
        """Return the configuration as plain values, as they stand in ``config.yaml``."""
        values = dataclasses.asdict(self)
        return values | {"data_root": None if self.data_root is None else str(self.data_root)}


def defaults() -> dict[str, Any]:
    """Return the default of every option that has one, as plain values."""
    plain = RunConfig(strategy="seqft", processes=1).plain()
    return {name: value for name, value in plain.items() if name != "strategy"}


def check_has_option(strategy: str, option: str) -> None:
    """Check that an option given to one strategy is one that it uses.

    Raises:
        UserError: There is no such strategy, or it does nothing with the option.
    """
    if strategy not in STRATEGIES:
        raise unknown_name("strategy", strategy, STRATEGIES)
    if strategy not in METHOD_OPTIONS.get(option, STRATEGIES):
        raise UserError(
            f"strategy '{strategy}' has no {option}; it is an option of {', '.join(METHOD_OPTIONS[option])}"
        )


def add_run_options(parser: Parser, skip: Iterable[str]) -> None:
    """Add the options of a run to a script's command line, all but those that the script has its own for."""
    for name, meaning in SWITCHES.items():
        default = RunConfig.__dataclass_fields__[name].default
        parser.add_argument(f"--{name}", action=ActionYesNo(no_prefix="no_"), default=default, help=meaning)
    add_image_root(parser)
    parser.add_class_arguments(RunConfig, skip={*skip, *SWITCHES, "image_root"})


def quickened(options: Mapping[str, Any], parser: Parser) -> dict[str, Any]:
    """Return parsed options with those of `QUICK` in the place of defaults."""
    return {**options, **{name: value for name, value in QUICK.items() if options[name] == parser.get_default(name)}}
