"""The benchmark of speed: its sides do the same work, and its clocks count what they should."""

import importlib
import json
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode

from avalanche_cit.benchmarks import Task
from avalanche_cit.models import LMM
from avalanche_cit.models.feature_cache import FeatureFolder
from avalanche_cit.run_config import RunConfig
from avalanche_cit.training import EProj, SeqFT

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmark_speed.py"
Speed = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def speed(monkeypatch: pytest.MonkeyPatch) -> Speed:
    """The comparisons by file; they lie beside the script."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return lambda name: importlib.import_module(f"speed.{name}")


@pytest.fixture
def job(speed: Speed, folders: dict[str, Path], tasks: dict[str, Task]) -> Callable[..., Any]:
    """A job over two tasks of 12 and 8 samples, all in one batch and without a warm-up unless said otherwise."""

    def job(**options: Any) -> Any:
        small = {"tasks": [tasks["shape"], tasks["caption"]], "batch_size": 16, "epochs": 1, "warmup": 0.0}
        return speed("job").Job(str(folders["t5"]), device=torch.device("cpu"), **small | options)

    return job


@contextmanager
def updates() -> Iterator[list[int]]:
    """Count what any optimizer does meanwhile."""
    counted = [0]

    def count(*given: Any) -> None:
        counted[0] += 1

    hook = register_optimizer_step_post_hook(count)
    try:
        yield counted
    finally:
        hook.remove()


def run_of(speed: Speed, name: str, job: Any) -> tuple[LMM, Callable[[], object]]:
    """A loop by name: its model, and what carries it out.

    In double precision: in single precision AdamW's first step makes as much of a gradient that is zero but for
    rounding, such as that of a bias of keys, as of any other.
    """
    loops, tuning = speed("loops"), speed("tuning")
    kind, _, trainable = name.partition(" of the ")
    model = job.load(trainable=trainable or "bridge", cached=kind.endswith("cached")).double()
    if kind.startswith("bare"):
        for experience in job.benchmark().train_stream:
            model.prepare(experience.dataset)
        return model, lambda: [loops.bare_loop(job, model, task) for task in job.tasks]
    if kind.startswith("trainer"):
        return model, lambda: loops.trainer_loop(job, model)
    if kind.startswith("naive"):
        naive = loops.stock_naive(job, model)
        return model, lambda: loops.naive_loop(naive, job.benchmark())
    strategy = (EProj if kind.startswith("eproj") else SeqFT)(model=model, **tuning.options(job))
    return model, lambda: [strategy.train(experience) for experience in job.benchmark().train_stream]


LOOPS = ("bare", "bare, cached", "trainer", "naive", "ours", "ours, cached")


def test_all_loops_do_the_same_update(speed: Speed, job: Any, tasks: dict[str, Task]) -> None:
    """On one batch that holds all samples, the order of the data does not matter."""
    one = job(tasks=[tasks["shape"]])
    start = {name: weight.clone() for name, weight in one.load(cached=False).double().named_parameters()}
    tuned: dict[str, dict[str, Tensor]] = {}
    for name in LOOPS:
        model, work = run_of(speed, name, one)
        with updates() as counted:
            work()
        assert counted == [1], name
        tuned[name] = {key.replace(".tower", ""): weight.detach() for key, weight in model.named_parameters()}
        changed = {key for key, weight in tuned[name].items() if not torch.equal(weight, start[key])}
        assert changed == {key for key, weight in model.named_parameters() if weight.requires_grad}, name

    for name in LOOPS:
        for key, weight in tuned[name].items():
            expected = tuned["bare"][key]
            if name == "naive" and weight.ndim < 2 and key in changed:  # these decay there, too
                expected = expected - one.lr * one.weight_decay * start[key]
            torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-8, msg=f"{name}: {key}")


@pytest.mark.parametrize("name", LOOPS)
def test_all_loops_do_as_many_updates(speed: Speed, job: Any, name: str) -> None:
    _, work = run_of(speed, name, job(batch_size=5, epochs=2, warmup=0.03))
    with updates() as counted:
        work()
    assert counted == [2 * (3 + 2)]  # of 12 and of 8 samples


def test_trainer_tunes_the_projection_that_eproj_copies(speed: Speed, job: Any, tasks: dict[str, Task]) -> None:
    one = job(tasks=[tasks["shape"]])
    (trainer, work), (eproj, expand) = (
        run_of(speed, f"{name} of the projection", one) for name in ("trainer", "eproj, cached")
    )
    work()
    expand()

    expert = eproj.hf.language_projection.experts[1]
    before = eproj.hf.language_projection.experts[0]
    assert not torch.equal(expert.weight, before.weight)
    torch.testing.assert_close(expert.weight, trainer.hf.language_projection.weight, rtol=1e-6, atol=1e-8)


# --- Clocks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(speed: Speed, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes on only where a test says so."""
    time = [0.0]
    for name in ("rounds", "whole_run", "growth"):
        monkeypatch.setattr(speed(name), "now", lambda device: time[0])
    return time


