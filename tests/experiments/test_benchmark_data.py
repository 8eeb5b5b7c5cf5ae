"""The benchmark of converting and opening annotations, on few of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "experiments" / "benchmark_data.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_both_steps_are_measured(tmp_path: Path) -> None:
    done = run("--questions", "2000", "--images", "7", "--keep", str(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")
    assert "2,000 questions x 10 answers" in done.stdout
    figures = {}
    for step in ("convert", "open"):
        (line,) = [line for line in done.stdout.splitlines() if re.match(rf"\W*{step} ", line)]
        figures[step] = [cell.strip() for cell in line.strip("│").split("│")][1:]
    assert [figures["convert"][1], figures["open"][1], figures["open"][4]] == ["< 90 s", "< 2 s", "< 500 MB"]
    assert float(figures["convert"][2]) > float(figures["open"][2]) > 0  # the second process found the first one's rows
    assert len(list((tmp_path / "images").iterdir())) == 7
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 2  # training split, and one that serves as two others


def test_wrong_numbers_are_one_line() -> None:
    done = run("--questions", "0")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --questions and --images must be above 0\n"
