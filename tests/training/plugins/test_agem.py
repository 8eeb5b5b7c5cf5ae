"""A-GEM: the projection by hand and against Avalanche's, the reference gradient, and the memory it is drawn from."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import AGEMPlugin as StockAGEM
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.storage_policy import ExperienceBalancedBuffer

from avalanche_cit.benchmarks import Task, instruction_benchmark
from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM, VisionFeatures
from avalanche_cit.training import SeqFT
from avalanche_cit.training.plugins.agem import AGEMPlugin, even_shares, project

Load = Callable[..., LMM]
Weights = dict[str, torch.Tensor]


class Exact(SeqFT):
    """Keeps the loss in float64 throughout; Avalanche starts it in float32."""

    def _make_empty_loss(self) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.float64)


class Observed(AGEMPlugin):
    """Notes memory batches, reference gradients by name, and how the step's gradient stands to them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches: list[Any] = []
        self.references: list[Weights] = []
        self.cleared: list[bool] = []
        self.raw: list[float] = []
        self.projected: list[float] = []

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        batch = strategy.mbatch
        super().before_training_iteration(strategy, **kwargs)
        assert strategy.mbatch is batch
        assert self._reference == [] or strategy.mb_output is None  # holds no graph
        names = {weight: name for name, weight in strategy.model.named_parameters()}
        self.references.append({names[weight]: gradient.clone() for weight, gradient in self._reference})
        self.cleared.append(all(weight.grad is None for weight in strategy.model.parameters()))

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        weights = dict(strategy.model.named_parameters())
        pairs = [(weights[name], reference) for name, reference in self.references[-1].items()]
        if pairs:
            self.raw.append(sum(float((weight.grad * reference).sum()) for weight, reference in pairs))
        super().after_backward(strategy, **kwargs)
        if pairs:
            self.projected.append(sum(float((weight.grad * reference).sum()) for weight, reference in pairs))

    def _draw(self, strategy: Any) -> Any:
        batch = super()._draw(strategy)
        self.batches.append(batch)
        return batch


def copied(model: LMM) -> Weights:
    return {name: weight.clone() for name, weight in model.trainable_state().items()}


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())


def held(plugin: AGEMPlugin) -> list[str]:
    """Ids of the samples in the memory."""
    return [plugin.buffer[i][0].row["id"] for i in range(len(plugin.buffer))]


def by_task(ids: list[str]) -> Counter[str]:
    return Counter(name.split("-")[0] for name in ids)


def dropout(model: LMM) -> LMM:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    return model


# ---- the projection ----


@pytest.mark.parametrize(
    ("gradient", "reference", "projected"),
    [
        ([-1.0, 1.0], [2.0, 0.0], [0.0, 1.0]),  # conflicting: what points against the reference is taken away
        ([1.0, -3.0, 2.0], [1.0, 1.0, 0.0], [2.0, -2.0, 2.0]),  # g.r = -2, r.r = 2
        ([-2.0, -4.0], [1.0, 2.0], [0.0, 0.0]),  # opposite
        ([1.0, 2.0], [3.0, -1.0], [1.0, 2.0]),  # agreeing
        ([1.0, 2.0], [-2.0, 1.0], [1.0, 2.0]),  # orthogonal
        ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]),  # nothing to go by
        ([-1.0, 5.0], [1e-30, 0.0], [-1.0, 5.0]),  # too small to square
    ],
)
def test_projection_by_hand(gradient: list[float], reference: list[float], projected: list[float]) -> None:
    whole, cut = [torch.tensor(gradient)], list(torch.tensor(gradient).split(1))

    project(whole, [torch.tensor(reference)])
    project(cut, list(torch.tensor(reference).split(1)))

    torch.testing.assert_close(whole[0], torch.tensor(projected), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.cat(cut), torch.tensor(projected), rtol=0, atol=1e-6)


