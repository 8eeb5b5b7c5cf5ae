"""The forgetting matrix: its cells, what it emits and writes, and that Avalanche's own metrics agree with it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from avalanche.benchmarks import CLScenario
from avalanche.evaluation.metrics import ExperienceBWT, Mean, StreamBWT
from avalanche.evaluation.metrics.forgetting_bwt import GenericExperienceForgetting, GenericStreamForgetting
from avalanche.training.plugins import EvaluationPlugin

from avalanche_cit.benchmarks import Task, instruction_benchmark
from avalanche_cit.benchmarks.scenario import task_name
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.evaluation.matrix import bwt_gem, forgetting_first_last
from avalanche_cit.evaluation.predictions_file import read_predictions
from avalanche_cit.evaluation.scores import beside, get_score
from avalanche_cit.models import LMM
from avalanche_cit.training import SeqFT

TASKS = ["colour", "shape", "caption"]


def cell(matrix: ForgettingMatrix, row: str, task: str) -> float:
    score = matrix.scores[matrix.rows.index(row)][matrix.tasks.index(task)]
    assert score is not None
    return score


# ---- Avalanche's metrics, reading the scores that the matrix has computed ----


class StockExperienceForgetting(GenericExperienceForgetting):  # type: ignore[misc]
    def __init__(self, matrix: ForgettingMatrix) -> None:
        super().__init__(Mean())
        self.matrix = matrix

    def metric_update(self, strategy: Any) -> None:
        """Leave counting to the matrix."""

    def metric_result(self, strategy: Any) -> float:
        return cell(self.matrix, self.matrix.row, task_name(strategy.experience.dataset) or "")

    def result_key(self, k: int) -> float | None:
        return self.forgetting.result_key(k)  # type: ignore[no-any-return]

    def result(self) -> dict[int, float]:
        return self.forgetting.result()  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return "StockExperienceForgetting"


class StockStreamForgetting(GenericStreamForgetting):  # type: ignore[misc]
    def __init__(self, matrix: ForgettingMatrix) -> None:
        super().__init__(Mean())
        self.matrix = matrix

    metric_update = StockExperienceForgetting.metric_update
    metric_result = StockExperienceForgetting.metric_result

    def __str__(self) -> str:
        return "StockStreamForgetting"


class StockExperienceBWT(ExperienceBWT):  # type: ignore[misc]
    def __init__(self, matrix: ForgettingMatrix) -> None:
        super().__init__()
        self._current_metric = Mean()
        self.matrix = matrix

    metric_update = StockExperienceForgetting.metric_update
    metric_result = StockExperienceForgetting.metric_result

    def __str__(self) -> str:
        return "StockExperienceBWT"


class StockStreamBWT(StreamBWT):  # type: ignore[misc]
    def __init__(self, matrix: ForgettingMatrix) -> None:
        super().__init__()
        self._current_metric = Mean()
        self.matrix = matrix

    metric_update = StockExperienceForgetting.metric_update
    metric_result = StockExperienceForgetting.metric_result

    def __str__(self) -> str:
        return "StockStreamBWT"


# ---- one run, looked at from many sides ----


class Run(NamedTuple):
    benchmark: CLScenario
    strategy: SeqFT
    matrix: ForgettingMatrix
    emitted: dict[str, dict[str, float]]
    predictions: Path


@pytest.fixture(scope="module")
def run(tasks: dict[str, Task], load: Callable[..., LMM], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Tune a model on three tasks, evaluating the sequence and task 0 before all and after each."""
    folder = tmp_path_factory.mktemp("predictions")
    benchmark = instruction_benchmark([tasks[name] for name in TASKS], task0=[tasks["old"]])
    matrix = ForgettingMatrix(benchmark, predictions=folder)
    stock = [kind(matrix) for kind in (StockExperienceForgetting, StockStreamForgetting)]
    stock += [kind(matrix) for kind in (StockExperienceBWT, StockStreamBWT)]
    strategy = SeqFT(
        model=load(trainable="all"),
        lr=1e-2,
        train_mb_size=4,
        eval_mb_size=4,
        train_epochs=5,
        evaluator=EvaluationPlugin(matrix, *stock, loggers=[]),
    )
    emitted = {}
    for name, experience in zip(["initial", *TASKS], [None, *benchmark.train_stream], strict=True):
        if experience is not None:
            strategy.train(experience)
        strategy.evaluator.reset_last_metrics()
        strategy.eval(benchmark.task0_test_stream)
        emitted[name] = strategy.eval(benchmark.test_stream)
    return Run(benchmark, strategy, matrix, emitted, folder)


