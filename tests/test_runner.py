"""One configuration in, one finished run directory out, for every kind of strategy."""

import dataclasses
import json
import os
from importlib import resources

import datasets
import pytest
import yaml
from PIL import Image

from avalanche_cit.benchmarks.catalogue import benchmark_tasks
from avalanche_cit.benchmarks.instruction_data import FEATURES
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.evaluation.verify import verify_run
from avalanche_cit.logging.report import write_report
from avalanche_cit.logging.run_directory import RunDirectory
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.run_config import STRATEGIES, RunConfig, defaults
from avalanche_cit.runner import _keep_pictures, run

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
            assert json.loads(lines[0]).keys() == {"id", "instruction", "prediction", "references", "score", "digest"}


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
        ({"memory_fraction": 0.0}, "memory_fraction is 0"),
        ({"memory_fraction": 1.1}, "memory_fraction is 1.1: it must be between 0 and 1"),
        ({"lambda_": -3.0}, "lambda_ is -3.0: it must be at least 0"),
        ({"stream": "valid"}, "did you mean 'validation'"),
        ({"task0": True}, "has no task 0"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"on_bad_sample": "skipp"}, "did you mean 'skip'"),
    ],
)
def test_wrong_options_are_named(tmp_path, change, message):
    config = dataclasses.replace(RunConfig(strategy="seqft", **SMALL), **change)
    with pytest.raises(UserError, match=message):
        run(config, tmp_path / "run")


@pytest.mark.parametrize("strategy", ["seqft", "directft", "jointft"])
def test_validation_stream_is_scored_at_the_end_alone(tmp_path, strategy):
    config = RunConfig(strategy=strategy, stream="validation", model="tiny-instruct", benchmark="mini_cit2", **SMALL)
    file = run(config, tmp_path / strategy)

    filled = [[cell is not None for cell in row] for row in file.scores]
    tasks = ["flickr30k", "vizwiz", "textvqa", "gqa"]
    assert file.tasks == tasks  # without task 0's members, which have no validation samples
    if strategy == "directft":
        assert filled == [[False] * 4, *([column == row for column in range(4)] for row in range(4))]
    else:
        assert filled == [*([[False] * 4] * (len(file.rows) - 1)), [True] * 4]
        assert file.summary()["average_accuracy"] == pytest.approx(sum(file.scores[-1]) / 4)
    last = tmp_path / strategy / "predictions" / file.rows[-1] / "gqa.jsonl"
    answers = [json.loads(line) for line in last.read_text(encoding="utf-8").splitlines()]
    sizes = {split: SMALL[f"{split}_samples"] for split in ("train", "validation", "test")}
    (_, gqa) = benchmark_tasks("mini_cit2", sizes=sizes, task0=True)
    assert [answer["id"] for answer in answers] == gqa[-1].validation["id"]
    if strategy == "seqft":  # it is learned from the same samples in the same order, so the last row is one model's
        assert logged(tmp_path / strategy, "Loss_MB") == logged(_on_test(config, tmp_path), "Loss_MB")


def _on_test(config, tmp_path):
    run(dataclasses.replace(config, stream="test"), tmp_path / "test")
    return tmp_path / "test"


# --- Pictures for the report ------------------------------------------------------------------------------------------


def test_the_report_has_the_images_of_a_sample_side_by_side_and_goes_without(tmp_path):
    for colour in ("red", "blue"):
        Image.new("L" if colour == "red" else "RGB", (8, 4), 9 if colour == "red" else colour).save(
            tmp_path / f"{colour}.png"
        )
    images = {"none": (), "one": ("red",), "two": ("red", "blue")}
    row = {"instruction": "?", "target": "red", "references": ["red"], "task": "reds", "choices": None}
    rows = [
        {**row, "id": name, "image": (*paths, None)[0], "more_images": paths[1:] or None}
        for name, paths in ((name, [str(tmp_path / f"{colour}.png") for colour in of]) for name, of in images.items())
    ]
    data = datasets.Dataset.from_list(rows, features=FEATURES)
    (tmp_path / "run" / "predictions" / "initial").mkdir(parents=True)
    lines = [
        {"id": name, "instruction": "?", "prediction": "a", "references": ["red"], "score": 0.0} for name in images
    ]
    (tmp_path / "run" / "predictions" / "initial" / "reds.jsonl").write_text("\n".join(map(json.dumps, lines)))
    file = MatrixFile(
        "sequence", "mine", "seqft", "m", 0, ["reds"], [], ["exact_match"], ["initial"], [[0.0]], {}, False
    )

    _keep_pictures(tmp_path / "run", file, {"reds": data})
    file.write(tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "report.html")

    kept = {path.stem: Image.open(path) for path in (tmp_path / "run" / "examples" / "reds").iterdir()}
    assert {name: picture.size for name, picture in kept.items()} == {"one": (8, 4), "two": (16, 4)}
    assert [kept["two"].getpixel(place) for place in ((0, 0), (15, 3))] == [(9, 9, 9), (0, 0, 255)]
    assert (tmp_path / "report.html").stat().st_size > 0


