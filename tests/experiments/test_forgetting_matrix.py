"""The main script, as a user types it."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = str(Path(__file__).parents[2] / "experiments" / "forgetting_matrix.py")
SMALL = ["--train-samples=16", "--validation_samples=4", "--test-samples=8", "--epochs=1", "--batch-size=8"]


def _script(cache, *arguments, folder):
    command = [sys.executable, SCRIPT, *arguments]
    environment = {**os.environ, "AVALANCHE_CIT_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_two_strategies_one_report(cache, tmp_path):
    (tmp_path / "options.yaml").write_text("epochs: 1\nlr: 0.0005\n", encoding="utf-8")
    command = [*SMALL[:3], "--config", "options.yaml", "--batch-size=8", "--strategy", "seqft", "directft"]
    done = _script(cache, *command, "--output", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lr=0.0005" in done.stdout
    assert "zero-shot" in done.stdout
    assert "forgetting (Chaudhry)" in done.stdout
    assert "report: out/report.html" in done.stdout
    for strategy in ("seqft", "directft"):
        matrix = json.loads((tmp_path / "out" / f"{strategy}-seed0" / "matrix.json").read_text(encoding="utf-8"))
        assert matrix["complete"]
        assert matrix["strategy"] == strategy
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "seqft" in report
    assert "directft" in report
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr

    again = _script(cache, *command, "--output", "out", folder=tmp_path)
    assert again.returncode == 0
    assert "batch/s" not in again.stderr  # nothing was computed
    other = _script(cache, *command, "--epochs=2", "--output", "out", folder=tmp_path)
    assert other.returncode == 2
    assert other.stderr.count("\n") == 1
    assert "holds a run with other options: epochs (1 there, 2 now)" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "reply"], "unknown strategy 'reply': did you mean 'replay'?"),
        (["--benchmark", "mini_cit11"], "did you mean 'mini_cit1'?"),
        (["--model", "tiny-bass"], "did you mean 'tiny-base'?"),
        (["--epoch", "3"], "unknown option '--epoch': did you mean '--epochs'?"),
        (["--output", "file/below"], "cannot write to file/below"),
        (["--lr", "fast"], "'lr'"),
    ],
)
def test_mistakes_end_in_one_line(cache, tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVALANCHE_CIT_CACHE", str(cache))
    monkeypatch.setattr(sys, "argv", [SCRIPT, *SMALL, *arguments])

    with pytest.raises(SystemExit) as ended:
        runpy.run_path(SCRIPT, run_name="__main__")

    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
