"""A benchmark at a glance: for each task a row of pictures, each with its prompt and target below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.figure import Figure

from avalanche_cit.benchmarks.images import UnreadableImageError, decoded, side_by_side
from avalanche_cit.benchmarks.instruction_data import images_of
from avalanche_cit.benchmarks.scenario import strided_indices
from avalanche_cit.benchmarks.task import Task

_INK, _MUTED = "#1f2328", "#5b6470"
_PICTURE, _GAP, _TITLE, _TEXT, _EDGE = 1.75, 0.25, 0.6, 1.25, 0.3  # inches
_LETTERS_A_LINE, _LINES, _TARGET_LINES = 28, 8, 4  # the prompt takes the lines that the target leaves
_LINE_HEIGHT = 0.13  # inches


def contact_sheet(
    benchmark_name: str,
    tasks: Sequence[Task],
    *,
    split: Literal["train", "validation", "test"] = "test",
    per_task: int = 6,
) -> Figure:
    """Draw samples of every task, evenly strided over a split, in the order of the tasks.

    Small pictures are enlarged and keep their proportions; a long prompt or target is cut. Several images of a sample
    stand side by side. Where a picture cannot be read, or there is none, that stands in its place.

    Args:
        benchmark_name: Stands at the top.
        tasks: One row each; the row's title gives the samples in train, validation and test, and the score.
        split: Where the samples come from.
        per_task: Samples per row, at most.

    Returns:
        A figure of 2 inches per sample and 3.6 inches per task.

    Example:
        >>> figure = contact_sheet("mini", tasks)
        >>> save_figure(figure, Path("mini.png"))
    """
    row_height = _TITLE + _PICTURE + _TEXT
    width = 2 * _EDGE + per_task * (_PICTURE + _GAP) - _GAP
    height = 2 * _EDGE + 0.4 + row_height * len(tasks)
    figure = Figure(figsize=(width, height))
    plain: dict[str, Any] = {"va": "top", "parse_math": False}

    def put(x: float, y: float, text: str, **style: Any) -> None:
        """Write text at a place measured in inches from the upper left corner."""
        figure.text(x / width, 1 - y / height, text, **plain, **style)

    put(_EDGE, _EDGE, f"{benchmark_name}, {split} split", fontsize=14, fontweight="bold", color=_INK)
    for number, task in enumerate(tasks):
        top = _EDGE + 0.4 + number * row_height
        data = {"train": task.train, "validation": task.validation, "test": task.test}
        counts = "  ·  ".join(f"{name} {len(rows):,}" for name, rows in data.items())
        put(_EDGE, top + 0.1, task.name, fontsize=11, fontweight="bold", color=_INK)
        put(_EDGE, top + 0.33, f"{counts}  ·  scored by {task.score}", fontsize=9, color=_MUTED)
        shown = data[split].select(strided_indices(len(data[split]), per_task))
        for column, sample in enumerate(shown.with_format("arrow")[:].to_pylist()):  # images stay encoded
            left = _EDGE + column * (_PICTURE + _GAP)
            box = (left / width, 1 - (top + _TITLE + _PICTURE) / height, _PICTURE / width, _PICTURE / height)
            axes = figure.add_axes(box, anchor="NW")
            images, instead = [], "no image"
            try:
                images = [decoded(image) for image in images_of(sample)]
            except UnreadableImageError as error:
                instead = f"unreadable: {error}"
            if images:
                axes.imshow(side_by_side(images))
            else:
                axes.text(0, 1, _wrapped(instead, _LINES), va="top", fontsize=8, parse_math=False)
            axes.set_axis_off()
            target = _wrapped(sample["target"], _TARGET_LINES)
            prompt = _wrapped(task.render(sample), _LINES - 1 - target.count("\n"))
            below = top + _TITLE + _PICTURE + 0.07
            put(left, below, prompt, fontsize=8, color=_MUTED, linespacing=1.15)
            below += _LINE_HEIGHT * (prompt.count("\n") + 1) + 0.03
            put(left, below, target, fontsize=8, fontweight="bold", color=_INK, linespacing=1.15)
    return figure


def _wrapped(text: str, lines: int) -> str:
    return textwrap.fill(text, _LETTERS_A_LINE, max_lines=lines, placeholder=" …") or "(empty)"
