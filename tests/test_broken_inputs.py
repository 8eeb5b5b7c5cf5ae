"""Files broken at random: each is read, or refused in one line, and nothing that was there is changed.

Annotation files have their own such tests, beside the readers'.
"""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from damage import TEXTS, VALUES, changed, counts, damaged, files_of, fuzz, script_line
from hypothesis import strategies as st

from avalanche_cit.benchmarks.benchmark_file import read_benchmark_file
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.comparison import ComparedRun, compare, latex, markdown, observations
from avalanche_cit.evaluation.direct_reference import FinishedRun
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.evaluation.predictions_file import read_predictions
from avalanche_cit.evaluation.verify import verify_run
from avalanche_cit.grid_search import read_grids
from avalanche_cit.logging.examples import read_examples
from avalanche_cit.logging.report import write_report
from avalanche_cit.logging.run_directory import RunDirectory
from avalanche_cit.run_config import STRATEGIES, RunConfig, defaults
from avalanche_cit.runner import run

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
Names = dict[str, Any]


def script(name: str) -> Any:
    """Import an experiment script."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


def message_of(read: Callable[[], object]) -> str:
    """Return what a reader says, nothing where it can read; whatever else it raises is a defect."""
    message = ""
    try:
        read()
    except UserError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    return message


# --- Configuration ----------------------------------------------------------------------------------------------------

CONFIG: Names = {
    "benchmark": ["mini_cit1", "mini_cit1_reversed"],
    "model": "tiny-base",
    "strategy": ["seqft", "ewc", "eproj"],
    "seeds": [0, 1],
    "strategies": {"ewc": {"lambda_": 10.0, "per_sample": True}, "eproj": {"threshold": 0.5, "trainable": None}},
    "trainable": ["language_projection*"],
    "lora": {"r": 4, "lora_alpha": 8, "target_modules": ["q", "v"]},
    "modules": {"vision": "a", "projection": "b", "bridge": ["b"], "language": "c"},
    "task0": False,
    "epochs": 2,
    "lr": 1e-3,
    "warmup": 0.1,
    "train_samples": 8,
    "quantization": None,
    "dtype": "float32",
    "device": "cpu",
    "data_root": "data",
    "image_root": ["images"],
    "output": "runs",
    "quick": True,
}
OPTIONS = [f"--{name}" for name in (*CONFIG, "no_task0", "lora.r", "strategies.ewc", "config", "a")]
TYPED: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXTS | st.sampled_from([*STRATEGIES, "a/b", "a.yaml", "tiny-instruct", "4bit", "skip", "bfloat16"]),
    "int": st.integers(),
    "float": st.floats(),
    "bool": st.booleans(),
    "None": st.none(),
    "Path": st.builds(Path, TEXTS),
    "list[str]": st.lists(TEXTS, max_size=2),
    "dict[str, Any]": st.dictionaries(TEXTS | st.sampled_from(["r", "vision", "bridge"]), VALUES, max_size=3),
}
FIELDS = {
    name: st.one_of([TYPED[kind] for kind in field.type.split(" | ")])
    for name, field in RunConfig.__dataclass_fields__.items()
}


@pytest.fixture(scope="module")
def plan() -> Callable[[], object]:
    """What compare.py does before it runs anything: parse the command line, resolve and check every run."""
    module = script("compare")
    parser = module.make_parser()
    return lambda: module.planned_runs(parser)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused_or_read(file: Path, content: bytes, read: Callable[[], str]) -> None:
    """Give a file some content and call a reader, which must leave the folder as it is."""
    file.write_bytes(content)
    read()
    assert files_of(file.parent) == {file.name: content}


@counts(40, 900)
def test_a_changed_configuration(plan, folder, examples):
    file = folder / "config.yaml"

    def check(data: st.DataObject) -> None:
        document = changed(data, CONFIG)
        if data.draw(st.booleans()) and isinstance(document, dict):
            document[data.draw(TEXTS | st.sampled_from([*FIELDS, "config", "help", "print_config"]))] = data.draw(
                VALUES
            )
        text = yaml.safe_dump(document, allow_unicode=False).encode()
        refused_or_read(file, text, lambda: script_line(plan, ["--config", str(file)]))

    fuzz(check, examples)


@counts(20, 500)
def test_a_damaged_configuration(plan, folder, examples):
    file, content = folder / "config.yaml", yaml.safe_dump(CONFIG, sort_keys=False).encode()

    def check(data: st.DataObject) -> None:
        refused_or_read(file, damaged(data, content), lambda: script_line(plan, ["--config", str(file)]))

    fuzz(check, examples)


@counts(30, 400)
def test_a_broken_command_line(plan, folder, examples):
    word = st.sampled_from(OPTIONS) | TEXTS | st.builds("{}={}".format, st.sampled_from(OPTIONS), TEXTS)
    word |= VALUES.map(lambda value: json.dumps(value))

    def check(data: st.DataObject) -> None:
        words = data.draw(st.lists(word.filter(lambda text: not text.startswith(("-h", "--h"))), max_size=4))
        script_line(plan, words)
        assert files_of(folder) == {}

    fuzz(check, examples)


@counts(40, 500)
def test_options_of_the_right_types(folder, examples):
    def check(data: st.DataObject) -> None:
        given = {
            name: data.draw(FIELDS[name]) for name in data.draw(st.sets(st.sampled_from(list(FIELDS)), max_size=3))
        }
        config = RunConfig(**{"strategy": "ewc_tir", **given})
        resolved: list[RunConfig] = []
        if not message_of(lambda: resolved.append(config.resolved())):
            numbers = [value for value in resolved[0].plain().values() if isinstance(value, float)]
            assert all(abs(number) < float("inf") for number in numbers), resolved

    fuzz(check, examples)


def benchmark_text() -> bytes:
    file = resources.files("avalanche_cit.benchmarks") / "classic" / "definitions" / "cit.yaml"
    definitions = yaml.safe_load(file.read_text(encoding="utf-8"))
    names = list(definitions)[:3]
    document = {"name": "mine", "version": 1, "description": "Mine.", "data_root": "data", "tasks": names[:2]}
    document |= {"task0": names[2:], "definitions": {name: definitions[name] for name in names}}
    return yaml.safe_dump(document, sort_keys=False).encode()


GRIDS = {"seqft": {"lr": [1e-4, 1e-3]}, "ewc": {"lambda_": [1, 10], "start_from": "seqft"}}


@counts(60, 700)
def test_a_changed_benchmark_or_grid(folder, examples):
    file, benchmark = folder / "file.yaml", yaml.safe_load(benchmark_text())

    def check(data: st.DataObject) -> None:
        document, read = data.draw(st.sampled_from([(benchmark, read_benchmark_file), (GRIDS, read_grids)]))
        text = yaml.safe_dump(changed(data, document)).encode()
        refused_or_read(file, text, lambda: message_of(lambda: read(file)))

    fuzz(check, examples)


@counts(30, 400)
def test_a_damaged_benchmark_or_grid(folder, examples):
    file = folder / "file.yaml"
    contents = [(benchmark_text(), read_benchmark_file), (yaml.safe_dump(GRIDS).encode(), read_grids)]

    def check(data: st.DataObject) -> None:
        content, read = data.draw(st.sampled_from(contents))
        refused_or_read(file, damaged(data, content), lambda: message_of(lambda: read(file)))

    fuzz(check, examples)


# --- Run directories --------------------------------------------------------------------------------------------------

MADE_ANEW = {".lock", "config.yaml"}  # what claiming a folder may add where it is missing


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    """The smallest run that has all: two tasks, one of them with choices of its own, and a picture per task."""
    folder = tmp_path_factory.mktemp("finished")
    classic = resources.files("avalanche_cit.benchmarks") / "classic"
    document = yaml.safe_load((classic / "mini_cit1.yaml").read_text(encoding="utf-8"))
    document |= {"tasks": ["vqav2", "gqa"], "definitions": str(classic / document["definitions"])}
    (folder / "two.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    sizes = {"train_samples": 8, "validation_samples": 4, "test_samples": 3, "epochs": 1, "batch_size": 4}
    config = RunConfig(strategy="seqft", benchmark=str(folder / "two.yaml"), threads=1, **sizes).resolved()
    run(config, folder / "run")
    for name in ("matrix.png", "report.html", ".lock"):
        (folder / "run" / name).unlink(missing_ok=True)
    return folder / "run", config


@pytest.fixture(scope="module")
def summarize() -> Callable[[], object]:
    return script("summarize").main


def read_as_comparison(folder: Path) -> None:
    compared = [ComparedRun.read(folder)]
    observations(compared)
    for comparison in compare(compared):
        for table in (comparison.main_table(), comparison.other_table(), comparison.last_row_table()):
            markdown(table)
            if table.size:
                latex(table, caption="a", label="b")
        comparison.flat()


def read_all(folder: Path, config: RunConfig) -> None:
    """Call every reader of run directories that does nothing but read."""
    message_of(lambda: verify_run(folder))
    message_of(lambda: FinishedRun.read(folder))
    files: list[MatrixFile] = []
    if not message_of(lambda: files.append(MatrixFile.read(folder / "matrix.json"))):
        for task in files[0].tasks:
            message_of(lambda task=task: read_examples(folder, task, files[0].rows))
    for file in folder.glob("predictions/*/*"):
        message_of(lambda file=file: read_predictions(file))
    message_of(lambda: RunDirectory(folder, config.plain(), defaults()).read_matrix())


def documents(content: bytes, name: str) -> Any:
    """Parse a file of a run, line by line where it holds a document a line."""
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in content.splitlines()]
    return json.loads(content) if name.endswith(".json") else yaml.safe_load(content)


def text_of(document: Any, name: str) -> bytes:
    if name.endswith(".jsonl") and isinstance(document, list):
        return "".join(json.dumps(line) + "\n" for line in document).encode()
    return (yaml.safe_dump(document) if name.endswith(".yaml") else json.dumps(document)).encode()


def break_file(data: st.DataObject, path: Path) -> None:
    """Change, damage, cut off, empty or delete a file, or put a folder in its place."""
    content = path.read_bytes()
    kinds = ["damaged", "damaged", "cut off", "empty", "deleted", "folder"]
    if path.suffix in (".json", ".jsonl", ".yaml"):
        kinds = [*kinds, *["changed"] * 6, "other"]
    match data.draw(st.sampled_from(kinds)):
        case "changed":
            path.write_bytes(text_of(changed(data, documents(content, path.name)), path.name))
        case "other":
            path.write_bytes(text_of(data.draw(VALUES), path.name))
        case "damaged":
            path.write_bytes(damaged(data, content))
        case "cut off":
            path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        case "empty":
            path.write_bytes(b"")
        case kind:
            path.unlink()
            if kind == "folder":
                path.mkdir()


@counts(40, 3000)
def test_a_broken_run_directory(finished, summarize, tmp_path, examples):
    run_directory, config = finished
    folder, elsewhere = tmp_path / "altered-run", tmp_path / "elsewhere"
    names = [name for name, content in files_of(run_directory).items() if content is not None]
    important = [name for name in names if "/" not in name]
    assert {"config.yaml", "matrix.json", "matrix.csv", "metrics.jsonl", "provenance.json"} == set(important)
    assert len(names) > len(important) + 6

    def check(data: st.DataObject) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run_directory, folder)
        name = st.sampled_from(important) | st.sampled_from(names)
        for broken in data.draw(st.lists(name, min_size=1, max_size=2, unique=True)):
            break_file(data, folder / broken)
        before = files_of(folder)

        read_all(folder, config)
        match data.draw(st.sampled_from(["report", "comparison", "summary"])):  # these take longer
            case "report":
                message_of(lambda: write_report([folder], elsewhere / "report.html"))
            case "comparison":
                message_of(lambda: read_as_comparison(folder))
            case "summary":
                script_line(summarize, [str(folder)])
                script_line(summarize, [str(folder / "matrix.csv"), "--json"])

        after = files_of(folder)
        assert {name: content for name, content in after.items() if name in before} == before
        assert after.keys() - before.keys() <= MADE_ANEW

    fuzz(check, examples)


# --- What was found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("examples/gqa/*.png", b"no image", "cannot be read as an image"),
        ("predictions/initial/gqa.jsonl", b"\xff\xfe", "not a text file in UTF-8"),
        ("predictions/initial/gqa.jsonl", b'{"id": {}, "instruction": "", "prediction": ""}\n', "'id' must be a text"),
        ("metrics.jsonl", b"\xff\xfe", "not a text file in UTF-8"),
        (
            "metrics.jsonl",
            b'{"step": "1", "task": null, "phase": "train", "name": "a", "value": 1}\n',
            "'step' must be",
        ),
        (
            "metrics.jsonl",
            b'{"step": 1, "task": null, "phase": "train", "name": "a", "value": "b"}\n',
            "'value' must be",
        ),
        ("config.yaml", b"a: 2020-99-99\n", "broken YAML: month must be in 1..12"),
    ],
)
def test_a_report_names_the_broken_file(finished, tmp_path, name, content, message):
    folder = shutil.copytree(finished[0], tmp_path / "altered-run")
    for file in folder.glob(name):
        file.write_bytes(content)
    said = message_of(lambda: write_report([folder], tmp_path / "report.html"))
    assert f"{file.parent.name}/" in said
    assert message in said
    assert file.suffix in said


@pytest.mark.parametrize("content", [b"config: 3\n", b"\xff\xfe\xfa", b"3: 4\n", b"[a]\n"])
def test_a_file_of_options_that_is_none(plan, folder, content):
    file = folder / "config.yaml"
    file.write_bytes(content)
    assert "config.yaml: " in script_line(plan, ["--config", str(file)])


def test_half_a_character_is_no_obstacle_to_a_report(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "altered-run")
    document = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    (folder / "provenance.json").write_text(json.dumps({**document, "odd": "\ud800"}), encoding="utf-8")
    write_report([folder], tmp_path / "report.html")
    assert "odd" in (tmp_path / "report.html").read_text(encoding="utf-8")
