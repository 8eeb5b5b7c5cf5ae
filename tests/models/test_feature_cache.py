"""What is written comes back bit for bit, whoever else writes, is killed or damages files meanwhile."""

import hashlib
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from avalanche_cit.models import VisionFeatures
from avalanche_cit.models.feature_cache import FeatureFolder

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def drawn(number: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(number)).to(dtype)


def put(folder: FeatureFolder, numbers: list[int], dtype: torch.dtype = torch.float32) -> None:
    folder.put([key(number) for number in numbers], {"features": torch.stack([drawn(n, dtype) for n in numbers])})


def found(folder: FeatureFolder, numbers: list[int]) -> dict[int, torch.Tensor]:
    places = folder.find([key(number) for number in numbers])
    return {n: folder.read("features", [places[key(n)]])[0] for n in numbers if key(n) in places}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_written_comes_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = FeatureFolder(tmp_path / "tower")
    values = torch.stack([drawn(0, dtype), drawn(1, dtype)])
    values[0, 0] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-6], dtype=dtype)
    written = folder.put([key(0), key(1)], {"output": values, "class_token": values[:, 0]})

    again = FeatureFolder(tmp_path / "tower")  # as in another process
    places = again.find([key(1), key(0), key(2)])

    assert set(places) == {key(0), key(1)}
    for reader, where in ((folder, written), (again, [places[key(0)], places[key(1)]])):
        for name, expected in (("output", values), ("class_token", values[:, 0])):
            read = reader.read(name, where)
            assert read.dtype == dtype
            assert torch.equal(read.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8))
    assert torch.equal(again.read("output", [places[key(1)]])[0], values[1])


def test_what_others_write_is_found_later(tmp_path: Path) -> None:
    one, other = FeatureFolder(tmp_path), FeatureFolder(tmp_path)
    assert found(one, [1, 2]) == {}
    put(other, [1])
    assert list(found(one, [1, 2])) == [1]
    put(other, [2])
    assert list(found(one, [1, 2])) == [1, 2]


def test_the_same_is_written_once(tmp_path: Path) -> None:
    for _ in range(2):
        put(FeatureFolder(tmp_path), [1, 2])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_files_are_mapped_and_not_read(tmp_path: Path) -> None:
    features = torch.zeros(64, 256, 1024)  # 64 MB
    FeatureFolder(tmp_path).put([key(n) for n in range(64)], {"features": features})
    folder = FeatureFolder(tmp_path)
    places = folder.find([key(5)])

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    assert folder.read("features", [places[key(5)]]).shape == (1, 256, 1024)

    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    assert resident() - before < 16 * 2**20


DAMAGES = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-1],
    "cut off in the header": lambda content: content[:20],
    "longer": lambda content: content + b"\0",
    "another file": lambda content: b"no features at all",
    **{
        f"a bit at {place}": lambda content, place=place: (
            content[: int(place * len(content))]
            + bytes([content[int(place * len(content))] ^ 4])
            + content[int(place * len(content)) + 1 :]
        )
        for place in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999)
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_passed_over_and_written_anew(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(FeatureFolder(tmp_path), [1, 2])
    (file,) = tmp_path.iterdir()
    put(FeatureFolder(tmp_path), [3])
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    folder = FeatureFolder(tmp_path)

    assert list(found(folder, [1, 2, 3])) == [3]

    said = capsys.readouterr().out
    assert said.count("note: damaged features are passed over and computed anew") == 1
    assert str(file) in said
    assert not file.exists()
    put(folder, [1, 2])
    for reader in (folder, FeatureFolder(tmp_path)):
        assert {n: value.tolist() for n, value in found(reader, [1, 2, 3]).items()} == {
            n: drawn(n).tolist() for n in (1, 2, 3)
        }


def test_features_that_are_in_use_outlive_their_file(tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path)
    put(folder, [1])
    for file in tmp_path.iterdir():
        file.unlink()
    assert torch.equal(found(folder, [1])[1], drawn(1))


def test_a_file_that_vanishes_before_its_first_use(tmp_path: Path) -> None:
    put(FeatureFolder(tmp_path), [1])
    folder = FeatureFolder(tmp_path)
    assert found(folder, [2]) == {}  # the file is in the index now
    for file in tmp_path.iterdir():
        file.unlink()
    assert found(folder, [1]) == {}


def _fill(path: Path, first: int) -> None:
    folder = FeatureFolder(path)
    for start in range(first, first + 20, 2):
        numbers = [n for n in range(start, start + 4) if n not in found(folder, [n])]
        if numbers:
            put(folder, numbers)


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    """Each twenty numbers, half of which the next one writes too."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_fill, args=(tmp_path, first)) for first in (0, 0, 10, 20)]
    for writer in writers:
        writer.start()
    reader = FeatureFolder(tmp_path)
    while any(writer.is_alive() for writer in writers):
        for number, value in found(reader, list(range(42))).items():
            assert torch.equal(value, drawn(number))
    for writer in writers:
        writer.join()

    assert [writer.exitcode for writer in writers] == [0] * 4
    values = found(FeatureFolder(tmp_path), list(range(42)))
    assert list(values) == list(range(42))
    assert all(torch.equal(value, drawn(number)) for number, value in values.items())
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors"}


def _killed_half_way(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def _write_and_be_killed(folder: Path) -> None:
    Path.write_bytes = _killed_half_way
    put(FeatureFolder(folder), [2])


def test_a_process_that_is_killed_while_it_writes(tmp_path: Path) -> None:
    """What it leaves behind is never taken for features, and removed when no process can be writing it any more."""
    put(FeatureFolder(tmp_path), [1])
    writer = multiprocessing.get_context("fork").Process(target=_write_and_be_killed, args=(tmp_path,))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    (left,) = tmp_path.glob(".*.unfinished")
    assert left.stat().st_size > 0

    folder = FeatureFolder(tmp_path)
    assert list(found(folder, [1, 2])) == [1]
    assert left.exists()
    os.utime(left, (time.time() - 4000,) * 2)
    FeatureFolder(tmp_path)
    assert not left.exists()


def test_the_room_taken_is_that_of_all_models(tmp_path: Path) -> None:
    features = VisionFeatures(tmp_path)
    assert features.used == 0
    put(features.open("tower-a"), [1])
    put(features.open("qformer-b"), [1, 2])

    assert features.used == sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert features.used > 3 * 12 * 4
    assert features.open("tower-a") is features.open("tower-a")


def test_features_are_in_the_packages_cache_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVALANCHE_CIT_CACHE", str(tmp_path))
    assert VisionFeatures().folder == tmp_path / "vision_features"
    assert VisionFeatures().max_bytes == 20_000_000_000
