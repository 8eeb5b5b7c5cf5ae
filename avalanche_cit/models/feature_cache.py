"""Features kept on disk: tensors by key, in files that are written whole and mapped into memory.

    vision_features/tower-5d3c.../0f3a....safetensors    keys (n, 32) uint8, and tensors of n rows each

What one folder holds was computed in one and the same way, and a file is named by the checksum of its bytes, which is
compared before the first use in a process. So several processes may fill a folder at once: those that compute the same
write the same file.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from avalanche_cit.benchmarks.catalogue import cache_dir
from avalanche_cit.whole_file import whole_file

GB = 10**9

_STALE_SECONDS = 3600  # since which a file that is being written has been left behind by a process that was killed

Place = tuple[int, int]
"""Where the features of a key are: the number of a file, and the row in it."""


class VisionFeatures:
    """Where the features of frozen parts are kept from run to run, and how much room they may take.

    Args:
        folder: Shared by all models; None for ``vision_features`` in the package's cache folder.
        max_bytes: Once the folder holds as much, nothing more is added to it.

    Example:
        >>> model = LMM.from_pretrained("tiny-base", vision_features=VisionFeatures())
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = 20 * GB) -> None:
        self.folder = cache_dir() / "vision_features" if folder is None else folder
        self.max_bytes = max_bytes
        self._open: dict[str, FeatureFolder] = {}

    @property
    def used(self) -> int:
        """Bytes on disk, of all models together."""
        total = 0
        for file in self.folder.glob("*/*"):
            with suppress(FileNotFoundError):  # another process may have finished writing it, or found it damaged
                total += file.stat().st_size
        return total

    def open(self, name: str) -> FeatureFolder:
        """Open the features that were computed in one way, which the name stands for."""
        if name not in self._open:
            self._open[name] = FeatureFolder(self.folder / name)
        return self._open[name]


class FeatureFolder:
    """Tensors by key, in the files of one folder.

    Args:
        folder: Made at the first writing.

    Example:
        >>> features = FeatureFolder(Path("cache/tower"))
        >>> places = features.put([hashlib.sha256(b"cat.png").digest()], {"features": torch.zeros(1, 65, 128)})
        >>> features.read("features", places).shape
        torch.Size([1, 65, 128])
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[Path] = []
        self._seen: set[Path] = set()
        self._places: dict[bytes, Place] = {}
        self._tensors: dict[int, dict[str, Tensor]] = {}
        for unfinished in folder.glob(".*.unfinished"):
            with suppress(OSError):
                if time.time() - unfinished.stat().st_mtime > _STALE_SECONDS:
                    unfinished.unlink()

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Place]:
        """Return where the features of keys are, those that other processes have written meanwhile included.

        A damaged file is passed over and removed, so that its features are computed anew.
        """
        for path in sorted(set(self.folder.glob("*.safetensors")) - self._seen):
            self._enter(path)
        found = {}
        for key in keys:
            place = self._places.get(key)
            if place is not None and self._is_whole(place[0]):
                found[key] = place
        return found

    def read(self, name: str, places: Sequence[Place]) -> Tensor:
        """Return one of the tensors, (B, ...), for places that `find` or `put` gave."""
        return torch.stack([self._tensors[file][name][row] for file, row in places])

    def put(self, keys: Sequence[bytes], tensors: Mapping[str, Tensor]) -> list[Place]:
        """Write the tensors, each (n, ...), of n keys to a new file, and return where they are now.

        Raises:
            OSError: The file cannot be written.
        """
        content = save(
            {
                "keys": torch.tensor([list(key) for key in keys], dtype=torch.uint8),
                **{name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
            }
        )
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.write_bytes(content)
        number = self._enter(path)
        self._tensors[number] = load_file(path)
        return [(number, row) for row in range(len(keys))]

    def _enter(self, path: Path) -> int:
        """Take a file's keys into the index, and return its number."""
        number = len(self._files)
        self._files.append(path)
        self._seen.add(path)
        try:
            with safe_open(path, "pt") as file:
                rows = file.get_tensor("keys").numpy()
        except (OSError, SafetensorError) as error:
            self._pass_over(path, str(error))
        else:
            for row, key in enumerate(rows):
                self._places.setdefault(key.tobytes(), (number, row))
        return number

    def _is_whole(self, number: int) -> bool:
        """Map a file into memory, if its bytes are those that were written."""
        if number in self._tensors:
            return True
        path = self._files[number]
        try:
            with path.open("rb") as file:
                agrees = hashlib.file_digest(file, "sha256").hexdigest() == path.stem
            if agrees:
                self._tensors[number] = load_file(path)
                return True
            reason = "its checksum does not agree"
        except (OSError, SafetensorError) as error:
            reason = str(error)
        self._places = {key: place for key, place in self._places.items() if place[0] != number}
        self._pass_over(path, reason)
        return False

    def _pass_over(self, path: Path, reason: str) -> None:
        print(f"note: damaged features are passed over and computed anew ({path}: {' '.join(reason.split())})")
        with suppress(OSError):
            path.unlink()
            self._seen.discard(path)  # another process may write it again
