"""Every score over the forgetting matrix that the field prints, one small pure function each.

The matrix ``R`` has shape (T + 1, T), float64: ``R[i][j]`` is the score on task j after training on task i, row 0 is
the model before any training (zero-shot), and a cell that was not evaluated is NaN or None. ``D[j]`` is the score on
task j of the model tuned on it alone (DirectFT). "BWT" and "forgetting" have several meanings in print: the functions
are named after theirs, and `CONVENTIONS` says who uses which.

A number whose cells are not all there, or whose formula divides by T - 1 = 0, is ``None``; no function returns NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Matrix = npt.ArrayLike | Sequence[Sequence[float | None]]
Vector = npt.ArrayLike | Sequence[float | None]


class Convention(NamedTuple):
    """How a report explains one number: its formula, who prints it, and what it means, in one line each."""

    formula: str
    printed_by: str
    meaning: str


CONVENTIONS: dict[str, Convention] = {
    "average_accuracy": Convention(
        "(1/T) sum_j R[T][j]",
        "nearly all, as ACC, AP, Last or A_T; as MFN in MCITlib",
        "mean score over all tasks at the end",
    ),
    "mft": Convention(
        "(1/T) sum_j R[j][j]",
        "MCITlib",
        "mean score on each task just after it was trained",
    ),
    "maa": Convention(
        "(1/T) sum_i (1/i) sum_{j<=i} R[i][j]",
        "CoIN, MCITlib, SMoLoRA; as MAP or Avg elsewhere",
        "mean over time of the mean score on the tasks seen so far",
    ),
    "a_lower_triangle": Convention(
        "2/(T(T+1)) sum_{i>=j} R[i][j]",
        "Diaz-Rodriguez et al., Continuum",
        "mean score over all pairs of a moment and a task seen by then",
    ),
    "bwt_gem": Convention(
        "1/(T-1) sum_{j<T} (R[T][j] - R[j][j])",
        "Lopez-Paz & Ranzato, mammoth, MCITlib",
        "change from just trained to the end, last task left out; negative is forgetting",
    ),
    "bwt_coin": Convention(
        "(1/T) sum_j (R[T][j] - R[j][j])",
        "CoIN",
        "the same sum divided by T: the last task counts as a zero",
    ),
    "bwt_all_pairs": Convention(
        "2/(T(T-1)) sum_{i>j} (R[i][j] - R[j][j])",
        "Diaz-Rodriguez et al., Continuum",
        "change since just trained, averaged over every later moment",
    ),
    "bwt_minimum": Convention(
        "(1/T) sum_j min_{0<=i<=T} (R[T][j] - R[i][j])",
        "CLMM",
        "loss against the best score ever, the zero-shot one included; never positive",
    ),
    "forgetting_chaudhry": Convention(
        "1/(T-1) sum_{j<T} (max_{j<=l<T} R[l][j] - R[T][j])",
        "Chaudhry et al., Continuum",
        "loss against the best score since the task was trained; positive is forgetting",
    ),
    "forgetting_first_last": Convention(
        "1/(T-1) sum_{j<T} (R[j][j] - R[T][j])",
        "Avalanche",
        "loss from just trained to the end: minus BWT (GEM)",
    ),
    "fwt_gem": Convention(
        "1/(T-1) sum_{j>=2} (R[j-1][j] - R[0][j])",
        "Lopez-Paz & Ranzato",
        "what earlier tasks gave a task before it was trained, over zero-shot",
    ),
    "intransigence": Convention(
        "(1/T) sum_j (D[j] - R[j][j])",
        "Chaudhry et al.",
        "what a task lost by not being trained alone (D = DirectFT); positive is a loss",
    ),
}


def summarize(matrix: Matrix, direct: Vector | None = None) -> dict[str, float | None]:
    """Return every convention of one matrix.

    Args:
        matrix: R, shape (T + 1, T), in any unit; NaN (or None) where not evaluated.
        direct: D, shape (T,), DirectFT's scores; without it intransigence is None.

    Returns:
        The keys of `CONVENTIONS`, in that order, in the unit of the scores; None where undefined.

    Raises:
        ValueError: The matrix is not of shape (T + 1, T), or ``direct`` not of shape (T,).

    Example:
        >>> numbers = summarize([[10, 20], [60, 30], [50, 70]], direct=[65, 75])
        >>> numbers["average_accuracy"], numbers["bwt_gem"], numbers["intransigence"]
        (60.0, -10.0, 5.0)
    """
    return {
        "average_accuracy": average_accuracy(matrix),
        "mft": mft(matrix),
        "maa": maa(matrix),
        "a_lower_triangle": a_lower_triangle(matrix),
        "bwt_gem": bwt_gem(matrix),
        "bwt_coin": bwt_coin(matrix),
        "bwt_all_pairs": bwt_all_pairs(matrix),
        "bwt_minimum": bwt_minimum(matrix),
        "forgetting_chaudhry": forgetting_chaudhry(matrix),
        "forgetting_first_last": forgetting_first_last(matrix),
        "fwt_gem": fwt_gem(matrix),
        "intransigence": intransigence(matrix, direct),
    }


def relative(matrix: Matrix, direct: Vector) -> Array:
    """Return each cell x 100 / D[j], so that tasks on different scales can be averaged.

    Args:
        matrix: Scores, shape (rows, T).
        direct: D, shape (T,), DirectFT's scores.

    Returns:
        Percent of DirectFT's score, shape (rows, T); NaN where D[j] is 0 or NaN.

    Example:
        >>> relative([[40.0, 150.0]], direct=[80.0, 300.0]).tolist()
        [[50.0, 50.0]]
    """
    cells, alone = np.asarray(matrix, dtype=np.float64), np.asarray(direct, dtype=np.float64)
    return np.divide(100 * cells, alone, out=np.full_like(cells, np.nan), where=alone != 0)


def average_accuracy(matrix: Matrix) -> float | None:
    """(1/T) sum_j R[T][j]: the mean score over all tasks at the end (ACC, AP, Last; MFN in MCITlib).

    Example:
        >>> average_accuracy([[10, 20], [60, 30], [50, 70]])
        60.0
    """
    return _mean(_checked(matrix)[-1])


def mft(matrix: Matrix) -> float | None:
    """(1/T) sum_j R[j][j]: the mean score on each task just after training on it (MCITlib's MFT).

    Example:
        >>> mft([[10, 20], [60, 30], [50, 70]])
        65.0
    """
    return _mean(_just_trained(_checked(matrix)))


def maa(matrix: Matrix) -> float | None:
    """(1/T) sum_i (1/i) sum_{j<=i} R[i][j]: the mean over time of the mean over tasks seen (CoIN's MAA).

    Example:
        >>> maa([[10, 20], [60, 30], [50, 70]])
        60.0
    """
    trained = _checked(matrix)[1:]
    return _mean(np.array([row[: i + 1].mean() for i, row in enumerate(trained)]))


def a_lower_triangle(matrix: Matrix) -> float | None:
    """2/(T(T+1)) sum_{i>=j} R[i][j]: A of Diaz-Rodriguez et al. (2018), the mean of the lower triangle.

    Example:
        >>> a_lower_triangle([[10, 20], [60, 30], [50, 70]])
        60.0
    """
    trained = _checked(matrix)[1:]
    return _mean(trained[np.tril_indices(len(trained))])


def bwt_gem(matrix: Matrix) -> float | None:
    """1/(T-1) sum_{j<T} (R[T][j] - R[j][j]): backward transfer of GEM (Lopez-Paz & Ranzato, 2017).

    Example:
        >>> bwt_gem([[10, 20], [60, 30], [50, 70]])
        -10.0
    """
    cells = _checked(matrix)
    return _mean((cells[-1] - _just_trained(cells))[:-1])


def bwt_coin(matrix: Matrix) -> float | None:
    """(1/T) sum_j (R[T][j] - R[j][j]): backward transfer of CoIN (Chen et al., 2024), the last task included.

    Example:
        >>> bwt_coin([[10, 20], [60, 30], [50, 70]])
        -5.0
    """
    cells = _checked(matrix)
    return _mean(cells[-1] - _just_trained(cells))


def bwt_all_pairs(matrix: Matrix) -> float | None:
    """2/(T(T-1)) sum_{i>j} (R[i][j] - R[j][j]): backward transfer of Diaz-Rodriguez et al. (2018).

    Example:
        >>> bwt_all_pairs([[10, 20], [60, 30], [50, 70]])
        -10.0
    """
    cells = _checked(matrix)
    change = cells[1:] - _just_trained(cells)
    return _mean(change[np.tril_indices(len(change), -1)])


def bwt_minimum(matrix: Matrix) -> float | None:
    """(1/T) sum_j min_{0<=i<=T} (R[T][j] - R[i][j]): backward transfer of CLMM, row 0 included; needs every cell.

    Example:
        >>> bwt_minimum([[10, 20], [60, 30], [50, 70]])
        -5.0
    """
    cells = _checked(matrix)
    return _mean((cells[-1] - cells).min(axis=0))


def forgetting_chaudhry(matrix: Matrix) -> float | None:
    """1/(T-1) sum_{j<T} (max_{j<=l<T} R[l][j] - R[T][j]): forgetting of Chaudhry et al. (2018); row 0 takes no part.

    Example:
        >>> forgetting_chaudhry([[90, 20], [60, 30], [50, 70]])
        10.0
    """
    cells = _checked(matrix)
    before_last = range(cells.shape[1] - 1)
    return _mean(np.array([cells[j + 1 : -1, j].max() - cells[-1, j] for j in before_last]))


def forgetting_first_last(matrix: Matrix) -> float | None:
    """1/(T-1) sum_{j<T} (R[j][j] - R[T][j]): forgetting as Avalanche's stream forgetting measures it.

    Example:
        >>> forgetting_first_last([[10, 20], [60, 30], [50, 70]])
        10.0
    """
    cells = _checked(matrix)
    return _mean((_just_trained(cells) - cells[-1])[:-1])


def fwt_gem(matrix: Matrix) -> float | None:
    """1/(T-1) sum_{j>=2} (R[j-1][j] - R[0][j]): forward transfer of GEM (Lopez-Paz & Ranzato, 2017); needs row 0.

    Example:
        >>> fwt_gem([[10, 20], [60, 30], [50, 70]])
        10.0
    """
    cells = _checked(matrix)
    just_before = np.diagonal(cells)
    return _mean((just_before - cells[0])[1:])


def intransigence(matrix: Matrix, direct: Vector | None) -> float | None:
    """(1/T) sum_j (D[j] - R[j][j]): what a task lost by coming in a sequence (Chaudhry et al., 2018).

    Their reference model is trained jointly on the tasks so far; D is the model tuned on the task alone.

    Example:
        >>> intransigence([[10, 20], [60, 30], [50, 70]], direct=[65, 75])
        5.0
    """
    cells = _checked(matrix)
    if direct is None:
        return None
    alone = np.asarray(direct, dtype=np.float64)
    if alone.shape != (cells.shape[1],):
        raise ValueError(f"DirectFT's scores have shape {alone.shape}; the matrix has {cells.shape[1]} tasks")
    return _mean(alone - _just_trained(cells))


def _checked(matrix: Matrix) -> Array:
    cells = np.asarray(matrix, dtype=np.float64)
    if cells.ndim != 2 or cells.shape[1] == 0 or cells.shape[0] != cells.shape[1] + 1:
        raise ValueError(f"a forgetting matrix has shape (T + 1, T), initial row first, not {cells.shape}")
    return cells


def _just_trained(cells: Array) -> Array:
    """R[j][j] for j = 1..T, which numpy's indices from 0 find one row below the diagonal."""
    return np.diagonal(cells, offset=-1)


def _mean(terms: Array) -> float | None:
    """Return the mean, or None where there is no term or a term was not evaluated."""
    if terms.size == 0 or np.isnan(terms).any():
        return None
    return float(terms.mean())
