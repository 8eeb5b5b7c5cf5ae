"""Runs that are killed, at any moment, and resumed are the uninterrupted run, bit for bit."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KILLED = -9
ALL = ("seqft", "replay", "similarity_replay", "lwf", "agem", "ewc_tir", "mas_tir", "eproj", "jointft", "directft")
FROM_TASK0 = ("replay", "ewc_tir", "eproj", "lwf", "agem")
MOMENTS = {"a step": "training forward", "an evaluation": "generate", "a checkpoint's write": "checkpoints/0"}
LONGER = {"train_samples": 24, "test_samples": 6, "eval_batch_size": 4}


@pytest.fixture(scope="module")
def killed_in() -> list[str]:
    """Every event that a run was killed at."""
    return []


Differences = Callable[[Path, Path], list[str]]


@pytest.mark.parametrize("strategy", ["replay", "ewc_tir", "eproj"])
def test_killed_in_a_step_an_evaluation_and_a_write(
    server: Any,
    whole: Any,
    small: dict[str, Any],
    differences: Differences,
    tmp_path: Path,
    strategy: str,
) -> None:
    config = {**small, "strategy": strategy, "checkpoint_steps": 1}  # so that it goes on in the middle of an epoch too
    draws = random.Random(strategy)
    folder = tmp_path / "killed"
    for of in draws.sample(list(MOMENTS.values()), k=len(MOMENTS)):
        broken_off = server.run(config, folder, at=draws.randint(1, 4), of=of)
        assert broken_off.status == KILLED, broken_off.output
        assert of in broken_off.last
    resumed = server.run(config, folder).ended()

    assert "resuming from step " in resumed.output
    assert differences(whole({**config, "checkpoint_steps": 2})[0], folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "strategy"),
    [*(("mini_cit1", strategy) for strategy in ALL), *(("mini_cit2", strategy) for strategy in FROM_TASK0)],
)
def test_killed_at_ten_random_points(
    server: Any,
    whole: Any,
    small: dict[str, Any],
    differences: Differences,
    tmp_path: Path,
    benchmark: str,
    strategy: str,
    killed_in: list[str],
) -> None:
    config = {**small, **LONGER, "benchmark": benchmark, "strategy": strategy}
    if benchmark == "mini_cit2":
        config |= {"model": "tiny-instruct", "task0": True}
    expected, events = whole(config)
    draws = random.Random(f"{benchmark} {strategy}")
    folder = tmp_path / "killed"
    kills = []
    while len(kills) < 10:
        broken_off = server.run(config, folder, at=draws.randint(1, len(events) // 8))
        if broken_off.status == 0:  # it came to its end: the rest of the ten in another run
            assert differences(expected, folder) == [], f"killed at {kills}"
            folder = tmp_path / f"killed after {len(kills)}"
            continue
        assert broken_off.status == KILLED, broken_off.output
        kills.append(broken_off.last)
    killed_in += kills
    server.run(config, folder).ended()

    assert differences(expected, folder) == [], f"killed at {kills}"


@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_killed_in_the_middle_of_writing_a_checkpoint(
    server: Any, whole: Any, small: dict[str, Any], differences: Differences, tmp_path: Path, kind: str
) -> None:
    config = {**small, "strategy": "replay"}
    folder = tmp_path / "killed"
    for at in (3, 1):  # the second time the first write after resuming, with the remains of the first kill about
        broken_off = server.run(config, folder, at=at, of=f".{kind}.")
        assert broken_off.status == KILLED, broken_off.output
        (half,) = folder.glob(f"checkpoints/.*.{kind}.*.unfinished")
        assert broken_off.last == f"half written {half.name}"
        assert half.stat().st_size > 0
        assert not half.with_name(half.name.split(".")[1] + f".{kind}").exists()
    server.run(config, folder).ended()

    assert differences(whole(config)[0], folder) == []


@pytest.mark.parametrize("strategy", ["replay", "eproj"])
def test_killed_while_vision_features_are_computed(
    server: Any, small: dict[str, Any], cache: Path, differences: Differences, tmp_path: Path, strategy: str
) -> None:
    """Whichever features it kept, found, or had no room for, the run is the one that nothing interrupts."""
    kept = cache / "vision_features"
    config = {**small, "strategy": strategy, "seed": 9}
    folder, whole, again = tmp_path / "killed", tmp_path / "whole", tmp_path / "again"
    shutil.rmtree(kept, ignore_errors=True)
    prefix = "qformer-" if strategy == "eproj" else "tower-"
    assert server.run(config, folder, at=3, of=f"replace {prefix}").status == KILLED  # before the second file
    assert server.run({**config, "cache_gb": 1e-9}, folder, at=9, of="training forward").status == KILLED
    assert len(list(kept.rglob("[!.]*.safetensors"))) == 1
    resumed = server.run(config, folder).ended()

    assert "resuming from step " in resumed.output
    assert "are computed and kept" in resumed.output
    shutil.rmtree(kept)
    assert "are computed and kept" in server.run(config, whole).ended().output
    assert "are computed and kept" not in server.run(config, again).ended().output
    assert differences(whole, folder) == []
    assert differences(whole, again) == []


@pytest.mark.parametrize("of", ["before replace killed/.lock.holder", "before replace checkpoints/final.safetensors"])
def test_killed_at_the_very_beginning_and_end(
    server: Any, whole: Any, small: dict[str, Any], differences: Differences, tmp_path: Path, of: str
) -> None:
    config, folder = {**small, "strategy": "replay"}, tmp_path / "killed"
    assert server.run(config, folder, at=1, of=of).status == KILLED
    assert len([path for path in folder.rglob("*") if path.name.endswith(".unfinished")]) == 1
    server.run(config, folder).ended()

    assert differences(whole(config)[0], folder) == []


@pytest.mark.slow
def test_the_random_kills_hit_every_moment(killed_in: list[str]) -> None:
    """To be run with all of the tests above."""
    for what, name in MOMENTS.items():
        assert any(name in event for event in killed_in), f"no run was killed in the middle of {what}"