def test_tensors_of_any_shape_make_one_vector() -> None:
    """The first tensor alone agrees, but the whole conflicts: g.r = 2 - 6 = -4, r.r = 1 + 3 = 4."""
    gradient = [torch.tensor([[2.0], [0.0]]), torch.tensor([-2.0, -2.0, -2.0])]
    reference = [torch.tensor([[1.0], [0.0]]), torch.ones(3)]

    project(gradient, reference)

    torch.testing.assert_close(gradient[0], torch.tensor([[3.0], [0.0]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient[1], torch.tensor([-1.0, -1.0, -1.0]), rtol=0, atol=1e-6)
    assert torch.equal(reference[1], torch.ones(3))


def test_an_agreeing_gradient_keeps_its_bits() -> None:
    torch.manual_seed(0)
    gradient, noise = torch.randn(1000), torch.randn(1000)
    reference = gradient + 0.1 * noise
    kept = gradient.clone()

    project([gradient], [reference])

    assert torch.equal(gradient, kept)


def test_the_projection_does_not_wait_for_its_device() -> None:
    """Tensors without values raise where a value is asked for."""
    gradient = [torch.empty(3, device="meta"), torch.empty(2, 2, device="meta")]

    project(gradient, [torch.empty_like(part) for part in gradient])

    with pytest.raises((RuntimeError, NotImplementedError)):
        float(gradient[0].sum())


def test_weights_without_a_gradient_take_no_part() -> None:
    both, idle, apart = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    both.grad, apart.grad = torch.tensor([-1.0, 1.0]), torch.tensor([5.0, 5.0])
    plugin = AGEMPlugin(1)
    plugin._reference = [(both, torch.tensor([2.0, 0.0])), (idle, torch.tensor([7.0, 7.0]))]

    plugin.after_backward(None)

    torch.testing.assert_close(both.grad, torch.tensor([0.0, 1.0]), rtol=0, atol=1e-6)
    assert idle.grad is None
    assert torch.equal(apart.grad, torch.tensor([5.0, 5.0]))


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_no_step_works_against_the_memory(load: Load, benchmark: CLScenario, kind: str) -> None:
    plugin = Observed(8, sample_size=8)
    strategy = SeqFT(model=load(kind), lr=1e-2, train_mb_size=4, train_epochs=3, plugins=[plugin])

    strategy.train(benchmark.train_stream[:2], eval_streams=[])

    assert len(plugin.raw) == 9
    assert min(plugin.raw) < -1e-3
    assert min(plugin.projected) > -1e-5
    turned = [after for before, after in zip(plugin.raw, plugin.projected, strict=True) if before < 0]
    kept = [(before, after) for before, after in zip(plugin.raw, plugin.projected, strict=True) if before >= 0]
    assert max(map(abs, turned)) < 1e-5
    assert all(before == after for before, after in kept)
    assert kept


def test_what_is_clipped_is_the_projected_gradient(load: Load, benchmark: CLScenario, record: Any) -> None:
    plugin = Observed(8, sample_size=8)
    options = {"train_mb_size": 4, "train_epochs": 3, "max_grad_norm": 0.01}
    strategy = SeqFT(model=load(), lr=1e-2, plugins=[plugin, record], **options)

    strategy.train(benchmark.train_stream[:2], eval_streams=[])

    assert min(plugin.raw) < -1e-3
    norms = [sum(float(part.pow(2).sum()) for part in gradient.values()) ** 0.5 for gradient in record.gradients]
    assert norms == pytest.approx([0.01] * 21, rel=1e-3)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_it_trains_what_avalanches_own_trains(load: Load, benchmark: CLScenario, record: Any, kind: str) -> None:
    """Everything trainable, and a memory that every memory batch holds whole."""
    trained = []
    ours = Observed(16, sample_size=16)
    for plugin in (ours, StockAGEM(patterns_per_experience=16, sample_size=16), None):
        model = load(kind, dtype=torch.float64, trainable="all")
        plugins = [record] if plugin is None else [plugin, record]
        strategy = Exact(model=model, lr=1e-2, train_mb_size=4, plugins=plugins)
        for experience in benchmark.train_stream[:2]:
            strategy.train(experience, eval_streams=[])
        trained.append(copied(model))

    assert record.ids[:7] == record.ids[7:14]
    assert min(ours.raw) < -1e-3  # some steps are turned
    for name, weight in trained[0].items():
        torch.testing.assert_close(weight, trained[1][name], rtol=0, atol=1e-9)
    assert max(float((weight - trained[2][name]).abs().max()) for name, weight in trained[0].items()) > 1e-3


# ---- the reference gradient ----


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_the_reference_is_the_gradient_of_the_memory_batch(
    load: Load, benchmark: CLScenario, kind: str, bf16: bool, micro_batch_size: int | None
) -> None:
    class Now(SupervisedPlugin):
        def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            weights.append(copied(strategy.model))

    dtype = torch.float32 if bf16 else torch.float64
    weights: list[Weights] = []
    sizes: list[int] = []
    plugin = Observed(8, sample_size=5)
    options = {"train_mb_size": 6, "micro_batch_size": micro_batch_size, "bf16": bf16}
    strategy = Exact(model=load(kind, dtype=dtype), lr=1e-2, plugins=[Now(), plugin], **options)
    strategy.model.register_forward_pre_hook(lambda model, inputs: sizes.append(len(inputs[0])))
    strategy.train(benchmark.train_stream[:2], eval_streams=[])
    assert sizes[-4:] == ([3, 2, 3, 3] if micro_batch_size else [5, 6, 5, 6])  # memory, batch

    assert plugin.references[:3] == [{}, {}, {}]
    assert [len(batch[0]) for batch in plugin.batches] == [5, 5]
    assert all(plugin.cleared[3:])
    model = load(kind, dtype=dtype)
    for state, (x, y, _), reference in zip(weights[3:], plugin.batches, plugin.references[3:], strict=True):
        model.load_trainable_state(state)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits.to(dtype), y)
        named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        gradients = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        assert reference.keys() == gradients.keys()
        size = max(float(gradient.abs().max()) for gradient in gradients.values())
        assert size > 0.01
        for name, gradient in gradients.items():
            tolerance = 0.02 * size if bf16 and micro_batch_size else 1e-6
            torch.testing.assert_close(reference[name], gradient, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_micro_batches_change_nothing(load: Load, benchmark: CLScenario, record: Any, kind: str) -> None:
    trained, plugins = [], []
    for size in (None, 1, 3):
        plugins.append(Observed(8))
        options = {"train_mb_size": 4, "train_epochs": 2, "micro_batch_size": size, "max_grad_norm": None}
        model = load(kind, dtype=torch.float64)
        Exact(model=model, lr=1e-2, plugins=[plugins[-1], record], **options).train(
            benchmark.train_stream[:2], eval_streams=[]
        )
        trained.append(copied(model))

    assert min(plugins[0].raw) < 0
    for number, (weights, plugin) in enumerate(zip(trained, plugins, strict=True)):
        for name, weight in weights.items():
            torch.testing.assert_close(weight, trained[0][name], rtol=0, atol=1e-6)
        for step in range(8, 14):  # the second task's
            for name, gradient in record.gradients[14 * number + step].items():
                torch.testing.assert_close(gradient, record.gradients[step][name], rtol=0, atol=1e-6)
                torch.testing.assert_close(
                    plugin.references[step][name], plugins[0].references[step][name], rtol=0, atol=1e-6
                )


def test_frozen_weights_get_no_gradient(load: Load, benchmark: CLScenario, record: Any) -> None:
    model = load(trainable="projection")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    plugin = Observed(8)

    SeqFT(model=model, lr=1e-2, train_mb_size=6, plugins=[plugin, record]).train(
        benchmark.train_stream[:2], eval_streams=[]
    )

    trainable = {"hf.language_projection.weight", "hf.language_projection.bias"}
    assert all(gradients.keys() == trainable for gradients in record.gradients)
    assert all(reference.keys() == trainable for reference in plugin.references[3:])
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == trainable


def test_it_holds_one_gradient_during_a_step_and_none_after(load: Load, benchmark: CLScenario) -> None:
    class Weigh(SupervisedPlugin):
        def _weigh(self, strategy: Any, **kwargs: Any) -> None:
            parts = [reference for _, reference in plugin._reference]
            sizes.append(sum({part.data_ptr(): part.untyped_storage().nbytes() for part in parts}.values()))

        before_forward = before_update = _weigh

    plugin, sizes, model = AGEMPlugin(8), [], load()
    strategy = SeqFT(model=model, train_mb_size=8, plugins=[plugin, Weigh()])
    strategy.train(benchmark.train_stream[:2], eval_streams=[])

    size = sum(weight.numel() for weight in model.trainable_state().values())
    assert sizes == [0, 0] * 2 + [4 * size, 0] * 2
    tensors = [value for value in vars(plugin).values() if isinstance(value, torch.Tensor)]
    assert not tensors


# ---- beside other strategies ----


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_the_first_task_is_sequential_tuning_bit_for_bit(load: Load, benchmark: CLScenario, kind: str) -> None:
    trained = []
    for plugins in ([], [AGEMPlugin(8)]):
        model = dropout(load(kind, trainable="all"))
        strategy = SeqFT(model=model, lr=1e-2, train_mb_size=6, plugins=plugins)
        for experience in benchmark.train_stream[:2]:
            strategy.train(experience, eval_streams=[])
            trained.append(copied(model))

    assert same(trained[0], trained[2])
    assert not same(trained[1], trained[3])


def test_an_extra_evaluation_changes_no_weight(load: Load, benchmark: CLScenario) -> None:
    trained = []
    for options in ({}, {"eval_every": 1, "peval_mode": "iteration"}):
        model = dropout(load())
        strategy = SeqFT(model=model, lr=1e-2, train_mb_size=6, plugins=[AGEMPlugin(8)], **options)
        for experience in benchmark.train_stream[:2]:
            strategy.train(experience, eval_streams=[benchmark.test_stream[2]])
            if options:
                strategy.eval(benchmark.test_stream[:1])
        trained.append(copied(model))

    assert same(*trained)


# ---- the memory ----


def test_the_memory_is_of_fixed_size_and_shared_out_as_replays(load: Load, benchmark: CLScenario) -> None:
    plugin, replay = AGEMPlugin(7), ReplayPlugin(mem_size=7, storage_policy=Quiet(max_size=7))
    strategy = SeqFT(model=load(), train_mb_size=8, plugins=[plugin, replay])

    shares, ids = [], []
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
        ids.append(held(plugin))
        shares.append(by_task(ids[-1]))
        theirs = replay.storage_policy.buffer
        assert shares[-1] == by_task([theirs[i][0].row["id"] for i in range(len(theirs))])
        assert len(set(ids[-1])) == 7

    assert shares == [{"colour": 7}, {"colour": 4, "shape": 3}, {"colour": 3, "shape": 2, "caption": 2}]
    assert set(ids[2]) & set(ids[1]) > set(ids[2]) & set(ids[0])  # what is kept was kept before
    assert {name for name in ids[2] if name.startswith("colour")} < set(ids[0])


class Quiet(ExperienceBalancedBuffer):
    """Avalanche's buffer without its notice of deprecation."""

    def update(self, strategy: Any, **kwargs: Any) -> None:
        self.post_adapt(strategy, strategy.experience)


@pytest.mark.parametrize(("size", "tasks", "shares"), [(7, 3, [3, 2, 2]), (6, 3, [2, 2, 2]), (3, 3, [1, 1, 1])])
def test_shares(size: int, tasks: int, shares: list[int]) -> None:
    assert even_shares(size, tasks) == shares == ExperienceBalancedBuffer(size).get_group_lengths(tasks)


def test_task_0_is_in_the_memory_before_the_sequence(load: Load, benchmark: CLScenario) -> None:
    plugin = Observed(6, task0=benchmark.task0_train_stream)
    assert by_task(held(plugin)) == {"old": 4}  # all that there is

    strategy = SeqFT(model=load(), train_mb_size=8, plugins=[plugin])
    strategy.train(benchmark.train_stream[0], eval_streams=[])

    assert [by_task([row["id"] for row in batch[0].rows]) for batch in plugin.batches] == [{"old": 4}] * 2
    assert by_task(held(plugin)) == {"old": 3, "colour": 3}


def test_a_memory_batch_is_as_large_as_the_training_batch(load: Load, benchmark: CLScenario) -> None:
    sizes = []
    for memory, sample in ((12, None), (12, 3), (4, None), (4, 100)):
        plugin = Observed(memory, sample_size=sample)
        strategy = SeqFT(model=load(), train_mb_size=6, plugins=[plugin])
        strategy.train(benchmark.train_stream[:2], eval_streams=[])
        drawn = [[row["id"] for row in batch[0].rows] for batch in plugin.batches]
        assert all(len(set(ids)) == len(ids) for ids in drawn)
        sizes.append([len(ids) for ids in drawn])

    assert sizes == [[6, 6], [3, 3], [4, 4], [4, 4]]


def test_the_seed_decides_what_is_kept_and_drawn(load: Load, benchmark: CLScenario) -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(drawn))  # what others draw does not matter
        plugin = Observed(8, sample_size=4, seed=seed)
        SeqFT(model=load(), train_mb_size=4, plugins=[plugin]).train(benchmark.train_stream[:2], eval_streams=[])
        drawn.append([held(plugin), *([row["id"] for row in batch[0].rows] for batch in plugin.batches)])

    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert len({frozenset(ids) for ids in drawn[0][1:]}) == 3  # another batch every step


def test_nothing_is_drawn_from_anyone_elses_generator(load: Load, benchmark: CLScenario) -> None:
    class Look(SupervisedPlugin):
        def _look(self, strategy: Any, **kwargs: Any) -> None:
            states.append(torch.get_rng_state().tolist())

        before_training_exp = before_training_iteration = after_training_exp = _look

    states: list[list[int]] = []
    look = Look()
    strategy = SeqFT(model=load(), train_mb_size=6, plugins=[look, AGEMPlugin(7), look])
    strategy.train(benchmark.train_stream, eval_streams=[])

    assert len(states) == 2 * (3 * 2 + 3 + 2 + 2)
    assert states[::2] == states[1::2]


def test_experiences_of_many_tasks_are_named_by_their_number(load: Load, benchmark: CLScenario) -> None:
    experience = benchmark.train_stream[0]
    experience._dataset = experience.dataset.concat(benchmark.train_stream[1].dataset)
    plugin = AGEMPlugin(8)

    SeqFT(model=load(), train_mb_size=14, plugins=[plugin]).train(experience, eval_streams=[])

    assert list(plugin.state_dict()["places"]) == ["experience 0"]
    assert set(by_task(held(plugin))) == {"colour", "shape"}


# ---- saved state ----


@pytest.mark.parametrize("cached", [False, True])
def test_a_run_goes_on_from_a_saved_state_bit_for_bit(load: Load, benchmark: CLScenario, cached: bool) -> None:
    def run(model: LMM, plugin: AGEMPlugin, experiences: Any) -> None:
        SeqFT(model=model, lr=1e-2, train_mb_size=4, train_epochs=2, plugins=[plugin]).train(
            experiences, eval_streams=[]
        )

    def make() -> LMM:
        return load(vision_features=VisionFeatures() if cached else None)

    model, plugin = make(), AGEMPlugin(9, task0=benchmark.task0_train_stream)
    run(model, plugin, benchmark.train_stream[:2])
    weights, state = copied(model), plugin.state_dict()
    places = state["places"]
    assert list(places) == ["old", "colour", "shape"]
    assert all(indices.untyped_storage().nbytes() == 8 * len(indices) for indices in places.values())
    saved = {
        "places": {task: indices.clone() for task, indices in places.items()},
        "generator": state["generator"].clone(),
    }
    run(model, plugin, benchmark.train_stream[2])

    later, resumed = make(), Observed(9, seed=5)
    later.load_trainable_state(weights)
    resumed.load_state_dict(saved)
    run(later, resumed, benchmark.train_stream[2])

    assert same(later.trainable_state(), model.trainable_state())
    assert held(resumed) == held(plugin)
    assert {batch[0].images is None for batch in resumed.batches} == {cached}  # the cache knows the memory
    assert list(resumed.state_dict()["places"]) == ["old", "colour", "shape", "caption"]
    assert by_task(held(resumed)) == {"old": 3, "colour": 2, "shape": 2, "caption": 2}
    lost, empty = make(), AGEMPlugin(9)
    lost.load_trainable_state(weights)
    run(lost, empty, benchmark.train_stream[2])
    assert not same(lost.trainable_state(), model.trainable_state())


def test_an_empty_state_can_be_saved_too(load: Load, benchmark: CLScenario) -> None:
    plugin = AGEMPlugin(4, task0=benchmark.task0_train_stream)

    plugin.load_state_dict(AGEMPlugin(4).state_dict())
    SeqFT(model=load(), train_mb_size=8, plugins=[plugin]).train(benchmark.train_stream[0], eval_streams=[])

    assert set(by_task(held(plugin))) == {"colour"}


def test_a_state_of_other_data_is_refused(load: Load, tasks: dict[str, Task], benchmark: CLScenario) -> None:
    state = AGEMPlugin(4, task0=benchmark.train_stream[:2]).state_dict()
    state["places"]["shape"] = torch.tensor([3, 11])

    def go_on(*sequence: Task) -> None:
        plugin = AGEMPlugin(4)
        plugin.load_state_dict(state)
        first = instruction_benchmark(sequence).train_stream[0]
        SeqFT(model=load(), train_mb_size=8, plugins=[plugin]).train(first, eval_streams=[])

    with pytest.raises(UserError, match="samples of task 'shape', which this benchmark lacks"):
        go_on(tasks["colour"])
    smaller = dataclasses.replace(tasks["shape"], train=tasks["shape"].train.select(range(11)))
    with pytest.raises(UserError, match="more samples of task 'shape' than the 11"):
        go_on(tasks["colour"], smaller)


# ---- mistakes ----


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_below_1_are_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"memory_size is {size}"):
        AGEMPlugin(size)
    with pytest.raises(UserError, match=f"sample_size is {size}"):
        AGEMPlugin(4, sample_size=size)


def test_a_memory_smaller_than_the_number_of_tasks_is_refused(load: Load, benchmark: CLScenario) -> None:
    strategy = SeqFT(model=load(), train_mb_size=8, plugins=[AGEMPlugin(2)])
    strategy.train(benchmark.train_stream[:2], eval_streams=[])
    strategy.train(benchmark.train_stream[1], eval_streams=[])  # known already

    with pytest.raises(UserError, match=r"memory_size is 2, but 'caption' is task 3: .* make it 3 or more"):
        strategy.train(benchmark.train_stream[2], eval_streams=[])
    with pytest.raises(UserError, match=r"memory_size is 1, but 'shape' is task 2"):
        AGEMPlugin(1, task0=benchmark.train_stream[:2])
