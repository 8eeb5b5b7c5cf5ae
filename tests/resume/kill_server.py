"""Carries out runs in processes of their own, and does something to them at the n-th thing that they do.

Started by the tests as a program. It imports the package once, and whatever else the first run imports as it goes;
every run is a fork of it. Each line on standard input is one JSON object, and each line on standard output the answer.

A run: ``{"config", "folder", "log", "at", "of", "do", "threads"}``. At the `at`-th event whose name has `of` in it
(null: at none) the run is sent a signal where `do` is a number, and else waits for the shell command `do`. The answer
is ``{"status", "events", "output"}``, with the exit status, negative for a signal. Events and output go through files
beside `log`, which may lie elsewhere than the run. With ``"argv"`` in the place of config and folder, a script is run
as from the command line.

What counts as an event: each forward pass of a model in training mode (in the middle of a step) or not (a teacher, the
importance pass); each answered batch (in the middle of an evaluation); and around every file that is written as a
whole: when it is written, on the disk, and under its own name. A checkpoint's files are also met half written.

A shell command for the server itself, ``{"shell"}``, such as a mount: the server has mounts of its own.
"""

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import torch

from avalanche_cit.errors import Interrupted, UserError
from avalanche_cit.models.lmm import LMM
from avalanche_cit.run_config import RunConfig
from avalanche_cit.runner import run
from avalanche_cit.training import checkpoint_file

torch.set_num_threads(1)


class Events:
    """Notes what a run does, and acts at one of these things."""

    def __init__(self, command: dict[str, Any], log: Path) -> None:
        self.command = command
        self.count = 0
        self.log = log

    def happen(self, name: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{name}\n")
        at, do = self.command["at"], self.command["do"]
        if at is None or self.command["of"] not in name:
            return
        self.count += 1
        if self.count == at:
            if isinstance(do, int):
                os.kill(os.getpid(), do)
            else:
                subprocess.run(do, shell=True, check=False)

    def watch(self, owner: Any, name: str, title: Callable[..., str]) -> None:
        """Note the calls of a function, before and after it does its work."""
        original = getattr(owner, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            called = title(*args, **kwargs)
            self.happen(f"before {called}")
            result = original(*args, **kwargs)
            self.happen(f"after {called}")
            return result

        setattr(owner, name, noted)

    def halve_checkpoints(self) -> None:
        """Write each file of a checkpoint to its half, let something happen, and then write all of it."""
        save_file, write_text = checkpoint_file.save_file, Path.write_text

        def save_in_two(tensors: Any, path: Path) -> None:
            save_file(tensors, path)
            os.truncate(path, path.stat().st_size // 2)
            self.happen(f"half written {path.name}")
            save_file(tensors, path)

        def write_in_two(path: Path, text: str, **options: Any) -> int:
            if path.parent.name == "checkpoints":
                write_text(path, text[: len(text) // 2], **options)
                self.happen(f"half written {path.name}")
            return write_text(path, text, **options)

        checkpoint_file.save_file = save_in_two
        Path.write_text = write_in_two


def carry_out(command: dict[str, Any], log: Path) -> int:
    torch.set_num_threads(command["threads"])
    events = Events(command, log)
    events.watch(LMM, "forward", lambda model, batch: "training forward" if model.training else "other forward")
    events.watch(LMM, "generate", lambda model, batch: "generate")
    events.watch(os, "fsync", lambda descriptor: "fsync")
    events.watch(Path, "replace", lambda path, target: f"replace {target.parent.name}/{target.name}")
    events.halve_checkpoints()
    try:
        if "argv" in command:
            sys.argv = command["argv"]
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            run(RunConfig(**command["config"]), Path(command["folder"]))
    except SystemExit as end:
        return int(end.code or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as interrupt:
        return 128 + interrupt.signal
    return 0


def fork(command: dict[str, Any]) -> dict[str, Any]:
    log, output, modules = (Path(f"{command['log']}.{name}") for name in ("events", "output", "modules"))
    log.write_text("")
    child = os.fork()
    if child == 0:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        status = 70
        try:
            status = carry_out(command, log)
            modules.write_text("\n".join(sys.modules))
            gc.collect()  # what is closed too late says so
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, waited = os.waitpid(child, 0)
    for name in modules.read_text().splitlines() if modules.exists() else ():
        with suppress(Exception):  # some are not to be imported by their names
            importlib.import_module(name)
    modules.unlink(missing_ok=True)
    return {
        "status": os.waitstatus_to_exitcode(waited),
        "events": log.read_text().splitlines(),
        "output": output.read_text(errors="replace"),
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        command = json.loads(line)
        if "shell" in command:
            done = subprocess.run(command["shell"], shell=True, check=False, capture_output=True, text=True)
            answer = {"status": done.returncode, "events": [], "output": done.stdout + done.stderr}
        else:
            answer = fork(command)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
