"""Run directories written by hand: two tasks, so that every number can be checked in the head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from avalanche_cit.evaluation.matrix_file import MatrixFile

MakeRun = Callable[..., Path]


@pytest.fixture
def make_matrix() -> Callable[..., MatrixFile]:
    """Build a matrix; by default SeqFT's, which learns two tasks and forgets 25.5 of the first one's 60.5 points."""

    def make(**changes: Any) -> MatrixFile:
        fields: dict[str, Any] = {
            "kind": "sequence",
            "benchmark": "two_tasks",
            "strategy": "seqft",
            "model": "tiny-base",
            "seed": 3,
            "tasks": ["caption", "vqa"],
            "task0": [],
            "scores_by": ["cider_x10", "vqa_accuracy"],
            "rows": ["initial", "caption", "vqa"],
            "scores": [[10.25, 20.0], [60.5, 15.0], [35.0, 70.75]],
            "other_scores": {"token_f1": [[11.0, 22.0], [61.0, 16.0], [44.4, 77.7]]},
            "complete": True,
        }
        return MatrixFile(**(fields | changes))

    return make


@pytest.fixture
def make_run(tmp_path: Path, make_matrix: Callable[..., MatrixFile]) -> MakeRun:
    """Write a run directory with a matrix and whatever else is given, and return it."""

    def make(
        name: str = "seqft_3",
        *,
        config: str = "strategy: seqft\nepochs: 2\n",
        provenance: dict[str, Any] | None = None,
        predictions: dict[tuple[str, str], list[dict[str, Any]]] | None = None,
        pictures: dict[str, Image.Image] | None = None,
        **changes: Any,
    ) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        make_matrix(**changes).write(directory)
        (directory / "config.yaml").write_text(config)
        if provenance is not None:
            (directory / "provenance.json").write_text(json.dumps(provenance))
        for (row, task), lines in (predictions or {}).items():
            file = directory / "predictions" / row / f"{task}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        for path, picture in (pictures or {}).items():
            (directory / "examples" / path).parent.mkdir(parents=True, exist_ok=True)
            picture.save(directory / "examples" / path)
        return directory

    return make
