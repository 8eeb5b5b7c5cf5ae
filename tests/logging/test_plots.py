"""The figures of a run, by what stands in them."""

from collections.abc import Callable
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.comparison import ComparedRun, compare
from avalanche_cit.evaluation.direct_reference import FinishedRun
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.logging.plots import (
    plot_comparison,
    plot_curves,
    plot_matrix,
    plot_similarities,
    relative_luminance,
    save_figure,
    top_of_scale,
)

MakeMatrix = Callable[..., MatrixFile]


def cells(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if patch.get_width() == 1]


def frames(axes: Axes) -> list[tuple[int, int]]:
    return [(int(p.get_y()), int(p.get_x())) for p in axes.patches if not p.get_fill()]


def heading(figure: Figure) -> str:
    return f"{figure.get_suptitle()}\n{figure.axes[0].get_title()}"


def test_matrix_shows_every_score_and_frames_the_task_just_trained(make_matrix: MakeMatrix) -> None:
    figure = plot_matrix(make_matrix())
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["10.2", "20.0", "60.5", "15.0", "35.0", "70.8"]
    assert frames(axes) == [(1, 0), (2, 1)]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "initial (zero-shot)",
        "after caption",
        "after vqa",
    ]
    for part in ("seqft", "two_tasks", "tiny-base", "seed 3", "average accuracy 52.9", "forgetting 25.5 (Chaudhry)"):
        assert part in heading(figure)


