"""Figures of one run: its forgetting matrix as a heat map, each task's score over the stream; of task similarities;
and of several strategies side by side.

Figures are plain `matplotlib.figure.Figure` objects, which need no display and no global state.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.whole_file import whole_file

if TYPE_CHECKING:
    from avalanche_cit.evaluation.comparison import Comparison

_INK, _MUTED, _GRID = "#1f2328", "#5b6470", "#d5dae1"
_LINE, _OTHER_LINES = "#2b6cb0", "#dfe3e8"
_HEAT = LinearSegmentedColormap.from_list("heat", ["#f6f9fc", "#a9c8e6", "#4a86bf", "#173f6b"])


def plot_matrix(matrix_file: MatrixFile) -> Figure:
    """Draw the forgetting matrix: a row per evaluation, a column per task, the score in each cell.

    The colour scale runs from 0 to 100, or to the greatest score where that is above 100. A dark frame marks the
    task that was just trained; cells that were not evaluated are hatched; task 0's columns stand apart.

    Args:
        matrix_file: A matrix with rows x tasks scores, complete or not.

    Returns:
        A figure of about 0.9 inch per task and 0.5 inch per row.

    Example:
        >>> figure = plot_matrix(MatrixFile.read(Path("run/matrix.json")))
        >>> save_figure(figure, Path("run/matrix.png"))
    """
    rows, tasks = matrix_file.rows, matrix_file.tasks
    figure = Figure(figsize=(max(5.6, 2.2 + 0.9 * len(tasks)), 1.75 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    scale = Normalize(0, top_of_scale(matrix_file))
    for i, row in enumerate(matrix_file.scores):
        for j, score in enumerate(row):
            if score is None:
                cell = Rectangle((j, i), 1, 1, facecolor="#fafafa", edgecolor=_GRID, hatch="////", linewidth=0)
            else:
                colour = _HEAT(scale(score))
                cell = Rectangle((j, i), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5)
                ink = text_colour(colour)
                axes.text(j + 0.5, i + 0.5, f"{score:.1f}", ha="center", va="center", color=ink, fontsize=10)
            axes.add_patch(cell)
            if is_own_task(matrix_file, i, j):
                frame = Rectangle((j + 0.05, i + 0.06), 0.9, 0.88, fill=False, edgecolor=_INK, linewidth=1.8, zorder=3)
                axes.add_patch(frame)
    if 0 < len(matrix_file.task0) < len(tasks):
        axes.axvline(len(matrix_file.task0), color=_INK, linewidth=1.2, linestyle=(0, (3, 3)), zorder=4)
    axes.set(xlim=(0, len(tasks)), ylim=(len(rows), 0))
    labels = [f"{task}\n(task 0)" if task in matrix_file.task0 else task for task in tasks]
    axes.set_xticks([j + 0.5 for j in range(len(tasks))], labels)
    axes.set_yticks([i + 0.5 for i in range(len(rows))], [row_label(matrix_file, i) for i in range(len(rows))])
    axes.tick_params(length=0, labelsize=9, labelcolor=_INK)
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    if any(len(task) > 11 for task in tasks):
        axes.tick_params(axis="x", labelrotation=30)
    legend = {"the task just trained": Rectangle((0, 0), 1, 1, fill=False, edgecolor=_INK, linewidth=1.8)}
    if any(score is None for row in matrix_file.scores for score in row):
        legend["not evaluated"] = Rectangle((0, 0), 1, 1, facecolor="#fafafa", edgecolor=_GRID, hatch="////")
    figure.legend(
        legend.values(),
        legend.keys(),
        loc="outside lower right",
        ncols=2,
        frameon=False,
        fontsize=8,
        labelcolor=_MUTED,
    )
    figure.suptitle(_heading(matrix_file), fontsize=12, fontweight="bold", color=_INK)
    axes.set_title(_caption(matrix_file), fontsize=9, color=_MUTED, pad=10)
    return figure


def plot_curves(matrix_file: MatrixFile) -> Figure:
    """Draw each task's score over the stream, a panel per task, with the other tasks in grey behind it.

    A dot marks the score just after the task's own training; what falls to the right of it is forgotten.

    Args:
        matrix_file: A matrix of kind ``"sequence"`` or ``"joint"``.

    Returns:
        A figure of up to five panels side by side.

    Raises:
        UserError: The matrix is of kind ``"independent"``: its rows are separate runs, not a stream.
    """
    if matrix_file.kind == "independent":
        raise UserError(
            f"{matrix_file.strategy} tunes each task alone, so there is no stream to draw; "
            "plot_curves takes matrices of kind 'sequence' or 'joint'"
        )
    tasks, stages = matrix_file.tasks, range(len(matrix_file.rows))
    height = math.ceil(len(tasks) / 5)
    columns = math.ceil(len(tasks) / height)
    figure = Figure(figsize=(max(5.6, 2.6 * columns), 1.1 + 2.0 * height), layout="constrained")
    series = [
        [math.nan if (score := row[j]) is None else score for row in matrix_file.scores] for j in range(len(tasks))
    ]
    for j, task in enumerate(tasks):
        axes = figure.add_subplot(height, columns, j + 1)
        for other in series:
            axes.plot(stages, other, color=_OTHER_LINES, linewidth=1)
        axes.plot(stages, series[j], color=_LINE, linewidth=2, marker="o", markersize=3)
        for i in stages:
            if is_own_task(matrix_file, i, j):
                axes.plot([i], [series[j][i]], marker="o", markersize=8, color=_LINE, markeredgecolor="white")
        axes.set_title(f"{task} (task 0)" if task in matrix_file.task0 else task, fontsize=10, color=_INK, loc="left")
        axes.set(ylim=(0, 1.05 * top_of_scale(matrix_file)), xlim=(-0.3, len(matrix_file.rows) - 0.7))
        last_line = j >= len(tasks) - columns
        axes.set_xticks(list(stages), matrix_file.rows if last_line else [], rotation=40, ha="right")
        axes.tick_params(labelsize=8, labelcolor=_MUTED, color=_GRID)
        axes.grid(axis="y", color=_GRID, linewidth=0.6)
        axes.spines[:].set_visible(False)
    figure.suptitle(_heading(matrix_file), fontsize=12, fontweight="bold", color=_INK)
    caption = f"{_caption(matrix_file)}\nlarge dot: just after the task's own training"
    figure.supxlabel(caption, fontsize=9, color=_MUTED)
    return figure


def plot_similarities(
    matrices: Mapping[str, Sequence[Sequence[float]]], tasks: Sequence[str], *, task0: Sequence[str] = (), caption: str
) -> Figure:
    """Draw square matrices over the same tasks, a panel each, two side by side.

    Each panel's colours run from its least to its greatest entry off the diagonal, because cosines of one modality
    often lie close together. The diagonal, a task with itself, stays grey.

    Args:
        matrices: K x K numbers by the panel's title.
        tasks: Names of the K tasks.
        task0: Those of them that count as already learned.
        caption: What the figure is of; stands under its title.

    Returns:
        A figure of about 0.75 inch per task and panel.
    """
    across, size = min(2, len(matrices)), max(3.4, 1.3 + 0.75 * len(tasks))
    down = math.ceil(len(matrices) / across)
    figure = Figure(figsize=(size * across, 0.7 + (0.8 * size + 0.4) * down), layout="constrained")
    labels = [f"{task}\n(task 0)" if task in task0 else task for task in tasks]
    places = [i + 0.5 for i in range(len(tasks))]
    for number, (title, matrix) in enumerate(matrices.items(), start=1):
        axes = figure.add_subplot(down, across, number)
        apart = [value for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j]
        scale = Normalize(min(apart, default=0), max(apart, default=1))
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                colour = _HEAT(scale(value))
                face = _GRID if i == j else colour
                axes.add_patch(Rectangle((j, i), 1, 1, facecolor=face, edgecolor="white", linewidth=1.5))
                if i != j:
                    ink = text_colour(colour)
                    axes.text(j + 0.5, i + 0.5, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=9)
        axes.set(xlim=(0, len(tasks)), ylim=(len(tasks), 0))
        axes.set_title(title, fontsize=10, color=_INK, loc="left")
        axes.set_xticks(places, labels, rotation=40, ha="right")
        axes.set_yticks(places, labels)
        axes.tick_params(length=0, labelsize=8, labelcolor=_INK)
        axes.spines[:].set_visible(False)
    figure.suptitle("task similarity", fontsize=12, fontweight="bold", color=_INK)
    scales = "colours: from the least to the greatest entry of each panel"
    figure.supxlabel(f"{caption}\n{scales}", fontsize=9, color=_MUTED)
    return figure


def plot_comparison(comparisons: Sequence[Comparison], *, caption: str) -> Figure:
    """Draw what each strategy learned, what it kept, and what it forgot, with standard deviations as bars.

    Left, a ring is MFT (just after each task's training), a dot the average accuracy at the end, and the dashed line
    zero-shot: a strategy that learns nothing has both on that line. Right, its forgetting.

    Args:
        comparisons: One line of panels each.
        caption: What the figure is of; stands under it.

    Returns:
        A figure of about 0.3 inch per strategy.

    Example:
        >>> save_figure(plot_comparison(compare(runs), caption="seeds 0, 1, 2"), Path("comparison.png"))
    """
    heights = [0.75 + 0.3 * len(comparison.mean) for comparison in comparisons]
    figure = Figure(figsize=(9.2, 1.1 + sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(comparisons), 2, width_ratios=[2, 1], height_ratios=heights)
    for i, comparison in enumerate(comparisons):
        rows = [name for name in comparison.mean.index if name != "zero-shot"]
        scores = figure.add_subplot(grid[i, 0])
        lost = figure.add_subplot(grid[i, 1], sharey=scores)
        start = comparison.mean["average_accuracy"].get("zero-shot", math.nan)
        scores.axvline(start, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)), label="zero-shot")
        lost.axvline(0, color=_MUTED, linewidth=1)
        for y, name in enumerate(rows):
            ends = [
                comparison.mean[number][name] for number in ("mft", "average_accuracy") if number in comparison.mean
            ]
            scores.plot(ends, [y] * len(ends), color=_OTHER_LINES, linewidth=5, solid_capstyle="round", zorder=1)
        _points(scores, comparison, rows, "mft", -0.13, face="white", label="MFT: just after its own training")
        _points(scores, comparison, rows, "average_accuracy", 0.13, face=_LINE, label="average accuracy: at the end")
        _points(lost, comparison, rows, "forgetting_chaudhry", 0, face=_INK, edge=_INK)
        scores.set_yticks(range(len(rows)), rows)
        scores.set_ylim(len(rows) - 0.4, -0.6)
        scores.set_xlim(left=0)
        lost.set_xlim(min(lost.get_xlim()[0], -0.5), max(lost.get_xlim()[1], 5))  # a hair's breadth looks like one
        lost.tick_params(labelleft=False)
        title = f"{' + '.join(comparison.benchmarks)} from {comparison.model}"
        scores.set_title(title, fontsize=10, color=_INK, loc="left")
        lost.set_title("forgetting (Chaudhry)", fontsize=10, color=_INK, loc="left")
        for axes in (scores, lost):
            axes.tick_params(length=0, labelsize=8, labelcolor=_INK)
            axes.grid(axis="x", color=_GRID, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[:].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8.5, labelcolor=_INK)
    text = textwrap.fill(f"Bars: standard deviation. {caption}", 125)
    figure.supxlabel(text, fontsize=9, color=_MUTED)
    return figure


def _points(
    axes: Axes,
    comparison: Comparison,
    rows: Sequence[str],
    number: str,
    offset: float,
    *,
    face: str,
    edge: str = _LINE,
    label: str = "",
) -> None:
    """Draw one number of each row that has it, with its standard deviation where there is one."""
    if number not in comparison.mean:
        return
    places = {name: y + offset for y, name in enumerate(rows) if not math.isnan(comparison.mean[number][name])}
    axes.errorbar(
        comparison.mean[number][list(places)].tolist(),
        list(places.values()),
        xerr=comparison.spread[number][list(places)].fillna(0).tolist(),
        fmt="o",
        color=edge,
        markerfacecolor=face,
        markersize=6,
        elinewidth=1.2,
        label=label,
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix of the path (``.png``, ``.pdf``, ``.svg``) decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=160, facecolor="white", format=path.suffix.removeprefix("."))


def top_of_scale(matrix_file: MatrixFile) -> float:
    """Return the score that the scale ends at: 100, or the greatest score where that is above (CIDEr x100)."""
    return max([100.0, *(score for row in matrix_file.scores for score in row if score is not None)])


def is_own_task(matrix_file: MatrixFile, row: int, column: int) -> bool:
    """Tell whether a cell is the score of the task that its row was just trained on."""
    return matrix_file.rows[row] == matrix_file.tasks[column]


def row_label(matrix_file: MatrixFile, row: int) -> str:
    """Return what a row stands for, in words: ``after vqa`` in a sequence, ``vqa alone`` for independent tasks."""
    name = matrix_file.rows[row]
    if name == "initial":
        return "initial (zero-shot)"
    if name == "joint":
        return "after all jointly"
    return f"{name} alone" if matrix_file.kind == "independent" else f"after {name}"


def text_colour(background: tuple[float, float, float, float]) -> str:
    """Return black or white, whichever has the greater WCAG 2 contrast with a colour (red, green, blue, alpha)."""
    luminance = relative_luminance(background)
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def relative_luminance(colour: tuple[float, float, float, float]) -> float:
    """Return the relative luminance, 0 to 1, of an sRGB colour, as WCAG 2 defines it."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _heading(matrix_file: MatrixFile) -> str:
    return matrix_file.strategy if matrix_file.complete else f"{matrix_file.strategy} (unfinished)"


def _caption(matrix_file: MatrixFile) -> str:
    named = {
        "sequence": {
            "average_accuracy": "average accuracy {:.1f} (mean of the last row)",
            "forgetting_chaudhry": "forgetting {:.1f} (Chaudhry)",
        },
        "independent": {"mft": "MFT {:.1f} (mean of the framed cells)"},
        "joint": {"average_accuracy": "average accuracy {:.1f} (mean of the last row)"},
    }[matrix_file.kind]
    summary = matrix_file.summary()
    numbers = [text.format(summary[name]) for name, text in named.items() if summary[name] is not None]
    about = f"{matrix_file.benchmark}  ·  {matrix_file.model}  ·  seed {matrix_file.seed}"
    return "\n".join([about, *(["  ·  ".join(numbers)] if numbers else [])])
