"""Checkpoints on disk: numbered JSON files, each beside the safetensors file that it names.

    checkpoints/000007.safetensors    every tensor of the training's state
    checkpoints/000007.json           all else of it, and what has been evaluated so far
    checkpoints/000008.json           later: one more evaluated cell, the training's state being that of 000007

A file appears under its name when it is whole and on the disk. A JSON file makes a checkpoint; it holds checksums of
itself and of its tensors, so that a damaged one is seen and the one before it taken.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from avalanche_cit.errors import UserError
from avalanche_cit.whole_file import whole_file

_SCHEMA_VERSION = 1
_TENSOR = "$tensor"
_KEPT = 2

State = Mapping[str, Any]
"""Mappings, lists, texts, numbers, truth values and None, with tensors anywhere among them."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read.

    Attributes:
        path: The file, for messages.
        training: The state of the training.
        evaluation: The state of metrics and loggers, plain values alone.
    """

    path: Path
    training: dict[str, Any]
    evaluation: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: Made at the first writing.

    Example:
        >>> checkpoints = CheckpointFolder(Path("run/checkpoints"))
        >>> checkpoints.write({"weights": model.trainable_state()}, {"scores": [61.5]})
        >>> checkpoints.read().evaluation
        {'scores': [61.5]}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint, whole or not."""
        return next(iter(self._documents()), None)

    def write(self, training: State, evaluation: State) -> None:
        """Write a checkpoint, and remove all but the last two and the last of the training's state before.

        Raises:
            UserError: The disk is full, or the folder cannot be written; what was saved before is left as it was.
            TypeError: A state holds something that is neither a plain value nor, in `training`, a tensor.
        """
        tensors: dict[str, Tensor] = {}
        plain = _without_tensors(training, tensors, "training")
        name = self._next()
        self._write(f"{name}.safetensors", lambda path: save_file(separate(tensors), path))
        tensor_file = {"file": f"{name}.safetensors", "crc32": _checksum(self.folder / f"{name}.safetensors")}
        self._write_document(name, {"tensors": tensor_file, "training": plain, "evaluation": evaluation})

    def write_evaluation(self, evaluation: State) -> None:
        """Write a checkpoint with the training's state of the newest that is whole, from which a run goes on.

        Raises:
            UserError: No checkpoint is whole, the disk is full, or the folder cannot be written.
        """
        reasons = []
        for path in self._documents():
            try:
                before = _read_document(path)
                _check_tensors(self.folder, before["tensors"])
            except _DamagedError as error:
                reasons.append(f"{path}: {error}")
                continue
            self._write_document(self._next(), {**before, "evaluation": evaluation})
            return
        raise self._none_is_whole(reasons)

    def read(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; None where there is none at all.

        Raises:
            UserError: There are checkpoints, and all of them are damaged.
        """
        reasons = []
        for path in self._documents():
            try:
                document = _read_document(path)
                tensors = _read_tensors(self.folder, document["tensors"])
                checkpoint = Checkpoint(path, _training(document, tensors), document["evaluation"])
            except _DamagedError as error:
                reasons.append(f"{path}: {error}")
                continue
            for reason in reasons:
                print(f"note: a damaged checkpoint is passed over ({reason})")
            return checkpoint
        if reasons:
            raise self._none_is_whole(reasons)
        return None

    def clear(self) -> None:
        """Remove all checkpoints."""
        self._remove([*self.folder.glob("[0-9]*.json"), *self.folder.glob("[0-9]*.safetensors")])

    def _documents(self) -> list[Path]:
        """The checkpoints, whole or not, the newest first."""
        numbered = [path for path in self.folder.glob("*.json") if path.stem.isdecimal()]
        return sorted(numbered, key=lambda path: int(path.stem), reverse=True)

    def _none_is_whole(self, reasons: list[str]) -> UserError:
        return UserError(f"no checkpoint is whole ({'; '.join(reasons)}): delete {self.folder} to begin the run anew")

    def _next(self) -> str:
        newest = self.newest
        return f"{int(newest.stem) + 1 if newest is not None else 1:06d}"

    def _write_document(self, name: str, content: State) -> None:
        document = {"schema_version": _SCHEMA_VERSION, **content}
        document["crc32"] = _crc32(document)
        text = json.dumps(document)
        self._write(f"{name}.json", lambda path: path.write_text(text, encoding="utf-8"))
        named = {path: _tensors_of(path) for path in self._documents()}
        kept = list(named)[:_KEPT]
        kept += [path for path in named if named[path] != named[kept[0]]][:1]
        needed = {path.name for path in kept} | {named[path] for path in kept}
        self._remove([path for path in self.folder.glob("[0-9]*.*") if path.name not in needed])

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove(self.folder.glob(".*.unfinished"))  # of a process that was killed meanwhile
            with whole_file(path) as unfinished:
                write(unfinished)
        except (OSError, SafetensorError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UserError(
                f"cannot write the checkpoint {path} ({reason}); what was saved before is whole: mend that, and go on "
                "from there"
            ) from error

    def _remove(self, paths: Any) -> None:
        for path in paths:
            if not path.is_dir():
                path.unlink(missing_ok=True)


class _DamagedError(Exception):
    """A file is not as it was written."""


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _DamagedError(f"cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(document, dict):
        raise _DamagedError("holds no JSON object")
    checksum = document.pop("crc32", None)
    try:
        agrees = checksum == _crc32(document)
    except RecursionError:
        agrees = False
    if not agrees:
        raise _DamagedError("its checksum does not agree")
    if document.get("schema_version") != _SCHEMA_VERSION:
        raise _DamagedError(f"was written by another version (schema {document.get('schema_version')!r})")
    for part in ("tensors", "training", "evaluation"):
        if not isinstance(document.get(part), dict):
            raise _DamagedError(f"holds no {part}")
    if not isinstance(document["tensors"].get("file"), str):
        raise _DamagedError("names no file of tensors")
    return document


def _read_tensors(folder: Path, named: Mapping[str, Any]) -> dict[str, Tensor]:
    path = _check_tensors(folder, named)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _DamagedError(f"{path.name} cannot be read ({' '.join(str(error).split())})") from None
    return tensors


def _check_tensors(folder: Path, named: Mapping[str, Any]) -> Path:
    """Return the file of tensors that a document names, if it is as it was written."""
    path = folder / Path(named["file"]).name
    try:
        agrees = _checksum(path) == named.get("crc32")
    except (OSError, ValueError) as error:
        raise _DamagedError(f"{path.name} cannot be read ({' '.join(str(error).split())})") from None
    if not agrees:
        raise _DamagedError(f"the checksum of {path.name} does not agree")
    return path


def _training(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    try:
        training: dict[str, Any] = _with_tensors(document["training"], tensors)
    except (KeyError, TypeError, RecursionError) as error:
        raise _DamagedError(f"its tensors are others ({type(error).__name__}: {error})") from None
    return training


def _tensors_of(path: Path) -> str | None:
    try:
        name: str = _read_document(path)["tensors"]["file"]
    except _DamagedError:
        return None
    return name


def _without_tensors(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """Put the tensors of a nested state aside, and leave their names in their places."""
    if isinstance(value, Tensor):
        key = f"{len(tensors):06d} {name}"
        tensors[key] = value.detach()
        return {_TENSOR: key}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key == _TENSOR:
                raise TypeError(f"{name}: a state's keys are texts, and not {key!r}")
        return {key: _without_tensors(part, tensors, f"{name}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(part, tensors, f"{name}.{i}") for i, part in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{name}: a state holds plain values and tensors, and no {type(value).__name__}")


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(part, tensors) for key, part in value.items()}
    return [_with_tensors(part, tensors) for part in value] if isinstance(value, list) else value


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors that share no memory, as safetensors wants them."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        own = tensor.cpu().contiguous()
        storage = own.untyped_storage()
        whole = storage.nbytes() == own.numel() * own.element_size()
        separate[name] = own if whole and storage.data_ptr() not in seen else own.clone()
        seen.add(storage.data_ptr())
    return separate


def _crc32(document: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(document, sort_keys=True).encode()):08x}"


def _checksum(path: Path) -> str:
    checksum = 0
    with path.open("rb") as file:
        while part := file.read(2**20):
            checksum = zlib.crc32(part, checksum)
    return f"{checksum:08x}"