def test_cells_not_evaluated_are_hatched(make_matrix: MakeMatrix) -> None:
    direct = {"kind": "independent", "strategy": "directft", "scores": [[10, 20], [62, None], [None, 75]]}
    figure = plot_matrix(make_matrix(**direct, other_scores={}))
    hatched = [(int(p.get_y()), int(p.get_x())) for p in cells(figure.axes[0]) if p.get_hatch()]
    assert hatched == [(1, 1), (2, 0)]
    assert "MFT 68.5" in heading(figure)
    assert "not evaluated" in [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("top", [100.0, 480.0])
def test_text_stays_readable_on_every_colour(make_matrix: MakeMatrix, top: float) -> None:
    scores = np.linspace(0, top, 60).reshape(3, 20).tolist()
    tasks = [f"task{i}" for i in range(20)]
    file = make_matrix(
        tasks=tasks, scores_by=["s"] * 20, rows=["initial", *tasks[:2]], scores=scores, other_scores={}, complete=False
    )
    axes = plot_matrix(file).axes[0]
    assert len(axes.texts) == 60
    for cell, text in zip(cells(axes), axes.texts, strict=True):
        light, dark = sorted(
            (relative_luminance(to_rgba(c)) for c in (cell.get_facecolor(), text.get_color())), reverse=True
        )
        assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize(("greatest", "top"), [(70.75, 100.0), (380.0, 380.0)])
def test_scale_ends_at_100_or_at_a_greater_score(make_matrix: MakeMatrix, greatest: float, top: float) -> None:
    file = make_matrix(scores=[[0, top / 2], [0, 0], [0, greatest]], other_scores={})
    assert top_of_scale(file) == top
    drawn = cells(plot_matrix(file).axes[0])
    whole = cells(plot_matrix(make_matrix(scores=[[0, 50], [0, 0], [0, 100]], other_scores={})).axes[0])
    assert drawn[1].get_facecolor() == whole[1].get_facecolor()
    assert (drawn[5].get_facecolor() == whole[5].get_facecolor()) == (greatest == top)


def test_task0_columns_are_named_and_set_apart(make_matrix: MakeMatrix) -> None:
    axes = plot_matrix(
        make_matrix(task0=["caption"], rows=["initial", "vqa"], scores=[[1, 2], [3, 4]], other_scores={})
    )
    labels = [label.get_text() for label in axes.axes[0].get_xticklabels()]
    assert labels == ["caption\n(task 0)", "vqa"]
    assert [line.get_xdata()[0] for line in axes.axes[0].lines] == [1]


def test_joint_and_unfinished_runs(make_matrix: MakeMatrix) -> None:
    joint = make_matrix(
        kind="joint", strategy="jointft", rows=["initial", "joint"], scores=[[1, 2], [60, 70]], other_scores={}
    )
    figure = plot_matrix(joint)
    assert frames(figure.axes[0]) == []
    assert "average accuracy 65.0" in heading(figure)
    unfinished = make_matrix(rows=["initial"], scores=[[1, 2]], other_scores={}, complete=False)
    assert "unfinished" in heading(plot_matrix(unfinished))


def test_curves_follow_each_column(make_matrix: MakeMatrix) -> None:
    figure = plot_curves(make_matrix(scores=[[10, 20], [60, None], [35, 70]]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["caption", "vqa"]
    own = [axes.lines[2].get_ydata() for axes in figure.axes]
    np.testing.assert_array_equal(own, [[10, 60, 35], [20, np.nan, 70]])
    dots = [(float(axes.lines[3].get_xdata()[0]), float(axes.lines[3].get_ydata()[0])) for axes in figure.axes]
    assert dots == [(1, 60), (2, 70)]


def test_curves_refuse_runs_that_are_no_stream(make_matrix: MakeMatrix) -> None:
    with pytest.raises(UserError, match="directft tunes each task alone"):
        plot_curves(make_matrix(kind="independent", strategy="directft"))


def test_similarities_show_every_pair_on_each_panels_own_scale() -> None:
    close = [[1.0, 0.9, 0.95], [0.9, 1.0, 0.92], [0.95, 0.92, 1.0]]
    far = [[1.0, -0.2, 0.3], [-0.2, 1.0, 0.05], [0.3, 0.05, 1.0]]
    figure = plot_similarities({"image": close, "text": far}, ["a", "b", "old"], task0=["old"], caption="two of them")

    assert [axes.get_title(loc="left") for axes in figure.axes] == ["image", "text"]
    for axes, matrix in zip(figure.axes, (close, far), strict=True):
        pairs = [f"{matrix[i][j]:.3f}" for i in range(3) for j in range(3) if i != j]
        assert [text.get_text() for text in axes.texts] == pairs
        assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "old\n(task 0)"]
        drawn = [cell.get_facecolor() for cell in cells(axes)]
        assert drawn[0] == drawn[4] == drawn[8]  # the diagonal
        assert len(set(drawn)) == 4
    first, second = ([cell.get_facecolor() for cell in cells(axes)] for axes in figure.axes)
    assert (first[1], first[2]) == (second[1], second[2])  # the least and the greatest pair of each
    assert "two of them" in figure.get_supxlabel()


@pytest.mark.parametrize("matrix", [[[1.0]], [[1.0, 0.4], [0.4, 1.0]]])
def test_similarities_of_one_task_and_of_two(matrix: list[list[float]], tmp_path: Path) -> None:
    figure = plot_similarities({"image": matrix}, ["a", "b"][: len(matrix)], caption="")

    save_figure(figure, tmp_path / "few.png")
    assert len(figure.axes[0].texts) == len(matrix) ** 2 - len(matrix)


def test_comparison_shows_what_was_learned_kept_and_forgotten(make_matrix: MakeMatrix) -> None:
    direct = {"kind": "independent", "strategy": "directft", "scores": [[10, 20], [62, None], [None, 75]]}
    methods = [
        {"seed": 0},
        {"seed": 1, "scores": [[10.25, 20.0], [64.5, 15.0], [45.0, 70.75]]},
        {"strategy": "idle", "seed": 0, "scores": [[10, 20]] * 3},
        {**direct, "seed": 0},
    ]
    runs = [
        ComparedRun(FinishedRun(Path(f"{i}"), make_matrix(**m, other_scores={}), None), 1)
        for i, m in enumerate(methods)
    ]
    comparisons = compare(runs)
    figure = plot_comparison([*comparisons, *comparisons], caption="two seeds")

    assert len(figure.axes) == 4
    scores, lost = figure.axes[:2]
    assert [label.get_text() for label in scores.get_yticklabels()] == ["directft", "seqft", "idle"]
    drawn = {bars.get_label(): bars for bars in (*scores.containers, *lost.containers)}
    learned, kept, forgotten = (bars.lines[0] for bars in drawn.values())
    np.testing.assert_allclose(learned.get_xdata(orig=False), [68.5, (65.625 + 67.625) / 2, 15])
    np.testing.assert_allclose(kept.get_xdata(orig=False), [(52.875 + 57.875) / 2, 15])
    np.testing.assert_allclose(forgotten.get_xdata(orig=False), [(25.5 + 19.5) / 2, 0])
    np.testing.assert_allclose(forgotten.get_ydata(orig=False), [1, 2])
    assert learned.get_markerfacecolor() == "white" != kept.get_markerfacecolor()
    (bar, none) = lost.containers[0].lines[2][0].get_segments()
    assert np.ptp(bar[:, 0]) == pytest.approx(2 * stdev([25.5, 19.5]))
    assert np.ptp(none[:, 0]) == 0  # a single seed
    assert [line.get_xdata()[0] for line in scores.lines if line.get_label() == "zero-shot"] == [pytest.approx(15.125)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["zero-shot", "MFT: just after its own training", "average accuracy: at the end"]
    assert figure.get_supxlabel() == "Bars: standard deviation. two seeds"
    assert scores.get_title(loc="left") == "two_tasks from tiny-base"


def test_comparison_of_references_alone(make_matrix: MakeMatrix, tmp_path: Path) -> None:
    joint = make_matrix(
        kind="joint", strategy="jointft", rows=["initial", "joint"], scores=[[1, 2], [6, 7]], other_scores={}
    )
    figure = plot_comparison(compare([ComparedRun(FinishedRun(tmp_path, joint, None), 1)]), caption="")
    save_figure(figure, tmp_path / "joint.png")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["jointft"]
    assert np.ptp(figure.axes[1].get_xlim()) >= 5


def test_saved_without_pyplot(make_matrix: MakeMatrix, tmp_path: Path) -> None:
    path = tmp_path / "new" / "matrix.png"
    save_figure(plot_matrix(make_matrix()), path)
    with Image.open(path) as image:
        assert image.width > 500
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20
    assert pyplot.get_fignums() == []
