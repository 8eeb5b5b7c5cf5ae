"""What a worker does, whatever it is: it carries out one run and says what became of it."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch

from avalanche_cit.errors import Interrupted, UserError
from avalanche_cit.logging.run_directory import wait_until_unlocked
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.run_config import RunConfig
from avalanche_cit.runner import run

LOG = "output.log"
"""What a run prints in a worker, in its run directory."""

_UNLOCKED_WITHIN = 120.0
"""Seconds in which a killed worker's lock is gone: its data loaders notice its end, or a file server does."""


@dataclass(frozen=True)
class Assignment:
    """A run to carry out.

    Attributes:
        folder: The run directory.
        config: What to run.
        threads: CPU threads, where neither the configuration nor the run's own record says how many.
        again: Whether a worker was lost with it.
    """

    folder: Path
    config: RunConfig
    threads: int
    again: bool


@dataclass(frozen=True)
class Ended:
    """What became of a run.

    Attributes:
        folder: The run directory.
        failure: Why it is not finished, in one line; empty where it is.
        worker_lost: Whether the reason is the worker, so that another one can go on with the run.
    """

    folder: Path
    failure: str = ""
    worker_lost: bool = False


def carry_out(assignment: Assignment, features: VisionFeatures) -> Ended:
    """Carry out a run; all that it prints goes to a file in its run directory."""
    folder = assignment.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / LOG).open("a", buffering=1, encoding="utf-8")
    except OSError as error:
        return Ended(folder, f"cannot write to {folder}: {error.strerror}")
    with log, _output_to(log):
        try:
            if assignment.again:
                wait_until_unlocked(folder, _UNLOCKED_WITHIN)
            torch.set_num_threads(assignment.threads)
            run(assignment.config, folder, vision_features=features)
        except UserError as error:
            print(f"error: {error}")
            return Ended(folder, str(error))
        except Interrupted as stop:
            return Ended(folder, f"its worker was stopped by {signal.Signals(stop.signal).name}", worker_lost=True)
        except Exception as error:  # a defect ends this run, not the others
            traceback.print_exc()
            return Ended(folder, f"{type(error).__name__}: {error} (see {folder / LOG})")
    return Ended(folder)


@contextmanager
def _output_to(log: TextIO) -> Iterator[None]:
    """Have all that this process and its children write to the terminal written to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {standard: os.dup(standard) for standard in (1, 2)}
    try:
        for standard in kept:
            os.dup2(log.fileno(), standard)
        with redirect_stdout(log), redirect_stderr(log):
            yield
    finally:
        for standard, before in kept.items():
            os.dup2(before, standard)
            os.close(before)
