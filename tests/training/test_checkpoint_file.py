"""What was written is read back bit for bit, or is seen not to be what was written."""

import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from avalanche_cit.errors import UserError
from avalanche_cit.training.checkpoint_file import Checkpoint, CheckpointFolder

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


def written(checkpoints: CheckpointFolder, training: Any, evaluation: Any = None) -> Checkpoint:
    checkpoints.write(training, evaluation or {})
    checkpoint = CheckpointFolder(checkpoints.folder).read()
    assert checkpoint is not None
    return checkpoint


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, tensors in their types, shapes and bits; tuples come back as lists."""
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor)
            and (one.dtype, one.shape) == (other.dtype, other.shape)
            and _bits(one) == _bits(other)
        )
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)  # NaN is NaN, and 0.0 not -0.0


def _bits(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())


BASE = torch.arange(12.0).reshape(3, 4)
STATES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "empty ones": {"mapping": {}, "list": [], "text": "", "tensor": torch.empty(0), "no rows": torch.empty(0, 3)},
    "plain values": {"a": [1, -1.5, True, False, None, "ä\n\u2028'\"", 2**70, 0.1 + 0.2, 5e-324, -0.0]},
    "numbers that are none": {"a": [float("nan"), float("inf"), -float("inf")], "b": torch.tensor([float("nan")])},
    "one number": {"a": torch.tensor(3.5), "b": torch.tensor(True), "c": torch.tensor(7)},
    "every type": {str(dtype): torch.tensor([[0, 1], [2, 3]]).to(dtype) for dtype in DTYPES},
    "one tensor twice": {"a": BASE, "b": [BASE, {"c": BASE}]},
    "views of one tensor": {"row": BASE[1], "column": BASE[:, 2], "all": BASE, "flat": BASE.view(-1), "end": BASE[2:]},
    "out of order": {"turned": BASE.T, "every second": BASE[:, ::2], "one for many": torch.ones(1).expand(4, 2)},
    "halves of one memory": {"a": BASE[:1], "b": BASE[1:]},
    "weights": {"a": torch.nn.Parameter(BASE.clone()), "b": (BASE.clone().requires_grad_() * 2)},
    "lists in lists": {"a": [[BASE, [1]], (2, {"b": [BASE + 1, None]})]},
    "names": {"a.b": BASE, "a": {"b": BASE + 1}, "$": 1, " ": BASE + 2, "file/../x": BASE, "ä": 3},
}


@pytest.mark.parametrize("state", STATES)
def test_round_trip(checkpoints: CheckpointFolder, state: str) -> None:
    checkpoint = written(checkpoints, STATES[state])

    assert same(STATES[state], checkpoint.training)
    assert checkpoint.path == checkpoints.folder / "000001.json"


def test_round_trip_of_an_evaluation(checkpoints: CheckpointFolder) -> None:
    evaluation = STATES["plain values"] | STATES["numbers that are none"]
    evaluation.pop("b")

    assert same(evaluation, written(checkpoints, {}, evaluation).evaluation)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    return torch.arange(torch.Size(shape).numel()).reshape(shape).to(draw(st.sampled_from(DTYPES)))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
KEYS = st.text(max_size=4).filter(lambda key: key != "$tensor")
NESTED = st.recursive(
    PLAIN | tensors(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


@given(state=st.dictionaries(KEYS, NESTED, max_size=3))
def test_round_trip_of_any_state(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    checkpoints = CheckpointFolder(tmp_path_factory.mktemp("checkpoints"))

    assert same(state, written(checkpoints, state).training)


def test_a_checkpoint_holds_copies(checkpoints: CheckpointFolder) -> None:
    weight = torch.zeros(2)
    checkpoint = written(checkpoints, {"weight": weight})

    weight += 1

    assert checkpoint.training["weight"].tolist() == [0, 0]


def test_a_view_takes_no_more_room_than_it_shows(checkpoints: CheckpointFolder) -> None:
    checkpoints.write({"row": torch.zeros(1000, 1000)[0], "all": torch.zeros(1).expand(10)}, {})

    assert (checkpoints.folder / "000001.safetensors").stat().st_size < 5000


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"a": {"b": [1, object()]}}, r"training\.a\.b\.1: a state holds plain values and tensors, and no object"),
        ({"a": {1: 2}}, r"training\.a: a state's keys are texts, and not 1"),
        ({"$tensor": 1}, r"training: a state's keys are texts, and not '\$tensor'"),
        ({"a": [{1, 2}]}, r"training\.a\.0: a state holds plain values and tensors, and no set"),
        ({"a": b"bytes"}, r"training\.a: .* no bytes"),
    ],
)
def test_what_cannot_be_saved_is_named_by_its_place(
    checkpoints: CheckpointFolder, training: dict[Any, Any], message: str
) -> None:
    checkpoints.write({"good": 1}, {})
    before = files_of(checkpoints.folder)

    with pytest.raises(TypeError, match=message):
        checkpoints.write(training, {})

    assert files_of(checkpoints.folder) == before


@pytest.mark.parametrize("value", [torch.zeros(1), {1, 2}, object()])
def test_an_evaluation_holds_plain_values_alone(checkpoints: CheckpointFolder, value: Any) -> None:
    checkpoints.write({"good": 1}, {})

    with pytest.raises(TypeError, match=type(value).__name__):
        checkpoints.write({}, {"metric": value})
    with pytest.raises(TypeError, match=type(value).__name__):
        checkpoints.write_evaluation({"metric": value})

    assert same({"good": 1}, _read(checkpoints).training)


def test_the_last_two_are_kept(checkpoints: CheckpointFolder) -> None:
    for number in range(5):
        checkpoints.write({"number": number}, {})

    assert sorted(files_of(checkpoints.folder)) == [
        f"00000{number}.{kind}" for number in (4, 5) for kind in ("json", "safetensors")
    ]
    assert checkpoints.newest == checkpoints.folder / "000005.json"


def test_numbers_go_on_above_a_million(checkpoints: CheckpointFolder) -> None:
    checkpoints.write({"number": 1}, {})
    for kind in ("json", "safetensors"):
        (checkpoints.folder / f"000001.{kind}").rename(checkpoints.folder / f"999998.{kind}")

    for number in range(2, 5):
        checkpoints.write({"number": number}, {})

    assert checkpoints.newest == checkpoints.folder / "1000001.json"
    assert _read(checkpoints).training == {"number": 4}
    assert len(files_of(checkpoints.folder)) == 4


def test_files_of_others_are_none_of_its_business(checkpoints: CheckpointFolder) -> None:
    checkpoints.folder.mkdir()
    for name in ("config.json", "1.of.2.json", "2x.json"):
        (checkpoints.folder / name).write_text("{}", encoding="utf-8")

    assert checkpoints.read() is None
    checkpoints.write({"step": 1}, {})

    assert checkpoints.newest == checkpoints.folder / "000001.json"
    assert _read(checkpoints).training == {"step": 1}


def test_an_evaluation_is_added_to_the_training_before_it(checkpoints: CheckpointFolder) -> None:
    checkpoints.write({"weight": torch.ones(3), "step": 4}, {"cells": []})
    tensors_file = (checkpoints.folder / "000001.safetensors").stat()

    for cells in range(1, 5):
        checkpoints.write_evaluation({"cells": [0] * cells})

    assert sorted(files_of(checkpoints.folder)) == ["000001.safetensors", "000004.json", "000005.json"]
    now = (checkpoints.folder / "000001.safetensors").stat()
    assert (now.st_ino, now.st_mtime_ns) == (tensors_file.st_ino, tensors_file.st_mtime_ns)
    checkpoint = _read(checkpoints)
    assert checkpoint.evaluation == {"cells": [0] * 4}
    assert same({"weight": torch.ones(3), "step": 4}, checkpoint.training)


def test_what_a_killed_process_left_unfinished_is_removed(checkpoints: CheckpointFolder) -> None:
    checkpoints.write({}, {})
    stale = checkpoints.folder / ".000002.safetensors.4711.unfinished"
    stale.write_bytes(b"half")
    (checkpoints.folder / "000002.safetensors").write_bytes(b"whole, but the document was never written")
    (checkpoints.folder / "final.safetensors").write_bytes(b"another's")

    checkpoints.write({"step": 2}, {})
    checkpoints.write({"step": 3}, {})

    names = sorted(files_of(checkpoints.folder))
    assert names == ["000002.json", "000002.safetensors", "000003.json", "000003.safetensors", "final.safetensors"]
    assert _read(checkpoints).training == {"step": 3}


def test_clearing_removes_checkpoints_alone(checkpoints: CheckpointFolder) -> None:
    checkpoints.write({"weight": torch.ones(3)}, {})
    checkpoints.write_evaluation({})
    (checkpoints.folder / "final.safetensors").write_bytes(b"another's")

    checkpoints.clear()

    assert list(files_of(checkpoints.folder)) == ["final.safetensors"]
    assert checkpoints.read() is None


def test_there_is_nothing_to_read_where_nothing_was_written(checkpoints: CheckpointFolder) -> None:
    assert checkpoints.newest is None
    assert checkpoints.read() is None
    assert not checkpoints.folder.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")

    with pytest.raises(UserError, match=r"cannot write the checkpoint .*taken/000001\.safetensors \(File exists\)"):
        CheckpointFolder(tmp_path / "taken").write({}, {})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> CheckpointFolder:
    """A folder of two small checkpoints, to be left as it is."""
    checkpoints = CheckpointFolder(tmp_path_factory.mktemp("two"))
    checkpoints.write({"step": 1, "weight": torch.zeros(2)}, {"cells": [1]})
    checkpoints.write({"step": 2, "weight": torch.ones(2)}, {"cells": [1, 2]})
    return checkpoints


@pytest.fixture
def copied(two: CheckpointFolder, tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(Path(shutil.copytree(two.folder, tmp_path / "copied")))


@pytest.mark.parametrize("name", ["000002.json", "000002.safetensors"])
def test_every_flipped_bit_is_noticed(copied: CheckpointFolder, name: str) -> None:
    file = copied.folder / name
    content = file.read_bytes()

    for place in range(len(content)):
        for bit in range(8):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            assert _read(copied).path.name == "000001.json", (place, bit)

    file.write_bytes(content)
    assert _read(copied).path.name == "000002.json"


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"0")


def _make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES = [_truncate, _empty, _lengthen, _make_folder]


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
@pytest.mark.parametrize("name", ["000002.json", "000002.safetensors"])
def test_the_checkpoint_before_a_damaged_one_is_taken(
    copied: CheckpointFolder, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], name: str
) -> None:
    damage(copied.folder / name)

    checkpoint = _read(copied)

    assert checkpoint.path.name == "000001.json"
    assert same({"step": 1, "weight": torch.zeros(2)}, checkpoint.training)
    assert checkpoint.evaluation == {"cells": [1]}
    said = capsys.readouterr().out
    if not (damage is Path.unlink and name.endswith(".json")):  # then nothing tells that it ever was
        assert said.startswith(f"note: a damaged checkpoint is passed over ({copied.folder / '000002.json'}: ")
        assert said.count("\n") == 1


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_where_all_are_damaged_nothing_is_changed(
    copied: CheckpointFolder, damage: Callable[[Path], None], kind: str
) -> None:
    for number in (1, 2):
        damage(copied.folder / f"00000{number}.{kind}")
    before = files_of(copied.folder)

    with pytest.raises(UserError, match=r"no checkpoint is whole \(.*000002\.json: .*000001\.json: .* to begin"):
        copied.read()

    assert files_of(copied.folder) == before


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
@pytest.mark.parametrize("name", ["000002.json", "000002.safetensors"])
def test_a_run_that_took_the_one_before_saves_again(
    copied: CheckpointFolder, damage: Callable[[Path], None], name: str
) -> None:
    damage(copied.folder / name)
    state = _read(copied).training

    for _ in range(2):
        copied.write({**state, "step": 3}, {})
        copied.write_evaluation({"cells": [3]})

    checkpoint = _read(copied)
    assert (checkpoint.training["step"], checkpoint.evaluation) == (3, {"cells": [3]})


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
@pytest.mark.parametrize("name", ["000002.json", "000002.safetensors"])
def test_an_evaluation_is_added_to_the_training_that_was_gone_on_from(
    copied: CheckpointFolder, damage: Callable[[Path], None], name: str
) -> None:
    damage(copied.folder / name)

    copied.write_evaluation({"cells": [3]})

    checkpoint = _read(copied)
    assert (checkpoint.training["step"], checkpoint.evaluation) == (1, {"cells": [3]})


def test_an_evaluation_is_added_to_no_damaged_training(copied: CheckpointFolder) -> None:
    for number in (1, 2):
        _truncate(copied.folder / f"00000{number}.safetensors")
    before = files_of(copied.folder)

    with pytest.raises(UserError, match="no checkpoint is whole"):
        copied.write_evaluation({"cells": [3]})

    assert files_of(copied.folder) == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"training": [1]}, "holds no training"),
        ({"evaluation": None}, "holds no evaluation"),
        ({"tensors": "000002.safetensors"}, "holds no tensors"),
        ({"tensors": {"crc32": ""}}, "names no file of tensors"),
        ({"tensors": {"file": "000002.safetensors"}}, "the checksum of 000002.safetensors does not agree"),
        ({"tensors": {"file": "/", "crc32": ""}}, "cannot be read"),
        ({"tensors": {"file": "a\0b", "crc32": ""}}, "cannot be read"),
        ({"training": {"weight": {"$tensor": "other"}}}, "its tensors are others .*other"),
        ({"training": {"weight": {"$tensor": []}}}, "its tensors are others"),
    ],
)
def test_a_right_checksum_of_wrong_content_does_not_deceive(
    copied: CheckpointFolder, capsys: pytest.CaptureFixture[str], wrong: dict[str, Any], message: str
) -> None:
    file = copied.folder / "000002.json"
    document = json.loads(file.read_bytes()) | wrong
    del document["crc32"]
    document["crc32"] = f"{zlib.crc32(json.dumps(document, sort_keys=True).encode()):08x}"
    file.write_text(json.dumps(document), encoding="utf-8")

    assert _read(copied).path.name == "000001.json"
    assert re.search(message, capsys.readouterr().out)


def test_a_checkpoint_of_another_version_is_named(copied: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "avalanche_cit.training.checkpoint_file._SCHEMA_VERSION"
    monkeypatch.setattr(module, 2)

    with pytest.raises(UserError, match=r"was written by another version \(schema 1\)"):
        copied.read()


def test_files_are_json_and_safetensors(two: CheckpointFolder) -> None:
    document = json.loads((two.folder / "000002.json").read_text(encoding="utf-8"))

    assert document["schema_version"] == 1
    assert document["tensors"]["file"] == "000002.safetensors"
    assert [tensor.tolist() for tensor in load_file(two.folder / "000002.safetensors").values()] == [[1, 1]]


def files_of(folder: Path) -> dict[str, bytes | None]:
    def files() -> Iterator[tuple[str, bytes | None]]:
        for path in folder.iterdir():
            yield path.name, path.read_bytes() if path.is_file() else None

    return dict(files())


def _read(checkpoints: CheckpointFolder) -> Checkpoint:
    checkpoint = checkpoints.read()
    assert checkpoint is not None
    return checkpoint
