"""The comparing script: the runs it asks for, what it prints and writes, mistakes; and two strategies for real."""

import csv
import dataclasses
import re
import runpy
from pathlib import Path

import pytest
import yaml
from PIL import Image

import avalanche_cit.benchmarks.mini as mini
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.matrix import CONVENTIONS
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.launching import here
from avalanche_cit.processes import Processes
from avalanche_cit.run_config import STRATEGIES, SWITCHES
from avalanche_cit.runner import open_run

SCRIPT = Path(__file__).parents[2] / "experiments" / "compare.py"
SMALL = ["--train_samples=8", "--validation_samples=2", "--test-samples=4", "--epochs=1", "--batch-size=4"]
DEFAULT = ["seqft", "replay", "ewc", "ewc_tir", "seqft_projection", "eproj", "directft", "jointft"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Put a stand-in in the place of the runner, which writes a small run directory; returns what it is asked for."""
    calls: list[tuple] = []

    def run(config, folder, *, vision_features=None):
        calls.append((config, folder, vision_features))
        config, directory = open_run(config, folder, Processes())
        number = 10.0 * len(config.strategy) + config.seed
        tasks = ["a_1", "b"] if "reversed" not in config.benchmark else ["b", "a_1"]
        kind = STRATEGIES[config.strategy]
        rows = ["initial", "joint"] if kind == "joint" else ["initial", *tasks]
        scores: list[list[float | None]] = [[1.0, 2.0], [number, 30.0], [number - 5, 70.0]][: len(rows)]
        if kind == "independent":
            scores = [[1.0, 2.0], [66.0, None], [None, 77.0]]
        file = MatrixFile(
            kind, Path(config.benchmark).stem, config.strategy, config.model, config.seed,
            tasks, [], ["exact_match"] * 2, rows, scores, {}, complete=True,
        )  # fmt: skip
        file.write(folder)
        directory.finish({"samples_seen": 1000})
        return file

    monkeypatch.setattr(here, "run", run)
    return calls


def lines_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_defaults_ask_for_every_strategy_and_seed(script, asked: list, capsys: pytest.CaptureFixture[str]) -> None:
    script()

    folders = [str(folder) for _, folder, _ in asked]
    assert folders == [f"comparison/mini_cit1/tiny-base/{s}-seed{n}" for n in (0, 1, 2) for s in DEFAULT]
    assert [(c.strategy, c.seed) for c, _, _ in asked] == [(s, n) for n in (0, 1, 2) for s in DEFAULT]
    assert all((c.benchmark, c.model) == ("mini_cit1", "tiny-base") for c, _, _ in asked)
    assert len({id(features) for _, _, features in asked}) == 1
    assert asked[0][2] is not None
    printed = capsys.readouterr().out
    assert "run 3 of 24: mini_cit1, ewc, seed 0\n" in printed
    assert "Learning rates and lambdas: as given, not tuned. Importance: per-batch Fisher (ewc, ewc_tir)." in printed
    assert "The language model of tiny-base saw the answer formats as text only." in printed
    assert "Intransigence is empty where directft was run with other options." in printed
    assert printed.endswith("report: comparison/report.html\n")


def test_all_files_hold_the_printed_numbers(script, asked: list, capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    script("--strategy", "replay", "directft", "seqft", "replay", "--seeds", "0", "2", "--output", "out")

    out = tmp_path / "out"
    runs = lines_of(out / "runs.csv")
    assert [(run["strategy"], run["seed"]) for run in runs] == [
        (strategy, seed) for seed in "02" for strategy in ("replay", "directft", "seqft")
    ]
    assert all(set(CONVENTIONS) <= run.keys() for run in runs)
    assert (runs[0]["lr"], runs[0]["mft"], runs[0]["last_b"]) == ("0.001", "65.0", "70.0")  # replay's number is 60

    rows = {row["strategy"]: row for row in lines_of(out / "comparison.csv")}
    assert list(rows) == ["zero-shot", "directft", "replay", "seqft"]
    assert float(rows["replay"]["mft_mean"]) == pytest.approx(65.5)
    assert float(rows["replay"]["mft_std"]) == pytest.approx(0.5**0.5)
    assert float(rows["replay"]["intransigence_mean"]) == pytest.approx(71.5 - 65.5)
    assert float(rows["seqft"]["forgetting_chaudhry_mean"]) == pytest.approx(5)

    page = (out / "comparison.md").read_text(encoding="utf-8")
    assert "## mini_cit1 from tiny-base\n" in page
    assert "\n| replay | 2 | 63.0 ± 0.7 | 65.5 ± 0.7 | 5.0 ± 0.0 | -5.0 ± 0.0 | 6.0 ± 0.7 | 1,000 |\n" in page
    assert "|  | a_1 | b |\n" in page
    assert "| directft | 66.0 | 77.0 |\n" in page
    source = (out / "comparison.tex").read_text(encoding="utf-8")
    assert "replay & 2 & 63.0 $\\pm$ 0.7 & 65.5 $\\pm$ 0.7 & 5.0 $\\pm$ 0.0 & $-$5.0 $\\pm$ 0.0 & " in source
    assert source.count("\\begin{tabular}") == source.count("\\toprule") == page.count("| --- |") == 3
    assert "mini\\_cit1 from tiny-base: " in source
    assert " & a\\_1 & b \\\\" in source
    printed = capsys.readouterr().out
    table_rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line]
    written = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")]
    assert [row for row in table_rows if row[0] in rows] == [row for row in written if row[0] in rows]

    report = (out / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r'id="run-(\d+)"', report)) == set("123456")
    with Image.open(out / "comparison.png") as image:
        assert image.width > 1000


def test_several_orders_are_pooled(script, asked: list, tmp_path: Path) -> None:
    orders = ["--benchmark", "mini_cit1", "mini_cit1_reversed", "--strategy", "seqft", "replay", "--seeds", "0", "1"]
    script(*orders, "--output", "out")

    assert [str(folder.parent.parent.name) for _, folder, _ in asked] == ["mini_cit1"] * 4 + ["mini_cit1_reversed"] * 4
    rows = lines_of(tmp_path / "out" / "comparison.csv")
    assert [(row["benchmark"], row["strategy"], row["n"]) for row in rows[-3:]] == [
        ("mini_cit1 + mini_cit1_reversed", strategy, n)
        for strategy, n in (("zero-shot", "2"), ("seqft", "4"), ("replay", "4"))
    ]
    page = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert page.count("## mini_cit1 + mini_cit1_reversed from tiny-base\n") == 1
    assert "Mean ± standard deviation over n runs, seeds 0, 1 x 2 orders (zero-shot counts once per seed)" in page


def test_a_strategys_own_options_are_its_alone(script, asked: list, tmp_path: Path) -> None:
    own = {"ewc": {"lambda_": 7.0, "epochs": 9}, "eproj_expand": {"lr": "1e-2"}, "mas": {"lambda_": 3}}
    document = {"strategies": own, "seeds": [4], "epochs": 2, "tuning": "on the validation stream", "quick": True}
    document["test_samples"] = 50
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(document))

    script("--config", "options.yaml", "--strategy", "ewc", "ewc_tir", "eproj_expand", "--per_sample")

    configs = {config.strategy: config for config, _, _ in asked}
    assert list(configs) == ["ewc", "ewc_tir", "seqft_projection", "eproj_expand"]
    assert {name: config.epochs for name, config in configs.items()} == {
        "ewc": 9, "ewc_tir": 2, "seqft_projection": 2, "eproj_expand": 2,
    }  # fmt: skip
    assert (configs["ewc"].lambda_, configs["ewc_tir"].lambda_) == (7.0, 1e5)
    assert (configs["eproj_expand"].lr, configs["seqft_projection"].lr) == (0.01, 5e-3)
    assert all((c.seed, c.train_samples, c.test_samples) == (4, 96, 50) for c in configs.values())
    page = (tmp_path / "comparison-quick" / "comparison.md").read_text(encoding="utf-8")
    assert "One run a row, seed 4. Learning rates and lambdas: " in page
    assert "on the validation stream. Importance: per-sample Fisher (ewc, ewc_tir)." in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": ["seqft", "reply"]}, "unknown strategy 'reply': did you mean 'replay'?"),
        ({"strategies": {"ewc_tri": {}}}, "unknown strategy 'ewc_tri': did you mean 'ewc_tir'?"),
        ({"strategies": {"ewc": {"lamda": 3}}}, "unknown option of strategy ewc 'lamda': did you mean 'lambda_'?"),
        ({"strategies": {"ewc": {"lr": "fast"}}}, "strategies, ewc: "),
        ({"strategies": {"ewc": {"train_samples": 3}}}, "strategies, ewc: 'train_samples' is the same for all runs"),
        ({"strategies": {"ewc": {"epochs": 0}}}, "epochs is 0"),
        ({"strategies": {"ewc": 3}}, "option 'strategies'"),
        ({"strategies": {"replay": {"lambda_": 3}}}, "strategy 'replay' has no lambda_; it is an option of lwf, ewc,"),
        ({"strategy": "ewc"}, "options.yaml: 'strategy' takes a list, such as [ewc]"),
        ({"seeds": 3}, "options.yaml: 'seeds' takes a list, such as [3]"),
        ({"threshold": 1.5}, "threshold is 1.5: it must be between 0 and 1"),
        ({"benchmark": ["mini_cit1", "mini_cit11"]}, "unknown benchmark 'mini_cit11': did you mean 'mini_cit1'?"),
        ({"benchmark": ["mini_cit1", "other.yaml"]}, "two benchmarks have the same name"),
        ({"model": "tiny-bass"}, "did you mean 'tiny-base'?"),
        ({"seeds": []}, "there is nothing to compare"),
        ({"workers": 0}, "workers is 0: it must be at least 1"),
        ({"ray": "local", "device": "cuda:1"}, "device is cuda:1, but Ray gives each run its GPU"),
        ({"seed": 3}, "unknown option '--seed': did you mean '--seeds'?"),
        ({"output": "taken"}, "cannot write to taken: File exists; give another --output"),
    ],
)
def test_a_mistake_is_one_line_before_any_run(mistake, asked: list, tmp_path: Path, options, message) -> None:
    (tmp_path / "taken").touch()
    definitions = yaml.safe_load((Path(mini.__path__[0]) / "definitions.yaml").read_text())
    other = {"name": "mini_cit1", "version": 1, "description": "Two.", "drawn_by": "mini", "tasks": ["gqa"]}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({**other, "definitions": {"gqa": definitions["gqa"]}}))
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(options))

    assert message in mistake("--config", "options.yaml")
    assert [config for config, _, _ in asked[1:]] == []
    assert not (tmp_path / "comparison").exists()


def test_a_folder_of_other_options_is_refused_before_any_run(script, mistake, asked: list) -> None:
    script("--strategy", "replay", "--seeds", "2", "--lr", "0.5")
    asked.clear()
    said = mistake("--strategy", "seqft", "replay")
    assert "holds a run with other options: lr (0.5 there, 0.001 now)" in said
    assert asked == []


def test_a_run_that_fails_keeps_no_other_from_going_on(
    script, asked: list, monkeypatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stand_in = here.run

    def run(config, folder, **rest):
        if (config.strategy, config.seed) == ("replay", 1):
            raise UserError("the disk is full")
        return stand_in(config, folder, **rest)

    monkeypatch.setattr(here, "run", run)
    with pytest.raises(SystemExit) as end:
        script("--strategy", "seqft", "replay", "--seeds", "0", "1", "2")

    assert end.value.code == 2
    assert [(c.strategy, c.seed) for c, _, _ in asked] == [
        ("seqft", 0), ("replay", 0), ("seqft", 1), ("seqft", 2), ("replay", 2),
    ]  # fmt: skip
    printed = capsys.readouterr()
    assert (
        "\nfailed: mini_cit1, replay, seed 1: the disk is full\nrun 5 of 6: mini_cit1, seqft, seed 2\n" in printed.out
    )
    (line,) = printed.err.splitlines()
    assert line.startswith(
        "error: 1 of 6 runs are not finished: mini_cit1, replay, seed 1: the disk is full; what is saved is kept, and "
        "this goes on with them: python"
    )
    assert line.endswith("compare.py --strategy seqft replay --seeds 0 1 2")
    counts = {row["strategy"]: row["n"] for row in lines_of(tmp_path / "comparison" / "comparison.csv")}
    assert counts == {"zero-shot": "3", "seqft": "3", "replay": "2"}
    assert "So far 5 of 6 runs." in (tmp_path / "comparison" / "comparison.md").read_text(encoding="utf-8")

    monkeypatch.setattr(here, "run", stand_in)
    script("--strategy", "seqft", "replay", "--seeds", "0", "1", "2")
    assert "So far" not in (tmp_path / "comparison" / "comparison.md").read_text(encoding="utf-8")


def test_the_table_so_far_is_written_after_every_run(script, asked: list, monkeypatch, tmp_path: Path) -> None:
    stand_in, seen = here.run, []

    def run(config, folder, **rest):
        tables = tmp_path / "comparison"
        if (tables / "runs.csv").exists():
            assert f"So far {len(seen)} of 3 runs." in (tables / "comparison.tex").read_text(encoding="utf-8")
            assert len(lines_of(tables / "runs.csv")) == len(seen)
        seen.append(len(lines_of(tables / "comparison.csv")) if (tables / "comparison.csv").exists() else 0)
        return stand_in(config, folder, **rest)

    monkeypatch.setattr(here, "run", run)
    script("--strategy", "seqft", "ewc", "directft", "--seeds", "0")
    assert seen == [0, 2, 3]  # rows, that of zero-shot among them


def test_two_strategies_for_real_and_again_for_nothing(script, capsys, monkeypatch, tmp_path: Path) -> None:
    definitions = yaml.safe_load((Path(mini.__path__[0]) / "definitions.yaml").read_text())
    tasks = ["vqav2", "gqa"]
    document = {"name": "two", "version": 1, "description": "Two.", "drawn_by": "mini", "tasks": tasks}
    document["definitions"] = {task: definitions[task] for task in tasks}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(document))
    command = ["--benchmark", "two.yaml", "--strategy", "ewc", "directft", "--seeds", "0", *SMALL, "--threads=1"]

    script(*command)

    folder = tmp_path / "comparison" / "two" / "tiny-base"
    runs = {run["strategy"]: run for run in lines_of(tmp_path / "comparison" / "runs.csv")}
    direct = MatrixFile.read(folder / "directft-seed0" / "matrix.json").direct()
    summary = MatrixFile.read(folder / "ewc-seed0" / "matrix.json").summary(direct)
    assert summary["intransigence"] is not None
    for name, number in summary.items():
        assert float(runs["ewc"][name]) == number
    assert runs["ewc"]["samples_seen"] == "16"
    assert (runs["ewc"]["lambda_"], runs["directft"]["lambda_"]) == ("100.0", "")

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    table = (tmp_path / "comparison" / "comparison.csv").read_text()
    capsys.readouterr()
    script(*command)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert (tmp_path / "comparison" / "comparison.csv").read_text() == table
    assert "batch/s" not in capsys.readouterr().err


def test_options_of_all_runs_exist() -> None:
    """A renamed option must not slip out of the list of those that no strategy can have for itself."""
    namespace = runpy.run_path(str(SCRIPT))
    assert set(namespace["OF_ALL_RUNS"]) < {field.name for field in dataclasses.fields(namespace["RunConfig"])}
    assert set(SWITCHES) == {
        field.name for field in dataclasses.fields(namespace["RunConfig"]) if field.type in ("bool", "bool | None")
    }