def test_sides_take_turns_and_the_first_round_does_not_count(speed: Speed, clock: list[float]) -> None:
    rounds = speed("rounds")
    begun = []

    def side(name: str, takes: float) -> Any:
        def prepare() -> Callable[[], None]:
            clock[0] += 100  # which does not count

            def work() -> None:
                begun.append(name)
                clock[0] += takes + 50 * (len(begun) <= 3)  # slow before it is warm

            return work

        return rounds.Side(name, prepare)

    seconds = rounds.alternate([side("a", 1), side("b", 2), side("c", 3)], 2, torch.device("cpu"))

    assert seconds == {"a": [1, 1], "b": [2, 2], "c": [3, 3]}
    assert "".join(begun) == "abcbcacab"


def test_ratios_and_rates(speed: Speed) -> None:
    rounds = speed("rounds")
    seconds = {"ours": [2.0, 4.0, 1.0], "other": [3.0, 3.0, 3.0]}

    ratio = rounds.times_as_fast("key", 1.5, seconds, "ours", "other")

    assert (ratio.rounds, ratio.value, ratio.demand, ratio.met) == ([1.5, 0.75, 3.0], 1.5, ">= 1.50", True)
    assert ratio.plain() | {"least": 0.75, "greatest": 3.0, "met": True} == ratio.plain()
    assert not rounds.times_as_fast("key", 1.51, seconds, "ours", "other").met
    assert rounds.rates(seconds, 12)["ours"] == {"median": 6.0, "least": 3.0, "greatest": 12.0}
    assert [rounds.Ratio("key", [1.0], value, 1.25, at_most=True).met for value in (1.25, 1.26)] == [True, False]


