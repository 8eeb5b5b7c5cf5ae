"""The run directory: what a run leaves behind, and the rule that one directory holds one configuration."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.checked_json import read_yaml
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.whole_file import write_whole

_MADE_BY_A_RUN = ("matrix.json", "matrix.csv", "matrix.png", "metrics.jsonl", "provenance.json", "report.html")
_FOLDERS = ("predictions", "examples", "checkpoints")


class RunDirectory:
    """The files of one run.

    Args:
        folder: Made where it is missing.
        config: The resolved configuration, of plain values.
        defaults: Values that options had before they existed: a run that does not name such an option had this one.
        may_change: Options in which a run and its continuation may differ.
        writes: Whether this process writes the folder: of several that carry out a run together, one does.

    Raises:
        UserError: The folder cannot be written, holds a run of another configuration, or one that another process has
            begun and of which nothing is saved yet.

    Example:
        >>> directory = RunDirectory(Path("runs/seqft-seed0"), {"strategy": "seqft", "seed": 0})
        >>> directory.finished
        False
        >>> with directory.locked():  # as long as it is written to; reading needs no lock
        ...     directory.clear()
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        may_change: Collection[str] = (),
        writes: bool = True,
    ) -> None:
        self.folder = folder
        self._config = config
        self._defaults = defaults or {}
        self._may_change = may_change
        self._writes = writes
        if not self._holds_a_run() and writes:
            with self.locked():
                pass

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from writing to the folder, and make it hold this configuration.

        The lock is the operating system's: it ends with the process, however that ends.

        Raises:
            UserError: Another process holds the folder (the message says which), it cannot be written, or it holds a
                run of another configuration.
        """
        if not self._writes:
            yield
            return
        lock, holder = FileLock(self.folder / ".lock"), self.folder / ".lock.holder"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            raise UserError(
                f"{self.folder} is being written by {_read_holder(holder)}: wait for it or end it, or give another "
                "--output"
            ) from None
        except OSError as error:
            raise self._not_writable(error) from error
        try:
            self._claim(holder)
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def _claim(self, holder: Path) -> None:
        begun = self._holds_a_run()
        try:
            for folder in (self.folder, self.checkpoints):
                for stale in folder.glob(".*.unfinished"):  # of a process that was killed meanwhile
                    stale.unlink()
            write_whole(holder, f"process {os.getpid()} on {socket.gethostname()}")
            if not begun:
                text = yaml.safe_dump(dict(self._config), sort_keys=False, allow_unicode=True)
                write_whole(self.folder / "config.yaml", text)
        except OSError as error:
            raise self._not_writable(error) from error

    def _holds_a_run(self) -> bool:
        """Whether there is a run of this configuration; without a checkpoint or a row nothing would be lost."""
        file = self.folder / "config.yaml"
        saved = (self.folder / "matrix.json").exists() or self.finished or any(self.checkpoints.glob("*"))
        begun = file.exists() and saved
        if begun:
            self._check_same(file)
        return begun

    def _check_same(self, file: Path) -> None:
        old = {**self._defaults, **read_config(file)}
        differing = [
            f"{key} ({old.get(key)!r} there, {self._config.get(key)!r} now)"
            for key in {**old, **self._config}
            if old.get(key) != self._config.get(key) and key not in self._may_change
        ]
        if differing:
            raise UserError(
                f"{self.folder} holds a run with other options: {', '.join(differing)}; "
                "give another --output, or delete that folder"
            )

    def _not_writable(self, error: OSError) -> UserError:
        return UserError(f"cannot write to {self.folder}: {error.strerror}; give another --output")

    @property
    def predictions(self) -> Path:
        """The folder of the answers, ``<row>/<task>.jsonl``."""
        return self.folder / "predictions"

    @property
    def checkpoints(self) -> Path:
        """The folder of what the run goes on from."""
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The file of every logged number."""
        return self.folder / "metrics.jsonl"

    @property
    def finished(self) -> bool:
        """Whether the run reached its end: provenance is the last file that a run writes."""
        return (self.folder / "provenance.json").exists()

    def read_matrix(self) -> MatrixFile:
        """Read the matrix of a finished run."""
        return MatrixFile.read(self.folder / "matrix.json")

    def clear(self) -> None:
        """Remove what an unfinished run left, all but its configuration."""
        for name in _MADE_BY_A_RUN:
            (self.folder / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write the provenance, which marks the run as finished."""
        write_whole(self.folder / "provenance.json", json.dumps(provenance, indent=2, ensure_ascii=False) + "\n")


def read_config(file: Path) -> dict[str, Any]:
    """Read the configuration of a run.

    Raises:
        UserError: The file cannot be read, or holds no configuration.
    """
    try:
        config = read_yaml(file)
    except UserError as error:
        raise UserError(f"{error}; delete the run directory, or give another") from None
    if not isinstance(config, dict):
        raise UserError(f"{file}: is no configuration; delete the run directory, or give another")
    return config


def wait_until_unlocked(folder: Path, seconds: float) -> None:
    """Wait until no process holds a run directory, or some seconds.

    What a killed process has started, such as data loaders, holds its lock a little longer than itself.
    """
    with suppress(Timeout), FileLock(folder / ".lock", timeout=seconds):
        pass


def _read_holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:  # between the lock and its note
        return "another process"
