"""The experiment on real data: its settings teach the tiny model every task, and its page shows what was run."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from avalanche_cit.benchmarks import Task, benchmark_tasks
from avalanche_cit.evaluation.direct_reference import FinishedRun
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.run_config import RunConfig
from avalanche_cit.runner import run

ROOT = Path(__file__).parents[2]
BENCHMARKS = ("easy_vqa", "digits")
TUNED_ON = 100  # the seed that the settings were chosen with
MARGIN = {"shape": 35, "colour": 60, "presence": 15, "digit": 45, "number": 30, "larger": 15}


def settings(benchmark: str) -> dict[str, Any]:
    text = (ROOT / "experiments" / "configs" / f"{benchmark}.yaml").read_text(encoding="utf-8")
    options: dict[str, Any] = yaml.safe_load(text)
    return options


def load_tasks(benchmark: str) -> list[Task]:
    options = settings(benchmark)
    sizes = {split: options[f"{split}_samples"] for split in ("train", "validation", "test")}
    return benchmark_tasks(benchmark, seed=0, sizes=sizes)[1]


def commonest(answers: list[str]) -> str:
    return Counter(answers).most_common(1)[0][0]


def prior(task: Task) -> float:
    """What always giving the commonest answer of the training set scores."""
    answer = commonest(task.train["target"][:])
    return 100 * task.test["target"][:].count(answer) / len(task.test)


def prior_by_question(task: Task) -> float:
    """What giving each question its commonest answer scores, without a look at any picture."""
    asked: dict[str, list[str]] = {}
    for question, answer in zip(task.train["instruction"], task.train["target"], strict=True):
        asked.setdefault(question, []).append(answer)
    fallback = commonest(task.train["target"][:])
    known = {question: commonest(answers) for question, answers in asked.items()}
    pairs = list(zip(task.test["instruction"], task.test["target"], strict=True))
    return 100 * sum(known.get(question, fallback) == answer for question, answer in pairs) / len(pairs)


def after_own_task(file: MatrixFile) -> list[float]:
    return [file.scores[i + 1][i] for i in range(len(file.tasks))]


def recorded(benchmark: str) -> dict[str, FinishedRun]:
    folder = ROOT / "docs" / "results" / f"{benchmark}-tiny-instruct"
    return {name: FinishedRun.read(folder / f"{name}-seed0") for name in settings(benchmark)["strategy"]}


def table(benchmark: str) -> list[str]:
    """The rows of the page's table: one number per task, and what was forgotten."""
    tasks = load_tasks(benchmark)
    files = {name: found.file for name, found in recorded(benchmark).items()}
    rows: dict[str, list[float]] = {
        "commonest answer": [prior(task) for task in tasks],
        "commonest answer to the question": [prior_by_question(task) for task in tasks],
        "zero-shot": files["seqft"].scores[0],
        "directft": after_own_task(files["directft"]),
    }
    for name in ("seqft", "replay"):
        rows[f"{name}, after its own task"] = after_own_task(files[name])
        rows[f"{name}, at the end"] = [*files[name].scores[-1], files[name].summary()["forgetting_chaudhry"]]
    width = len(tasks) + 1
    cells = {name: [f"{number:.1f}" for number in numbers] for name, numbers in rows.items()}
    return [f"| {' | '.join([name, *texts, *[''] * (width - len(texts))])} |" for name, texts in cells.items()]


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_page_shows_what_was_run(benchmark: str) -> None:
    page = (ROOT / "docs" / "real_data.md").read_text(encoding="utf-8")
    section = page.split(f"## `{benchmark}`")[1].split("\n## ")[0]
    assert f"--config experiments/configs/{benchmark}.yaml" in page
    for row in table(benchmark):
        assert row in section.splitlines()


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_runs_have_the_committed_settings(benchmark: str) -> None:
    options = settings(benchmark)
    strategies = options.pop("strategy")
    assert strategies == ["seqft", "replay", "directft"]
    for name, found in recorded(benchmark).items():
        assert found.config is not None
        assert {name: found.config[name] for name in options} == options
        assert found.config["strategy"] == name
        assert found.config["stream"] == "test"
        assert found.config["seed"] != TUNED_ON
        assert found.file.complete


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_task_is_learned(benchmark: str, tmp_path: Path) -> None:
    """Right after it was tuned on, a task scores clearly above its commonest answer."""
    file = run(RunConfig(**{**settings(benchmark), "strategy": "seqft"}), tmp_path / "run")

    assert file.complete
    tasks = load_tasks(benchmark)
    assert file.tasks == [task.name for task in tasks]
    for task, score in zip(tasks, after_own_task(file), strict=True):
        print(f"{task.name}: {score:.1f}, commonest answer {prior(task):.1f}")
        assert score > prior(task) + MARGIN[task.name], task.name