# --- Bad samples ------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    """A benchmark on disk of one task, an image of whose training split is broken, and one of whose test is gone."""
    root = tmp_path / "data"
    splits = {"train": 6, "validation": 2, "test": 4}
    (root / "images").mkdir(parents=True)
    for split, size in splits.items():
        questions = {}
        for i in range(size):
            Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(root / "images" / f"{split}{i}.png")
            questions[f"{split}{i}"] = {"imageId": f"{split}{i}", "question": "what colour?", "answer": "red"}
        (root / f"{split}.json").write_text(json.dumps(questions))
    (root / "images" / "train2.png").write_bytes(b"no image")
    options = {"images": "images", "image_pattern": "{image_id}.png"}
    definition = {"reader": "gqa", "prompt": "{question}", "score": "exact_match", "max_new_tokens": 4}
    definition["splits"] = {split: {**options, "annotations": f"{split}.json"} for split in splits}
    about = {"name": "damaged", "version": 1, "description": "One task.", "data_root": "data", "tasks": ["reds"]}
    file = tmp_path / "damaged.yaml"
    file.write_text(yaml.safe_dump({**about, "definitions": {"reds": definition}}))
    return file


ONE = {"strategy": "seqft", "epochs": 1, "batch_size": 4, "threads": 1}


def test_bad_samples_are_left_out_before_the_run_and_counted(damaged, tmp_path, capsys):
    (tmp_path / "data" / "images" / "test3.png").unlink()
    file = run(RunConfig(benchmark=str(damaged), on_bad_sample="skip", **ONE), tmp_path / "run")

    said = json.loads((tmp_path / "run" / "provenance.json").read_text(encoding="utf-8"))
    assert said["bad_samples_left_out"] == {"reds": {"train": 1, "validation": 0, "test": 1}}
    assert said["samples_seen"] == 5
    assert said["data"]["reds"]["test"].startswith("3 samples")
    assert file.complete
    lines = (tmp_path / "run" / "predictions" / "reds" / "reds.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["test0", "test1", "test2"]
    note = "note: task 'reds': 2 samples whose image cannot be read are left out (1 of train, 1 of test)"
    assert note in capsys.readouterr().out


def test_a_bad_sample_is_named_where_it_is_met(damaged, tmp_path):
    image = tmp_path / "data" / "images" / "train2.png"
    with pytest.raises(UserError) as met:
        run(RunConfig(benchmark=str(damaged), **ONE), tmp_path / "run")
    said = str(met.value)
    assert said.startswith(f"task 'reds', sample 'train2': cannot read the image {image}: cannot identify image file")
    assert "mend the file, or leave such samples out with --on-bad-sample skip" in said
    assert "\n" not in said

    image.unlink()
    with pytest.raises(UserError, match=r"sample 'train2': cannot read the image .*train2\.png: No such file or dir"):
        run(RunConfig(benchmark=str(damaged), **ONE), tmp_path / "run2")


def test_images_may_lie_under_an_image_root(damaged, tmp_path):
    (tmp_path / "data" / "images" / "train2.png").write_bytes((tmp_path / "data/images/train1.png").read_bytes())
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "data" / "images" / "test0.png").rename(elsewhere.mkdir() or elsewhere / "far.png")
    questions = json.loads((tmp_path / "data" / "test.json").read_text())
    questions["test0"]["imageId"] = str(elsewhere / "far")
    (tmp_path / "data" / "test.json").write_text(json.dumps(questions))

    with pytest.raises(UserError, match="must be a path below the image folder"):
        run(RunConfig(benchmark=str(damaged), **ONE), tmp_path / "refused")
    file = run(RunConfig(benchmark=str(damaged), image_root=[str(elsewhere)], **ONE), tmp_path / "run")

    assert file.complete
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert (config["image_root"], config["on_bad_sample"]) == ([str(elsewhere)], "fail")


