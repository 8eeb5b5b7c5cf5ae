"""Small line charts of the report, as coordinates that the template draws as inline SVG in the page's own colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.checked_json import is_number, read_json_lines, take
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.logging.plots import is_own_task, row_label, top_of_scale

WIDTH, HEIGHT, MARGIN = 240, 88, 6
"""Size of a chart in SVG units, and the free edge within it."""

MOST_POINTS = 160
"""A longer series is drawn as the means of this many equal stretches."""


@dataclass(frozen=True)
class Dot:
    """A point with its text for pointer and screen reader; `own` where the task was just trained."""

    x: float
    y: float
    label: str
    own: bool


@dataclass(frozen=True)
class Chart:
    """One panel.

    Attributes:
        title: What is drawn.
        note: The numbers that matter, in words.
        description: The whole series in words, for those who do not see it.
        lines: Points of each unbroken stretch, as SVG's ``points`` attribute wants them.
        dots: Marked points.
        bars: Horizontal positions of vertical guide lines, where another task starts.
        top: The value at the upper edge; the lower edge is 0.
    """

    title: str
    note: str
    description: str
    lines: list[str]
    top: float
    dots: list[Dot] = field(default_factory=list)
    bars: list[float] = field(default_factory=list)


def score_charts(matrix_file: MatrixFile) -> list[Chart]:
    """Draw each task's score over the stages of a sequence, one chart per column of the matrix."""
    top = top_of_scale(matrix_file)
    last = len(matrix_file.rows) - 1
    charts = []
    for j, task in enumerate(matrix_file.tasks):
        scores = [row[j] for row in matrix_file.scores]
        points = [None if s is None else (_x(i, 0, last), _y(s, top)) for i, s in enumerate(scores)]
        labels = [f"{row_label(matrix_file, i)}: {_text(s)}" for i, s in enumerate(scores)]
        dots = [
            Dot(point[0], point[1], labels[i], is_own_task(matrix_file, i, j))
            for i, point in enumerate(points)
            if point is not None
        ]
        start = next((i for i in range(len(scores)) if is_own_task(matrix_file, i, j)), 0)
        verb = "learned" if matrix_file.rows[start] == task else "at first"
        note = f"{verb} {_text(scores[start])}, now {_text(scores[-1])}"
        charts.append(Chart(task, note, f"{task}. {'; '.join(labels)}.", _stretches(points), top, dots))
    return charts


def training_charts(metrics_file: Path) -> list[Chart]:
    """Draw every number that was logged while training, such as loss and penalty, over the optimizer steps.

    Where a resumed run has logged a step twice, the later line counts.

    Raises:
        UserError: A line of ``metrics.jsonl`` is not a JSON object with the logger's keys.
    """
    series: dict[str, dict[int, float]] = {}
    task_starts: dict[object, int] = {}
    for number, line in read_json_lines(metrics_file):
        try:
            step = take(line, "step", int, "a whole number")
            name, phase = take(line, "name", str, "a text"), take(line, "phase", str, "a text")
            task, value = line.get("task"), line.get("value")
            if not isinstance(task, str | int | None):
                raise UserError(f"'task' must be a name, a whole number or null, not {str(task)[:60]!r}")
            if value is not None and not is_number(value):
                raise UserError(f"'value' must be a number or null, not {str(value)[:60]!r}")
        except UserError as error:
            raise UserError(f"{metrics_file}, line {number}: not a logged metric: {error}; delete this line") from None
        if phase == "train" and value is not None:
            series.setdefault(name, {})[step] = value
            task_starts.setdefault(task, step)
    return [
        _training_chart(name, values, list(task_starts.values())) for name, values in series.items() if len(values) > 1
    ]


def _training_chart(name: str, values: dict[int, float], task_starts: Sequence[int]) -> Chart:
    steps = sorted(values)
    first, last = steps[0], steps[-1]
    size = -(-len(steps) // MOST_POINTS)
    stretches = [steps[i : i + size] for i in range(0, len(steps), size)]
    means = [(sum(s) / len(s), sum(values[step] for step in s) / len(s)) for s in stretches]
    top = max(*(value for _, value in means), 1e-12)
    points = [(_x(step, first, last), _y(max(value, 0.0), top)) for step, value in means]
    note = f"first {values[first]:.4g}, last {values[last]:.4g}, highest {max(values.values()):.4g}"
    bars = [_x(start, first, last) for start in task_starts if first < start <= last]
    return Chart(name, note, f"{name} over {last - first + 1} steps: {note}.", _stretches(points), top, bars=bars)


def _stretches(points: Sequence[tuple[float, float] | None]) -> list[str]:
    """Join neighbouring points; a missing one breaks the line."""
    stretches: list[list[str]] = [[]]
    for point in points:
        if point is None:
            stretches.append([])
        else:
            stretches[-1].append(f"{point[0]:.1f},{point[1]:.1f}")
    return [" ".join(stretch) for stretch in stretches if len(stretch) > 1]


def _x(value: float, first: float, last: float) -> float:
    return round(MARGIN + (WIDTH - 2 * MARGIN) * (value - first) / max(last - first, 1), 1)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * value / top, 1)


def _text(score: float | None) -> str:
    return "not evaluated" if score is None else f"{score:.1f}"
