"""The coordinates of the report's small charts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.logging.charts import HEIGHT, MARGIN, MOST_POINTS, WIDTH, score_charts, training_charts

MakeMatrix = Callable[..., MatrixFile]


def points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def test_scores_run_from_edge_to_edge(make_matrix: MakeMatrix) -> None:
    chart = score_charts(make_matrix(scores=[[0, 20], [100, 15], [50, 70]]))[0]
    middle = HEIGHT / 2
    assert points(chart.lines[0]) == [(MARGIN, HEIGHT - MARGIN), (WIDTH / 2, MARGIN), (WIDTH - MARGIN, middle)]
    assert [dot.own for dot in chart.dots] == [False, True, False]
    assert chart.note == "learned 100.0, now 50.0"
    assert chart.description == "caption. initial (zero-shot): 0.0; after caption: 100.0; after vqa: 50.0."


def test_a_missing_score_breaks_the_line(make_matrix: MakeMatrix) -> None:
    scores = [[10, 1], [None, 2], [30, 3], [40, 4]]
    tasks = ["a", "b", "c"]
    file = make_matrix(
        tasks=tasks,
        scores_by=["s"] * 3,
        rows=["initial", *tasks],
        scores=[[*row, 0] for row in scores],
        other_scores={},
    )
    chart = score_charts(file)[0]
    assert [len(points(line)) for line in chart.lines] == [2]
    assert len(chart.dots) == 3
    assert "after a: not evaluated" in chart.description


def log(path: Path, lines: list[tuple[int, str, str, str, float | None]]) -> Path:
    keys = ("step", "task", "phase", "name", "value")
    path.write_text("".join(json.dumps(dict(zip(keys, line, strict=True))) + "\n" for line in lines))
    return path


def test_training_log_keeps_the_later_of_two_values_and_marks_new_tasks(tmp_path: Path) -> None:
    path = log(
        tmp_path / "metrics.jsonl",
        [
            (0, "a", "train", "loss", 4.0),
            (1, "a", "train", "loss", 9.0),
            (1, "a", "train", "loss", 2.0),
            (2, "b", "train", "loss", 1.0),
            (2, "b", "train", "loss_of_nothing", None),
            (2, "b", "eval", "accuracy", 50.0),
            (3, "b", "eval", "accuracy", 60.0),
        ],
    )
    (chart,) = training_charts(path)
    assert chart.title == "loss"
    assert chart.note == "first 4, last 1, highest 4"
    assert points(chart.lines[0]) == [(MARGIN, MARGIN), (WIDTH / 2, HEIGHT / 2), (WIDTH - MARGIN, 63.0)]
    assert chart.bars == [WIDTH - MARGIN]


def test_a_long_log_is_drawn_as_means(tmp_path: Path) -> None:
    path = log(tmp_path / "metrics.jsonl", [(i, "a", "train", "loss", float(i % 2)) for i in range(4 * MOST_POINTS)])
    (chart,) = training_charts(path)
    drawn = points(chart.lines[0])
    assert len(drawn) == MOST_POINTS
    assert {y for _, y in drawn} == {float(MARGIN)}  # every mean is 0.5, the top of the scale


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = log(tmp_path / "metrics.jsonl", [(0, "a", "train", "loss", 4.0)])
    path.write_text(path.read_text() + '{"step": 1}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: not a logged metric"):
        training_charts(path)