METHODS = [name for name in STRATEGIES if name not in ("seqft", "directft", "jointft", "replay")]
PENALISED = ("lwf", "ewc", "mas", "ewc_max", "mas_max", "ewc_tir", "mas_tir")
TINY = SMALL | {"train_samples": 16, "test_samples": 4}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A benchmark of two tasks, and of one member of task 0."""
    about = {"name": "short", "version": 1, "description": "Two tasks.", "drawn_by": "mini"}
    definitions = str(resources.files("avalanche_cit.benchmarks") / "mini" / "definitions.yaml")
    file = tmp_path_factory.mktemp("benchmark") / "short.yaml"
    tasks = {"tasks": ["vqav2", "gqa"], "task0": ["ocrvqa"]}
    file.write_text(yaml.safe_dump({**about, **tasks, "definitions": definitions}))
    return str(file)


@pytest.fixture(scope="module")
def short_seqft(short, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(RunConfig(strategy="seqft", benchmark=short, **TINY), folder)
    return logged(folder, "Loss_MB")


def logged(folder, name):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["value"] for line in lines if line["name"].startswith(name)]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_by_its_name_and_leaves_its_traces(name, tmp_path, short, short_seqft):
    """What a method trains is not what sequential tuning trains, and its penalty is in the log."""
    file = run(RunConfig(strategy=name, benchmark=short, **TINY), tmp_path)

    assert file.complete
    assert file.strategy == name
    if name != "agem":  # so short a run may hold no step that works against the memory
        assert logged(tmp_path, "Loss_MB") != short_seqft
    penalties = logged(tmp_path, "penalty")
    assert len(penalties) == (2 if name in PENALISED else 0)  # at every step of the second task
    assert not penalties or penalties[1] > penalties[0] == pytest.approx(0, abs=1e-6)
    expands = name in ("eproj", "eproj_expand")
    assert ("routing_accuracy" in file.other_scores) == expands
    if expands:
        assert "oracle_exact_match" in file.other_scores
        config = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
        assert (config["trainable"], config["lr"]) == ("projection", 5e-3)


@pytest.mark.parametrize("name", ["replay", "similarity_replay", "agem", "lwf", "ewc_tir", "eproj"])
def test_task0_counts_as_learned(name, tmp_path, short):
    file = run(RunConfig(strategy=name, benchmark=short, model="tiny-instruct", **TINY), tmp_path)

    assert file.complete
    assert file.task0 == ["ocrvqa"]
    assert len(logged(tmp_path, "penalty")) == (4 if name in PENALISED else 0)
    if name == "replay":
        samples = json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))["samples_seen"]
        assert samples == 2 * 2 * (8 + 2)  # the memory is replayed from the first task on
    if name == "eproj":
        assert all(cell is not None for cell in file.other_scores["routing_accuracy"][-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "ewc", "lambda_": -1.0}, "lambda_ is -1.0"),
        ({"strategy": "ewc_tir", "weighting": "dissimilar"}, "did you mean 'dissimilarity'"),
        ({"strategy": "eproj", "threshold": 2.0}, "threshold is 2.0"),
        ({"strategy": "eproj", "trainable": "bridge"}, "tunes the projection"),
        ({"strategy": "ewc_tir", "image_encoder": "vision"}, "did you mean 'vision_tower'"),
        ({"strategy": "ewc_tir", "fusion": "mena"}, "did you mean 'mean'"),
        ({"strategy": "lwf", "temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_wrong_options_of_methods_are_named(tmp_path, short, change, message):
    with pytest.raises(UserError, match=message):
        run(RunConfig(benchmark=short, **TINY, **change), tmp_path)


# --- Guards -----------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_rows_before(tmp_path, short):
    """The learning rate of the second task cannot be another, so the first breaks, after the initial row."""
    with pytest.raises(UserError, match=r"^task 'vqav2', training iteration 1: the loss is (nan|inf), .*mini-batch: "):
        run(RunConfig(strategy="seqft", benchmark=short, lr=1e30, **TINY), tmp_path / "run")

    file = MatrixFile.read(tmp_path / "run" / "matrix.json")
    assert file.rows == ["initial"]
    assert all(cell is not None for cell in file.scores[0])
    assert verify_run(tmp_path / "run") == []
    assert not (tmp_path / "run" / "provenance.json").exists()
    assert not (tmp_path / "run" / ".lock.holder").exists()


def test_a_run_that_another_holds_is_refused(tmp_path, short):
    config = RunConfig(strategy="seqft", benchmark=short, **TINY)
    other = RunDirectory(tmp_path / "run", config.resolved().plain(), defaults())
    with other.locked(), pytest.raises(UserError, match=f"is being written by process {os.getpid()} on "):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
