"""Run directories: fresh, unfinished, finished, of another configuration, unusable."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.logging.run_directory import RunDirectory

CONFIG = {"strategy": "seqft", "seed": 0, "lr": 1e-05, "task0": None, "trainable": ["a.*", "b"], "data_root": "Dätä"}


@pytest.fixture
def begun(tmp_path: Path, make_matrix: Callable[..., MatrixFile]) -> Path:
    """The folder of a run that has written rows of its matrix."""
    folder = RunDirectory(tmp_path / "run", CONFIG).folder
    make_matrix().write(folder)
    return folder


def test_a_fresh_folder_holds_the_configuration_alone(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "runs" / "one", CONFIG)
    assert not directory.finished
    assert sorted(path.name for path in directory.folder.iterdir()) == [".lock", "config.yaml"]
    assert (directory.folder / ".lock").stat().st_size == 0
    text = (directory.folder / "config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == CONFIG
    assert "Dätä" in text
    assert list(yaml.safe_load(text)) == list(CONFIG)  # in the order given
    assert directory.predictions == directory.folder / "predictions"
    assert directory.metrics == directory.folder / "metrics.jsonl"


def test_an_unfinished_run_is_cleared_and_begun_again(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path / "run", CONFIG).folder
    made = ("matrix.json", "matrix.csv", "metrics.jsonl", "predictions/initial/vqa.jsonl", "examples/vqa/1.png")
    for name in (*made, "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("left over")

    again = RunDirectory(folder, CONFIG)
    assert not again.finished
    again.clear()

    assert sorted(path.name for path in folder.iterdir()) == [".lock", "config.yaml", "notes.txt"]
    again.clear()  # nothing there is no mistake


def test_a_finished_run_is_read_and_not_run_again(tmp_path: Path, make_matrix: Callable[..., MatrixFile]) -> None:
    directory = RunDirectory(tmp_path / "run", CONFIG)
    make_matrix().write(directory.folder)
    assert not directory.finished  # the matrix is not the last file of a run
    directory.finish({"seed": 0, "model": "modèle"})
    assert directory.finished
    assert "modèle" in (directory.folder / "provenance.json").read_text(encoding="utf-8")

    again = RunDirectory(tmp_path / "run", dict(CONFIG))
    assert again.finished
    assert again.read_matrix() == make_matrix()
    again.clear()
    assert not again.finished
    assert [path.name for path in directory.folder.glob(".*")] == [".lock"]  # nothing half-written


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed (0 there, 1 now)"),
        ({"lr": 1e-4, "strategy": "replay"}, "strategy ('seqft' there, 'replay' now), lr (1e-05 there, 0.0001 now)"),
        ({"epochs": 3}, "epochs (None there, 3 now)"),
    ],
)
def test_another_configuration_is_refused_by_the_options_that_differ(
    begun: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError) as caught:
        RunDirectory(begun, {**CONFIG, **changes})
    assert str(caught.value).startswith(f"{begun} holds a run with other options: {named}; give another --output")
    assert yaml.safe_load((begun / "config.yaml").read_text(encoding="utf-8")) == CONFIG


def test_an_option_that_is_gone_is_named(begun: Path) -> None:
    with pytest.raises(UserError, match=re.escape("other options: seed (0 there, None now);")):
        RunDirectory(begun, {key: value for key, value in CONFIG.items() if key != "seed"})


def test_before_the_first_row_another_configuration_takes_the_folder(tmp_path: Path) -> None:
    """Whoever mistypes an option and breaks off at once need not delete anything."""
    RunDirectory(tmp_path / "run", CONFIG)
    RunDirectory(tmp_path / "run", {**CONFIG, "seed": 1})
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")) == {**CONFIG, "seed": 1}


@pytest.mark.parametrize("below", ["", "a/b"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    folder = tmp_path / "file" / below
    with pytest.raises(UserError, match=re.escape(f"cannot write to {folder}: ") + ".*; give another --output"):
        RunDirectory(folder, CONFIG)
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"strategy: [seqft\nseed: 0\n", "broken YAML"),
        (b"strategy: \xff\n", "not a text file in UTF-8"),
        (b"", "is no configuration"),
        (b"- seqft\n", "is no configuration"),
    ],
)
def test_a_broken_configuration_is_named(begun: Path, content: bytes, problem: str) -> None:
    file = begun / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"{file}: {problem}")) as caught:
        RunDirectory(begun, CONFIG)
    assert "delete the run directory, or give another" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == content


def test_a_run_from_before_an_option_existed_had_its_default(begun: Path) -> None:
    newer = {**CONFIG, "on_bad_sample": "fail"}
    RunDirectory(begun, newer, {"on_bad_sample": "fail", "seed": 7})  # what the run names counts, not a default
    with pytest.raises(UserError, match=re.escape("other options: on_bad_sample ('fail' there, 'skip' now);")):
        RunDirectory(begun, {**newer, "on_bad_sample": "skip"}, {"on_bad_sample": "fail"})
    with pytest.raises(UserError, match=re.escape("other options: on_bad_sample (None there, 'fail' now);")):
        RunDirectory(begun, newer)


# --- One process at a time --------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from avalanche_cit.logging.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1]), {"strategy": "seqft"}).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder ``run`` until its input is closed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_folder_that_another_process_writes_is_left_alone(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    config = {"strategy": "seqft"}
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for options in (config, {"strategy": "replay"}):  # before the first row, another configuration would take it
        with pytest.raises(UserError) as caught:
            RunDirectory(tmp_path / "run", options)
        holder = f"process {other.pid} on {socket.gethostname()}"
        assert str(caught.value) == (
            f"{tmp_path / 'run'} is being written by {holder}: wait for it or end it, or give another --output"
        )
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before

    other.communicate()  # closes its input, and it ends
    with RunDirectory(tmp_path / "run", config).locked():
        pass


def test_the_lock_ends_with_its_process(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "run" / ".lock.holder").exists()  # it had no time to clean up
    directory = RunDirectory(tmp_path / "run", {"strategy": "seqft"})
    with directory.locked():
        said = (directory.folder / ".lock.holder").read_text()
        assert said == f"process {os.getpid()} on {socket.gethostname()}"
    assert not (directory.folder / ".lock.holder").exists()


def test_the_lock_ends_with_an_error(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run", CONFIG)
    with pytest.raises(KeyError), directory.locked():
        raise KeyError
    with directory.locked(), pytest.raises(UserError, match=f"by process {os.getpid()} on"):
        RunDirectory(tmp_path / "run", CONFIG)  # nor may the same process write it twice


def test_a_begun_run_is_read_while_another_process_writes_it(
    tmp_path: Path, other: subprocess.Popen[str], make_matrix: Callable[..., MatrixFile]
) -> None:
    make_matrix().write(tmp_path / "run")
    directory = RunDirectory(tmp_path / "run", {"strategy": "seqft"})
    assert directory.read_matrix() == make_matrix()
    with pytest.raises(UserError, match=f"is being written by process {other.pid} on "), directory.locked():
        pytest.fail("two processes hold one folder")
    assert (tmp_path / "run" / ".lock.holder").read_text().startswith(f"process {other.pid} ")