def test_rows_are_the_moments_and_columns_the_tasks_task_0_first(run: Run) -> None:
    assert run.matrix.rows == ["initial", *TASKS]
    assert run.matrix.tasks == ["old", *TASKS]
    assert run.matrix.task0 == ["old"]
    assert run.matrix.scores_by == ["token_f1"] * 4
    assert [len(row) for row in run.matrix.scores] == [4] * 4


def test_the_run_learns_and_forgets(run: Run) -> None:
    """Else nothing below would tell one cell from another."""
    table = [[score for score in row if score is not None] for row in run.matrix.scores]

    assert all(len(row) == 4 for row in table)
    assert len({tuple(row) for row in table}) == 4
    assert cell(run.matrix, "colour", "colour") > cell(run.matrix, "initial", "colour")
    assert cell(run.matrix, "colour", "colour") != cell(run.matrix, "caption", "colour")
    assert cell(run.matrix, "shape", "shape") != cell(run.matrix, "caption", "shape")


@pytest.mark.parametrize("row", ["initial", *TASKS])
@pytest.mark.parametrize("task", ["old", *TASKS])
def test_a_cell_is_the_score_of_the_answers_in_its_file(run: Run, row: str, task: str) -> None:
    lines = (run.predictions / row / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line) for line in lines]

    fields = ["id", "instruction", "prediction", "references", "score", "digest"]
    assert [list(answer) for answer in answers] == [fields] * 6
    assert [answer["id"] for answer in answers] == [f"{task}-test-{i}" for i in range(6)]
    score = get_score("token_f1")
    arguments = [answer["prediction"] for answer in answers], [answer["references"] for answer in answers], [None] * 6
    result = score.function(*arguments)
    assert [answer["score"] for answer in answers] == result.per_sample
    assert cell(run.matrix, row, task) == result.corpus
    others = run.matrix.as_file(kind="sequence", benchmark="b", strategy="s", model="m", seed=0).other_scores
    place = run.matrix.rows.index(row), run.matrix.tasks.index(task)
    assert {name: cells[place[0]][place[1]] for name, cells in others.items()} == {
        name: function(*arguments).corpus for name, function in beside(score).items()
    }


