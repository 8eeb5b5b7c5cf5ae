"""One configuration in, one finished run directory out, for every kind of strategy."""

import dataclasses
import json

import pytest

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.models.frozen_prefix import VisionFeatures
from avalanche_cit.runner import RunConfig, run

SMALL = {"train_samples": 24, "validation_samples": 4, "test_samples": 8, "epochs": 1, "batch_size": 8, "threads": 1}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVALANCHE_CIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def seqft(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "seqft-seed0"
    return folder, run(RunConfig(strategy="seqft", **SMALL), folder)


def test_run_directory_is_complete(seqft):
    folder, file = seqft
    for name in ("config.yaml", "provenance.json", "matrix.json", "matrix.csv", "matrix.png", "metrics.jsonl"):
        assert (folder / name).stat().st_size > 0
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert file.rows == ["initial", "flickr30k", "textcaps", "vqav2", "ocrvqa", "gqa"]
    assert all(cell is not None for row in file.scores for cell in row)
    assert file.complete
    for row in file.rows:
        for task in file.tasks:
            lines = (folder / "predictions" / row / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
            assert len(lines) == SMALL["test_samples"]
            assert json.loads(lines[0]).keys() == {"id", "instruction", "prediction", "references", "score"}


def test_matrix_is_made_of_the_stored_answers(seqft):
    folder, file = seqft
    column = file.tasks.index("vqav2")
    for row, cells in zip(file.rows, file.scores, strict=True):
        lines = (folder / "predictions" / row / "vqav2.jsonl").read_text(encoding="utf-8").splitlines()
        scores = [json.loads(line)["score"] for line in lines]
        assert cells[column] == pytest.approx(sum(scores) / len(scores))


def test_provenance_says_what_was_used(seqft):
    folder, _ = seqft
    said = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert said["samples_seen"] == 5 * SMALL["train_samples"]
    assert said["seed"] == 0
    assert said["hardware"]["threads"] == 1
    assert said["packages"]["avalanche-lib"].startswith("0.6")
    assert set(said["data"]) == {"flickr30k", "textcaps", "vqav2", "ocrvqa", "gqa"}
    assert 0 < said["model"]["trainable_parameters"] < said["model"]["parameters"]


def test_metrics_hold_losses_and_scores(seqft):
    folder, _ = seqft
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = {line["name"].split("/")[0] for line in lines}
    assert {"Loss_MB", "Score_Exp", "Score_Stream", "ExperienceForgetting", "StreamForgetting"} <= names
    losses = [line["value"] for line in lines if line["name"].startswith("Loss_MB")]
    assert len(losses) == 5 * 3
    assert all(loss > 0 for loss in losses)


def test_finished_run_is_not_computed_again(seqft):
    folder, file = seqft
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = run(RunConfig(strategy="seqft", **SMALL), folder)
    assert again == file
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_same_seed_gives_the_same_matrix_and_another_does_not(seqft, tmp_path):
    _, file = seqft
    again = run(RunConfig(strategy="seqft", **SMALL), tmp_path / "again", vision_features=VisionFeatures())
    other = run(RunConfig(strategy="seqft", seed=1, **SMALL), tmp_path / "other")
    assert again.scores == file.scores
    assert again.other_scores == file.other_scores
    assert other.scores != file.scores


def test_unfinished_run_starts_again(seqft, tmp_path):
    _, file = seqft
    unfinished = tmp_path / "run"
    config = RunConfig(strategy="seqft", **SMALL)
    run(config, unfinished)
    (unfinished / "provenance.json").unlink()
    stray = unfinished / "predictions" / "initial" / "stray.jsonl"
    stray.write_text("{}", encoding="utf-8")
    assert run(config, unfinished).scores == file.scores
    assert not stray.exists()


def test_other_options_are_refused(seqft):
    folder, _ = seqft
    config = RunConfig(strategy="seqft", **{**SMALL, "epochs": 2})
    with pytest.raises(UserError, match=r"epochs \(1 there, 2 now\).*give another --output"):
        run(config, folder)


def test_directft_fills_the_diagonal(tmp_path, seqft):
    file = run(RunConfig(strategy="directft", **SMALL), tmp_path / "directft")
    assert file.kind == "independent"
    assert file.scores[0] == seqft[1].scores[0]
    for i, row in enumerate(file.scores[1:]):
        assert [cell is not None for cell in row] == [j == i for j in range(5)]
    assert file.scores[1][0] == seqft[1].scores[1][0]  # the first task is tuned alike
    assert {key for key, value in file.summary().items() if value is not None} == {"mft"}


def test_jointft_has_two_rows(tmp_path):
    file = run(RunConfig(strategy="jointft", **SMALL), tmp_path / "jointft")
    assert file.rows == ["initial", "joint"]
    said = json.loads((tmp_path / "jointft" / "provenance.json").read_text(encoding="utf-8"))
    assert said["samples_seen"] == 5 * SMALL["train_samples"]


def test_replay_sees_its_memory(tmp_path):
    config = RunConfig(strategy="replay", memory_fraction=0.1, **SMALL)
    file = run(config, tmp_path / "replay")
    said = json.loads((tmp_path / "replay" / "provenance.json").read_text(encoding="utf-8"))
    assert said["samples_seen"] == 5 * 24 + 4 * 3 * 2  # four tasks of three batches with two of the memory each
    assert MatrixFile.read(tmp_path / "replay" / "matrix.json") == file


def test_task0_has_columns_but_no_rows(tmp_path):
    config = RunConfig(strategy="seqft", benchmark="mini_cit2", model="tiny-instruct", **SMALL)
    file = run(config, tmp_path / "run")
    assert file.task0 == ["okvqa", "aokvqa", "textcaps", "vqav2", "ocrvqa"]
    assert file.tasks == [*file.task0, "flickr30k", "vizwiz", "textvqa", "gqa"]
    assert file.rows == ["initial", "flickr30k", "vizwiz", "textvqa", "gqa"]
    assert all(cell is not None for row in file.scores for cell in row)
    assert file.summary_task0()["average_last"] is not None
    assert not RunConfig(strategy="seqft", benchmark="mini_cit2", model="tiny-base").resolved().task0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "reply"}, "did you mean 'replay'"),
        ({"benchmark": "mini_cit3"}, "did you mean 'mini_cit"),
        ({"model": "tiny-bse"}, "did you mean 'tiny-base'"),
        ({"trainable": "bridges"}, "did you mean 'bridge'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"test_samples": -1}, "test_samples is -1"),
        ({"strategy": "replay", "memory_fraction": 0.0}, "memory fraction is 0"),
        ({"task0": True}, "has no task 0"),
        ({"warmup": 1.5}, "warmup is 1.5"),
    ],
)
def test_wrong_options_are_named(tmp_path, change, message):
    config = dataclasses.replace(RunConfig(strategy="seqft", **SMALL), **change)
    with pytest.raises(UserError, match=message):
        run(config, tmp_path / "run")
