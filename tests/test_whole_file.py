"""A file is written as a whole, or is as it was before."""

import os
from pathlib import Path

import pytest

from avalanche_cit.whole_file import whole_file, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_there_at_the_end_is_the_file(tmp_path: Path) -> None:
    file = tmp_path / "matrix.json"

    write_whole(file, "first: ä")
    write_whole(file, "second: ö")

    assert file.read_bytes() == "second: ö".encode()
    assert names(tmp_path) == ["matrix.json"]


def test_until_the_end_the_old_file_is_there(tmp_path: Path) -> None:
    file = tmp_path / "matrix.json"
    write_whole(file, "old")

    with whole_file(file) as unfinished:
        unfinished.write_text("new", encoding="utf-8")
        assert file.read_text(encoding="utf-8") == "old"
        assert unfinished.parent == tmp_path  # of one disk with it, so that it can be renamed
        assert unfinished.name.startswith(".")

    assert file.read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "matrix.json"
    write_whole(file, "old")

    def write_half() -> None:
        with whole_file(file) as unfinished:
            unfinished.write_text("ne", encoding="utf-8")
            raise error

    with pytest.raises(error):
        write_half()

    assert file.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["matrix.json"]


def test_writing_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "matrix.json"):
        pass

    assert names(tmp_path) == []


def test_a_folder_in_its_place_is_left(tmp_path: Path) -> None:
    (tmp_path / "matrix.json").mkdir()

    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        write_whole(tmp_path / "matrix.json", "text")

    assert names(tmp_path) == ["matrix.json"]


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that loses power between the two must not leave an empty file under the name."""
    happened = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        happened.append("folder" if os.path.isdir(f"/dev/fd/{descriptor}/.") else "content")
        sync(descriptor)

    def replaced(path: Path, target: Path) -> Path:
        happened.append("name")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)

    write_whole(tmp_path / "matrix.json", "text")

    assert happened == ["content", "name", "folder"]