def test_answers_are_the_models_own(run: Run) -> None:
    dataset = run.benchmark.test_stream[0].dataset
    texts = [run.strategy.model.generate(run.strategy.model.collator([dataset[i]])[0])[0] for i in range(6)]

    lines = (run.predictions / "caption" / "colour.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == texts
    assert json.loads(lines[0])["instruction"] == "Question: colour? Answer:"
    assert json.loads(lines[0])["references"] == dataset[0][0].row["references"]


def test_names_are_avalanches(run: Run) -> None:
    names = set(run.emitted["caption"])

    exp = [f"{{}}/eval_phase/test_stream/Task00{i}/Exp00{i}" for i in range(3)]
    expected = {exp[i].format("Score_Exp") for i in range(3)}
    for kind in ("Forgetting", "BWT"):
        expected |= {exp[i].format(f"Experience{kind}") for i in range(2)}
        expected |= {exp[i].format(f"StockExperience{kind}") for i in range(2)}
        expected |= {f"{stock}Stream{kind}/eval_phase/test_stream" for stock in ("", "Stock")}
        # Avalanche's emit a mean over nothing for a stream in which nothing was trained
        expected.add(f"StockStream{kind}/eval_phase/task0_test_stream")
    expected |= {f"Score_Stream/eval_phase/{stream}_stream" for stream in ("test", "task0_test")}
    expected.add("Score_Exp/eval_phase/task0_test_stream/Task003/Exp003")
    assert names == expected


def test_emitted_scores_are_the_cells(run: Run) -> None:
    for row in ("initial", *TASKS):
        for i, task in enumerate(TASKS):
            name = f"Score_Exp/eval_phase/test_stream/Task00{i}/Exp00{i}"
            assert run.emitted[row][name] == cell(run.matrix, row, task)
        mean = sum(cell(run.matrix, row, task) for task in TASKS) / 3
        assert run.emitted[row]["Score_Stream/eval_phase/test_stream"] == pytest.approx(mean)
        old = run.emitted[row]["Score_Exp/eval_phase/task0_test_stream/Task003/Exp003"]
        assert old == cell(run.matrix, row, "old")


@pytest.mark.parametrize("kind", ["Forgetting", "BWT"])
def test_avalanches_own_metrics_say_the_same_of_every_experience(run: Run, kind: str) -> None:
    sign = 1 if kind == "Forgetting" else -1
    for i, row in enumerate(TASKS):
        for j, task in enumerate(TASKS):
            name = f"Experience{kind}/eval_phase/test_stream/Task00{j}/Exp00{j}"
            if j < i:
                lost = cell(run.matrix, task, task) - cell(run.matrix, row, task)
                assert run.emitted[row][name] == run.emitted[row][f"Stock{name}"] == sign * lost
            else:
                assert name not in run.emitted[row]
                assert f"Stock{name}" not in run.emitted[row]


@pytest.mark.parametrize("kind", ["Forgetting", "BWT"])
def test_avalanches_own_metrics_say_the_same_of_the_stream(run: Run, kind: str) -> None:
    name = f"Stream{kind}/eval_phase/test_stream"
    sign = 1 if kind == "Forgetting" else -1
    for i in (1, 2):
        row = TASKS[i]
        lost = [cell(run.matrix, task, task) - cell(run.matrix, row, task) for task in TASKS[:i]]
        assert run.emitted[row][name] == pytest.approx(sign * sum(lost) / i, abs=1e-12)
        assert run.emitted[row][f"Stock{name}"] == pytest.approx(sign * sum(lost) / i, abs=1e-12)


def test_the_pure_functions_say_the_same_of_the_whole_run(run: Run) -> None:
    sequence = [row[1:] for row in run.matrix.scores]
    last = run.emitted["caption"]

    forgetting = last["StreamForgetting/eval_phase/test_stream"]
    assert forgetting != 0
    assert forgetting_first_last(sequence) == pytest.approx(forgetting, abs=1e-12)
    assert bwt_gem(sequence) == pytest.approx(last["StreamBWT/eval_phase/test_stream"], abs=1e-12)


def test_the_matrix_becomes_a_file(run: Run) -> None:
    file = run.matrix.as_file(kind="sequence", benchmark="drawn", strategy="seqft", model="random", seed=7)

    assert file.complete
    assert (file.tasks, file.task0, file.rows) == (["old", *TASKS], ["old"], ["initial", *TASKS])
    assert file.scores == run.matrix.scores
    assert file.summary()["bwt_gem"] == pytest.approx(bwt_gem([row[1:] for row in run.matrix.scores]))


def test_the_table_shows_every_cell(run: Run) -> None:
    header, *lines = str(run.matrix).splitlines()

    assert header.split() == ["old", *TASKS]
    assert [line.split()[0] for line in lines] == run.matrix.rows
    shown = [[float(text) for text in line.split()[1:]] for line in lines]
    assert shown == [[round(score, 1) for score in row if score is not None] for row in run.matrix.scores]


# ---- small runs ----


def strategy_with(matrix: ForgettingMatrix, model: LMM) -> SeqFT:
    return SeqFT(model=model, train_mb_size=8, evaluator=EvaluationPlugin(matrix, loggers=[]))


def test_what_is_not_evaluated_stays_open(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    matrix = ForgettingMatrix(benchmark)
    strategy = strategy_with(matrix, load())

    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream[1:2])

    assert matrix.rows == ["initial", "colour"]
    assert matrix.scores[0] == [None] * 4
    assert [score is None for score in matrix.scores[1]] == [True, True, False, True]
    assert str(matrix).splitlines()[1].split() == ["initial", "-", "-", "-", "-"]
    assert not matrix.as_file(kind="sequence", benchmark="b", strategy="s", model="m", seed=0).complete


def test_other_streams_fill_nothing_and_emit_nothing(
    load: Callable[..., LMM], benchmark: CLScenario, tmp_path: Path
) -> None:
    matrix = ForgettingMatrix(benchmark, predictions=tmp_path)
    strategy = strategy_with(matrix, load())

    for stream in (benchmark.train_stream, benchmark.validation_stream, benchmark.task0_train_stream):
        assert strategy.eval(stream[:1]) == {}

    assert matrix.scores == [[None] * 4]
    assert list(tmp_path.iterdir()) == []


def test_the_validation_stream_has_a_matrix_of_its_own(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    matrix = ForgettingMatrix(benchmark, stream="validation")
    strategy = strategy_with(matrix, load())

    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)
    strategy.eval(benchmark.task0_test_stream)
    assert matrix.scores == [[None] * 3] * 2
    metrics = strategy.eval(benchmark.validation_stream)

    assert (matrix.tasks, matrix.task0) == (TASKS, [])
    assert None not in matrix.scores[1]
    assert metrics["Score_Exp/eval_phase/validation_stream/Task002/Exp002"] == matrix.scores[1][2]
    assert metrics["Score_Stream/eval_phase/validation_stream"] == pytest.approx(sum(matrix.scores[1]) / 3)


def test_a_cell_evaluated_again_is_replaced(load: Callable[..., LMM], benchmark: CLScenario, tmp_path: Path) -> None:
    matrix = ForgettingMatrix(benchmark, predictions=tmp_path)
    strategy = SeqFT(
        model=load(trainable="all"),
        lr=1e-2,
        train_mb_size=4,
        train_epochs=4,
        eval_every=1,
        evaluator=EvaluationPlugin(matrix, loggers=[]),
    )

    strategy.train(benchmark.train_stream[0], eval_streams=[benchmark.test_stream[:1]])

    name = "Score_Exp/eval_phase/test_stream/Task000/Exp000"
    history = strategy.evaluator.get_all_metrics()[name][1]
    assert len(history) == 5
    assert len(set(history)) > 2
    assert matrix.rows == ["initial", "colour"]
    assert [row[1] for row in matrix.scores] == [history[0], history[-1]]
    assert len((tmp_path / "colour" / "colour.jsonl").read_text().splitlines()) == 6


def test_a_score_that_does_not_exist_is_refused_at_once(tasks: dict[str, Task]) -> None:
    benchmark = instruction_benchmark([replace(tasks["colour"], score="token_f2")])

    with pytest.raises(UserError, match="unknown score 'token_f2': did you mean 'token_f1'"):
        ForgettingMatrix(benchmark)


def test_a_file_of_answers_gives_the_scores_of_its_cell_again(
    tasks: dict[str, Task], load: Callable[..., LMM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = tasks["colour"].test
    options = test.map(lambda _: {"references": ["b"], "choices": ["cat", "dog"]}, features=test.features)
    benchmark = instruction_benchmark([replace(tasks["colour"], test=options, score="multiple_choice")])
    matrix = ForgettingMatrix(benchmark, predictions=tmp_path)
    strategy = SeqFT(model=load(trainable="all"), evaluator=EvaluationPlugin(matrix, loggers=[]))
    texts = iter(["Dog.", "b", "B", "a", "cat", "the dog"])
    monkeypatch.setattr(LMM, "generate", lambda self, batch: [next(texts) for _ in range(len(batch))])

    strategy.eval(benchmark.test_stream)

    answers = read_predictions(tmp_path / "initial" / "colour.jsonl")
    others = matrix.as_file(kind="sequence", benchmark="b", strategy="s", model="m", seed=0).other_scores
    again = {
        name: [[function(answers.predictions, answers.references, answers.choices).corpus]]
        for name, function in beside(get_score("multiple_choice")).items()
    }
    assert others == again
    assert again["multiple_choice_tolerant"] == [[pytest.approx(100 * 4 / 6)]]
    assert again["instruction_following"] == [[pytest.approx(100 * 2 / 6)]]
