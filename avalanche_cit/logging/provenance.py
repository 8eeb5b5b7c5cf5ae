"""What a run was made of: code, packages, data, model, machine."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from avalanche_cit.benchmarks.task import Task
from avalanche_cit.models.fingerprint import module_fingerprint
from avalanche_cit.models.lmm import LMM

_PACKAGES = (
    *("avalanche_cit", "avalanche-lib", "torch", "torchvision", "transformers", "accelerate", "peft", "bitsandbytes"),
    *("datasets", "numpy", "pillow", "tokenizers", "nltk", "pycocoevalcap", "open_clip_torch", "sentence-transformers"),
)
_SPLITS = ("train", "validation", "test")
_MB = 2**20
_RSS_UNIT = 1 if sys.platform == "darwin" else 2**10
_CPU_INFO = Path("/proc/cpuinfo")


def ingredients(model: LMM, tasks: Iterable[Task]) -> dict[str, Any]:
    """Describe what a run is made of: code, packages, data and model. To be called before the first step.

    Args:
        model: The model as loaded.
        tasks: All tasks that the run reads.

    Returns:
        Plain values: ``git_commit``, ``git_dirty`` (null outside a checkout), ``packages`` (null: not installed),
        ``data`` (a fingerprint of every split), ``model`` (architecture, sizes, and the `module_fingerprint` of the
        weights that the run starts from, LoRA adapters included).

    Example:
        >>> ingredients(LMM.from_pretrained("tiny-base"), tasks)["data"]["vqav2"]["test"]
        '200 samples, sha256 0f343b0931126a20'
    """
    commit, dirty = _git()
    with model.stock():
        start = module_fingerprint(model.hf)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "packages": {name: _version(name) for name in _PACKAGES},
        "data": {task.name: {split: _fingerprint(task, split) for split in _SPLITS} for task in tasks},
        "model": {
            "architecture": type(model.hf).__name__,
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "trainable_parameters": sum(weight.numel() for weight in weights),
            "fingerprint": f"sha256 {start}",
        },
    }


def circumstances(seed: int) -> dict[str, Any]:
    """Describe where a run takes place.

    Args:
        seed: The run's seed.

    Returns:
        Plain values: ``hardware`` (``memory_mb`` is all that the machine has), ``python`` and ``seed``.

    Example:
        >>> circumstances(seed=0)["hardware"]["processor"]
        'AMD EPYC 7763 64-Core Processor'
    """
    return {
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_mb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _MB),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "python": platform.python_version(),
        "seed": seed,
    }


def peak_memory() -> dict[str, int]:
    """Return the most memory that this process has used: ``peak_memory_mb``, and ``peak_gpu<i>_memory_mb`` per GPU.

    A GPU's is what tensors took.
    """
    peaks = {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / _MB)}
    for i in range(torch.cuda.device_count()):
        peaks[f"peak_gpu{i}_memory_mb"] = round(torch.cuda.max_memory_allocated(i) / _MB)
    return peaks


def _fingerprint(task: Task, split: str) -> str:
    """A checksum of all texts of a split, in order."""
    rows = {"train": task.train, "validation": task.validation, "test": task.test}[split]
    digest = hashlib.sha256()
    for column in ("id", "instruction", "target", "references", "choices"):
        digest.update(repr(rows[column][:]).encode())
    return f"{len(rows)} samples, sha256 {digest.hexdigest()[:16]}"


def _processor() -> str | None:
    """The processor's name: what Linux says on x86, else what Python knows; None where neither knows one."""
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or None


def _version(package: str) -> str | None:
    """Installed version; None for a checkout that runs without being installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this code runs from, and whether the package has changes."""
    folder = Path(__file__).parent.parent
    try:
        commit = _run_git(folder, "rev-parse", "HEAD")
        return commit, bool(_run_git(folder, "status", "--porcelain", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _run_git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()
