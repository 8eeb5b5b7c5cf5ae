"""The cache of rows: complete or absent, memory-mapped, and the same when opened again."""

import io
from collections.abc import Iterator
from pathlib import Path

import datasets
import PIL.Image
import pytest

from avalanche_cit.benchmarks import instruction_data as instruction_data_module
from avalanche_cit.benchmarks.instruction_data import FEATURES, ImageBytes, Sample, images_of, instruction_data
from avalanche_cit.errors import UserError


def sample(number: int, image: str = "/images/none.png", choices: list[str] | None = None) -> Sample:
    return Sample(
        id=str(number),
        image=image,
        instruction=f"what is {number}?",
        target="cat",
        references=["cat", "kätzchen"],
        task="vqa",
        choices=choices,
    )


def test_rows_come_back_in_order_and_complete(tmp_path: Path) -> None:
    rows = [sample(number, choices=["cat", "dog"] if number % 2 else None) for number in range(2500)]

    data = instruction_data(lambda: iter(rows), cache_dir=tmp_path, fingerprint="rows")

    assert data.features == FEATURES
    assert data.remove_columns(["image", "more_images"]).to_list() == [
        {name: value for name, value in row.items() if name != "image"} for row in rows
    ]
    assert set(data["more_images"]) == {None}
    assert data.data.column("image")[7].as_py() == {"path": "/images/none.png", "bytes": None}


def test_images_are_decoded_when_they_are_asked_for(tmp_path: Path) -> None:
    image = tmp_path / "red.png"
    PIL.Image.new("RGB", (3, 2), "red").save(image)

    data = instruction_data(lambda: iter([sample(0, str(image))]), cache_dir=tmp_path, fingerprint="image")

    assert data[0]["image"].size == (3, 2)
    assert data[0]["image"].getpixel((0, 0)) == (255, 0, 0)


def test_images_may_come_as_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (3, 2), "red").save(buffer, format="PNG")
    encoded = ImageBytes(bytes=buffer.getvalue(), path="red.png")
    monkeypatch.setattr(instruction_data_module, "_BYTES_PER_BATCH", 3 * len(encoded["bytes"]))
    rows = [{**sample(number), "image": encoded} for number in range(10)] + [sample(10)]

    data = instruction_data(lambda: iter(rows), cache_dir=tmp_path, fingerprint="bytes")

    assert data["id"][:] == [str(number) for number in range(11)]
    assert data[9]["image"].getpixel((0, 0)) == (255, 0, 0)
    assert data.data.column("image").to_pylist() == [encoded] * 10 + [{"bytes": None, "path": "/images/none.png"}]
    assert [len(chunk) for chunk in data.data.column("id").chunks] == [3, 3, 3, 2]  # written before all are in memory


def test_a_sample_may_have_no_image_or_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{colour}.png" for colour in ("red", "blue")]
    for file in files:
        PIL.Image.new("RGB", (3, 2), file.stem).save(file)
    encoded = ImageBytes(bytes=files[0].read_bytes(), path=None)
    monkeypatch.setattr(instruction_data_module, "_BYTES_PER_BATCH", 2 * len(encoded["bytes"]))
    several = {**sample(1, str(files[1])), "more_images": [encoded, str(files[1]), encoded]}
    rows = [{**sample(0), "image": None}, several, {**sample(2, str(files[0])), "more_images": None}]

    data = instruction_data(lambda: iter(rows), cache_dir=tmp_path / "cache", fingerprint="several")

    assert data.features == FEATURES
    assert [[image.getpixel((0, 0)) for image in images_of(row)] for row in data] == [
        [],
        [(0, 0, 255), (255, 0, 0), (0, 0, 255), (255, 0, 0)],
        [(255, 0, 0)],
    ]
    stored = data.data.to_pylist()
    assert (stored[0]["image"], stored[0]["more_images"], stored[2]["more_images"]) == (None, None, None)
    assert stored[1]["more_images"] == [encoded, {"bytes": None, "path": str(files[1])}, encoded]
    assert [len(chunk) for chunk in data.data.column("id").chunks] == [2, 1]  # further images are counted too


def test_data_is_memory_mapped_from_the_one_file_in_a_new_folder(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"

    data = instruction_data(lambda: iter([sample(0)]), cache_dir=cache, fingerprint="mapped")

    assert isinstance(data.data, datasets.table.MemoryMappedTable)
    assert [Path(file["filename"]) for file in data.cache_files] == list(cache.iterdir())


def test_second_call_opens_the_file_and_asks_for_no_rows(tmp_path: Path) -> None:
    def no_rows() -> Iterator[Sample]:
        raise AssertionError("the rows are in the cache")

    first = instruction_data(lambda: iter([sample(0)]), cache_dir=tmp_path, fingerprint="same")
    second = instruction_data(no_rows, cache_dir=tmp_path, fingerprint="same")

    assert second["id"][:] == first["id"][:] == ["0"]


def test_another_fingerprint_is_another_file(tmp_path: Path) -> None:
    instruction_data(lambda: iter([sample(0)]), cache_dir=tmp_path, fingerprint="one")
    other = instruction_data(lambda: iter([sample(1)]), cache_dir=tmp_path, fingerprint="two")

    assert other["id"][:] == ["1"]
    assert len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_call_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Sample]:
        yield from map(sample, range(1500))
        assert not list(tmp_path.glob("*.arrow"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        instruction_data(interrupted, cache_dir=tmp_path, fingerprint="rows")
    assert list(tmp_path.iterdir()) == []

    data = instruction_data(lambda: map(sample, range(3)), cache_dir=tmp_path, fingerprint="rows")
    assert len(data) == 3


def test_two_calls_may_write_the_same_data_at_once(tmp_path: Path) -> None:
    def rows_while_another_writes() -> Iterator[Sample]:
        yield sample(0)
        instruction_data(lambda: iter([sample(0), sample(1)]), cache_dir=tmp_path, fingerprint="rows")
        yield sample(1)

    data = instruction_data(rows_while_another_writes, cache_dir=tmp_path, fingerprint="rows")

    assert data["id"][:] == ["0", "1"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"not arrow" * 100, None], ids=["empty", "garbage", "cut short"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes | None) -> None:
    instruction_data(lambda: map(sample, range(100)), cache_dir=tmp_path, fingerprint="rows")
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:2000] if damage is None else damage)

    with pytest.raises(UserError, match="not a readable Arrow file; delete it") as caught:
        instruction_data(lambda: map(sample, range(100)), cache_dir=tmp_path, fingerprint="rows")
    assert str(file) in str(caught.value)


def test_a_cache_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match="cannot be written"):
        instruction_data(lambda: iter([sample(0)]), cache_dir=tmp_path / "file" / "cache", fingerprint="rows")
