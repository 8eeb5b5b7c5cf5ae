"""Which DirectFT run is the reference of which other run: what intransigence and relative numbers are computed from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.checked_json import read_yaml
from avalanche_cit.evaluation.matrix_file import MatrixFile

MAY_DIFFER = frozenset(
    {
        "strategy",
        "lambda_",
        "temperature",
        "per_sample",
        "importance_samples",
        "weighting",
        "rescale",
        "threshold",
        "fusion",
        "similarity_samples",
        "image_encoder",
        "text_encoder",
        "memory_fraction",
        "memory_batch_size",
    }
)
"""The options that direct tuning does not read: a method's own."""


@dataclass(frozen=True)
class FinishedRun:
    """A run directory's matrix and, where there is one, its configuration.

    Attributes:
        path: The matrix file.
        file: Its content.
        config: The options in ``config.yaml`` beside a ``matrix.json``, or None.
    """

    path: Path
    file: MatrixFile
    config: dict[str, Any] | None

    @classmethod
    def read(cls, path: Path) -> FinishedRun:
        """Read a run directory, or a matrix file that was copied out of one.

        Raises:
            UserError: ``matrix.json`` is missing or wrong, or ``config.yaml`` cannot be parsed; the message says where.
        """
        matrix_file = path / "matrix.json" if path.is_dir() else path
        config_file = matrix_file.with_name("config.yaml")
        has_config = matrix_file.name == "matrix.json" and config_file.exists()
        return cls(matrix_file, MatrixFile.read(matrix_file), _read_config(config_file) if has_config else None)


def direct_scores(run: FinishedRun, runs: Iterable[FinishedRun]) -> list[float | None] | None:
    """Return DirectFT's scores on a run's tasks, from the run of kind independent among ``runs`` that belongs to it.

    It belongs to it where benchmark, model, seed and the set of tasks are the same, and, if both have a
    ``config.yaml``, every top-level option but those in `MAY_DIFFER`.

    Args:
        run: The run to be measured.
        runs: The runs to look among.

    Returns:
        One score per task of ``run``'s sequence, in its order; None where no run belongs to it, and for a run that is
        no sequence.

    Raises:
        UserError: Two DirectFT runs belong to it.

    Example:
        >>> direct = direct_scores(run, runs)
        >>> run.file.summary(direct)["intransigence"]
        5.0
    """
    fitting = [other for other in runs if _same_start(other, run) and not _differing(other, run)]
    references = {other.path.resolve(): other for other in fitting}
    if len(references) > 1:
        paths = " and ".join(str(reference.path) for reference in references.values())
        raise UserError(f"{paths} are both DirectFT runs for {run.path}: leave one of them out")
    for reference in references.values():
        by_task = dict(zip(reference.file.sequence, reference.file.direct(), strict=True))
        return [by_task[task] for task in run.file.sequence]
    return None


def refused_references(run: FinishedRun, runs: Iterable[FinishedRun]) -> list[str]:
    """Return one line for each DirectFT run of the same start that other options keep from being a run's reference.

    Args:
        run: The run to be measured.
        runs: The runs to look among.
    """
    return [
        f"{other.path} is no DirectFT reference for {run.path}: they differ in {', '.join(_differing(other, run))}"
        for other in runs
        if _same_start(other, run) and _differing(other, run)
    ]


def _same_start(other: FinishedRun, run: FinishedRun) -> bool:
    """Return whether one is a DirectFT run and the other a sequence, of the same tasks, start and seed."""
    a, b = other.file, run.file
    return (
        (a.kind, b.kind) == ("independent", "sequence")
        and (a.benchmark, a.model, a.seed) == (b.benchmark, b.model, b.seed)
        and set(a.sequence) == set(b.sequence)
    )


def _differing(other: FinishedRun, run: FinishedRun) -> list[str]:
    """Return the top-level options in which two runs differ; none where one of them has no configuration."""
    a, b = other.config, run.config
    if a is None or b is None:
        return []
    return sorted(option for option in (a.keys() | b.keys()) - MAY_DIFFER if a.get(option) != b.get(option))


def _read_config(path: Path) -> dict[str, Any]:
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise UserError(f"{path}: must hold options, one 'name: value' a line")
    return config
