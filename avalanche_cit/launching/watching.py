"""How far runs are, by what they have written so far: so it can be seen of a run on any machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from rich.console import Group
from rich.table import Table

_TAIL = 4096
"""Bytes at the end of a file that hold its last line."""


def overview(told: str, running: Mapping[str, Path]) -> Group:
    """Return one line per running run, under a line about all."""
    lines = Table.grid(padding=(0, 2))
    for name, folder in running.items():
        lines.add_row(f"  {name}", stage(folder))
    return Group(told, lines)


def stage(folder: Path) -> str:
    """Return how far a run is.

    Example:
        >>> stage(Path("runs/mini_cit1-tiny-base/replay-seed0"))
        'task gqa, step 57'
    """
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL))
            whole_lines = file.read().rpartition(b"\n")[0]
        last = json.loads(whole_lines.rpartition(b"\n")[2])
    except (OSError, ValueError):  # none yet, or no whole line in it
        return "starting"
    if last["task"] is None:
        return "before the first task"
    return f"task {last['task']}, step {last['step']}" + (", evaluating" if last["phase"] == "eval" else "")
