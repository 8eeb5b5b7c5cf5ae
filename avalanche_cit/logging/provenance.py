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
from avalanche_cit.models.lmm import LMM

_PACKAGES = (
    *("avalanche_cit", "avalanche-lib", "torch", "transformers", "peft", "datasets", "numpy", "pillow"),
    *("tokenizers", "nltk", "pycocoevalcap"),
)


def provenance(model: LMM, tasks: Iterable[Task], seed: int) -> dict[str, Any]:
    """Describe the code, the packages, the data, the model and the machine of a run.

    Returns:
        Plain values: ``git_commit``, ``git_dirty`` (null outside a checkout), ``packages`` (null: not installed),
        ``data`` (a fingerprint of every split), ``model``, ``hardware``, ``seed``, ``peak_memory_mb`` (of the process
        so far).
    """
    commit, dirty = _git()
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
        },
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "python": platform.python_version(),
        "seed": seed,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RSS_PER_MB),
    }


_SPLITS = ("train", "validation", "test")
_RSS_PER_MB = 2**20 if sys.platform == "darwin" else 2**10


def _fingerprint(task: Task, split: str) -> str:
    """A checksum of all texts of a split, in order."""
    rows = {"train": task.train, "validation": task.validation, "test": task.test}[split]
    digest = hashlib.sha256()
    for column in ("id", "instruction", "target", "references", "choices"):
        digest.update(repr(rows[column][:]).encode())
    return f"{len(rows)} samples, sha256 {digest.hexdigest()[:16]}"


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