def test_a_whole_run_and_its_bare_steps_take_turns(
    speed: Speed, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, training = speed("whole_run"), importlib.import_module("avalanche_cit.training.templates")
    sizes = {"train_samples": 6, "validation_samples": 2, "test_samples": 2, "epochs": 1}
    monkeypatch.setattr(whole, "QUICK", sizes)
    bare: list[str] = []
    kept: list[int] = []

    def bare_loop(job: Any, model: LMM, task: Task) -> None:
        bare.append(task.name)
        assert model.vision_features is not None
        kept.append(len(model.vision_features))
        clock[0] += 10

    def slow(method: Callable[..., Any], takes: float) -> Callable[..., Any]:
        def slowed(*given: Any, **options: Any) -> Any:
            clock[0] += takes
            return method(*given, **options)

        return slowed

    monkeypatch.setattr(whole, "bare_loop", bare_loop)
    monkeypatch.setattr(LMM, "generate", slow(LMM.generate, 1))  # once a cell, of two samples
    training_epoch = training.InstructionTuning.training_epoch
    monkeypatch.setattr(training.InstructionTuning, "training_epoch", slow(training_epoch, 10))
    config = RunConfig(strategy="seqft", model="tiny-base", **sizes).resolved()

    found = whole.compare_run(config, runs=2)

    assert bare == ["flickr30k", "textcaps", "vqav2", "ocrvqa", "gqa"] * 3  # once for the warm-up
    assert kept == [30] * 15  # all images of all tasks: none is left to be computed within a clock
    (ratio,) = found.ratios
    assert ratio.rounds == [1.5] * 10  # 10 to train, 5 to evaluate a row, against 10
    assert ratio.value == (5 + 5 * 15) / 50  # and the first row
    assert found.details["seconds until the first task"] == [5, 5]


# --- Numbers ----------------------------------------------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Have features read wrongly from now on."""
    read = FeatureFolder.read
    monkeypatch.setattr(FeatureFolder, "read", lambda self, name, places: factor * read(self, name, places))


def test_evaluation_compares_the_texts(speed: Speed, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = job()
    found = speed("evaluation").compare_evaluation(one, rounds=1)

    assert found.details["samples"] == 12
    assert found.details["texts that differ"] == {"one at a time": 0, "ours": 0, "ours, cached": 0}
    assert [ratio.key for ratio in found.ratios] == ["eval_vs_batch1"]
    answers = speed("evaluation").answers_one_by_one(one.load(cached=False), one)
    assert len(set(answers.values())) > 3

    spoil(monkeypatch, -1)
    assert speed("evaluation").compare_evaluation(one, rounds=1).details["texts that differ"]["ours, cached"] > 0


def test_a_cache_that_changes_numbers_is_seen(speed: Speed, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(batch_size=5, epochs=2)
    same = speed("same_numbers").compare_numbers(one)
    assert (same["updates"], same["answers"], same["answers that differ"]) == (10, 12, 0)
    assert same["largest relative difference of losses"] < 1e-4

    spoil(monkeypatch, 1.1)
    assert speed("same_numbers").compare_numbers(one)["largest relative difference of losses"] > 1e-4


def test_growth_compares_whole_rounds_of_domains(speed: Speed) -> None:
    growth_of = speed("growth").growth_of
    seconds = [9.0, *(float(i % 9) for i in range(40))]  # the first task has nothing before it
    assert growth_of(seconds) == 1
    assert growth_of([*seconds[:-9], *(2 * value for value in seconds[-9:])]) == 2
    assert growth_of([5.0, 1.0, 2.0, 6.0]) == 6


def test_many_tasks_have_names_of_their_own(speed: Speed) -> None:
    tasks = speed("growth").many_tasks(11, {"train": 2, "validation": 1, "test": 1})
    names = [task.name for task in tasks]
    assert len(set(names)) == 11
    assert [name.rpartition("-")[0] for name in names[:2]] == [name.rpartition("-")[0] for name in names[9:]]
    assert tasks[0].train["target"] != tasks[9].train["target"]


@pytest.mark.parametrize("strategy", ["seqft", "replay", "ewc_tir", "eproj"])
def test_a_stream_of_many_tasks_is_measured(speed: Speed, strategy: str) -> None:
    found = speed("growth").grow(strategy, "tiny-base", tasks=3, samples=4, epochs=1)

    assert len(found["seconds"]) == len(found["megabytes"]) == 3
    assert min(*found["seconds"], *found["megabytes"]) > 0
    for kind, growth in found["growth"].items():
        assert growth == found[kind][2] / found[kind][1]


def test_memory_is_the_most_that_a_task_held(speed: Speed) -> None:
    memory = speed("growth").Memory()
    held = None
    for megabytes in (0, 64, 0):
        memory.begin()
        held = torch.ones(megabytes * 2**18)
        memory.after_update(None)
        del held
        memory.after_update(None)

    assert memory.peaks[1] - memory.peaks[0] > 50
    assert memory.peaks[1] - memory.peaks[2] > 50


def test_cost_model_is_fitted_by_one_constant(speed: Speed) -> None:
    cost = speed("cost")
    assert cost.fitted([(8.0, 1.0), (2.0, 1.0), (40.0, 10.0)]) == pytest.approx(4)

    found = cost.compare_cost(2, torch.device("cpu"), times=(1, 2))

    assert list(found["sizes"]) == ["1x", "2x"]
    cells = [cell for size in found["sizes"].values() for cell in size.values()]
    assert math.prod(cell["error"] + 1 for cell in cells) == pytest.approx(1)
    for cell in cells:
        assert 0 < cell["least"] <= cell["seconds"] <= cell["greatest"]
        predicted = cell["operations"] / found["operations per second"]
        assert cell["error"] == pytest.approx(predicted / cell["seconds"] - 1)


@pytest.mark.parametrize("times", [1, 2])
def test_cost_is_measured_of_what_is_predicted(speed: Speed, times: int) -> None:
    """What torch counts, by the sample; the parts lie between the marks, in this order."""
    cost = speed("cost")
    model = cost._Measured(times, torch.device("cpu"))
    model.hf.set_attn_implementation("eager")
    vision, bridge, language, step = model.operations()

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.hf(**model._inputs)
    assert counter.get_total_flops() == cost.BATCH * (vision + bridge + language)
    with FlopCounterMode(display=False) as counter:
        before = [weight.clone() for weight in model.weights]
        model._step()
    assert 1 <= cost.BATCH * step / counter.get_total_flops() < 1.03
    assert not any(torch.equal(weight, old) for weight, old in zip(model.weights, before, strict=True) if old.ndim > 1)
    assert len(model.seconds()) == len(cost.PARTS)


def test_parts_are_timed_between_their_marks(speed: Speed, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    cost = speed("cost")
    monkeypatch.setattr(cost, "now", lambda device: clock[0])
    model = cost._Measured(1, torch.device("cpu"))

    def takes(part: str, seconds: float) -> None:
        def pass_time(*given: Any) -> None:
            clock[0] += seconds

        model.hf.get_submodule(part).register_forward_pre_hook(pass_time)

    takes("vision_model", 1)
    takes("qformer", 10)
    takes("language_model", 100)

    assert model.seconds() == (1, 10, 100, 111)


# --- Script -----------------------------------------------------------------------------------------------------------


def test_script_prints_and_writes_what_it_measured(
    script: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script(
        "--quick",
        "--parts",
        "tuning",
        "projection",
        "numbers",
        "--samples=8",
        "--batch-size=4",
        "--rounds=2",
        "--json=a.json",
    )

    found = json.loads((tmp_path / "a.json").read_text())
    ratios, details = found["ratios"], found["details"]
    assert set(ratios) == {
        "train_no_cache_vs_bare",
        "train_no_cache_vs_trainer",
        "train_no_cache_vs_avalanche",
        "train_cache_vs_trainer",
        "eproj_cache_vs_trainer",
    }
    for key, value in ratios.items():
        assert value == statistics.median(details[key]["rounds"])
        assert len(details[key]["rounds"]) == 2
    assert details["tuning"]["samples"] == 3 * 8  # a task of 8 samples, read as often as a run does by default
    assert details["numbers"]["answers that differ"] == 0
    assert details["hardware"]["threads"] == torch.get_num_threads()
    printed = capsys.readouterr().out
    assert all(key in printed for key in ratios)
    assert "answers that differ 0" in printed
    assert ">= 1.15" in printed


@pytest.mark.slow
def test_script_measures_growth_in_fresh_processes(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    script("--quick", "--parts", "growth")
    assert "eproj" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--parts", "tunings"], "error: unknown part 'tunings': did you mean 'tuning'?"),
        (["--rounds=0"], "error: --batch_size, --rounds and --samples must be above 0"),
        (["--json=nowhere/a.json"], "error: nowhere/a.json: there is no folder nowhere; make it first"),
    ],
)
def test_a_mistake_is_one_line(mistake: Any, arguments: list[str], line: str) -> None:
    assert mistake(*arguments).startswith(line)
