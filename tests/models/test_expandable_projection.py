"""Keys, routing and the batched pass of the expandable projection, in closed form and one by one."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM
from avalanche_cit.models.expandable_projection import ExpandableProjection, Router, best_key, pull_loss

# --- Keys -------------------------------------------------------------------------------------------------------------


def test_pull_loss_by_hand() -> None:
    """Image queries at 0 and 60 degrees to the key, instruction queries at 90 and 180 degrees."""
    keys = (torch.tensor([2.0, 0.0]), torch.tensor([0.0, 3.0]))
    images = torch.tensor([[5.0, 0.0], [1.0, 3.0**0.5]])
    texts = torch.tensor([[1.0, 0.0], [0.0, -4.0]])

    assert float(pull_loss(keys, (images, texts))) == pytest.approx(0.1 * (0 + 0.5 + 1 + 2), abs=1e-6)


def test_gradient_of_the_pull_loss_by_hand() -> None:
    """d(1 - cos(q, k)) / dk = -(q^ - cos k^) / |k|, here with k = (2, 0) and q at 60 degrees."""
    key = torch.tensor([2.0, 0.0], dtype=torch.float64, requires_grad=True)
    text = torch.tensor([1.0], dtype=torch.float64)
    query = torch.tensor([[1.0, 3.0**0.5]], dtype=torch.float64)

    pull_loss((key, text), (query, torch.ones(1, 1, dtype=torch.float64))).backward()

    assert key.grad is not None
    assert key.grad.tolist() == pytest.approx([0.0, -0.1 * (3**0.5 / 2) / 2], abs=1e-9)


def test_the_best_key_is_where_gradient_descent_on_the_pull_loss_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(50, 6, generator=generator, dtype=torch.float64) + torch.tensor([3.0, 0, 0, 1, 0, 0])
    queries = queries * torch.rand(50, 1, generator=generator, dtype=torch.float64)  # lengths must not matter
    text = torch.ones(50, 1, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    key = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([key], lr=0.05)
    for _ in range(2000):
        optimizer.zero_grad()
        pull_loss((key, one), (queries, text)).backward()
        optimizer.step()

    best = best_key(queries)

    assert float(best.norm()) == pytest.approx(1.0)
    torch.testing.assert_close(nn.functional.normalize(key.detach(), dim=0), best, rtol=0, atol=1e-6)
    assert pull_loss((best, one), (queries, text)) <= pull_loss((key.detach(), one), (queries, text)) + 1e-12


# --- Routing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def projection() -> ExpandableProjection:
    """Experts 1 and 2 of tasks a and b beside the original; keys in the plane."""
    torch.manual_seed(0)
    made = ExpandableProjection(nn.Linear(4, 3))
    for task, angle in (("a", [1.0, 0.0]), ("b", [0.0, 1.0])):
        expert = made.plan(task)
        made.adaptation(None)
        made.add_keys(task, torch.tensor(angle), torch.tensor(angle), expert)
        nn.init.normal_(made.experts[expert].weight)
    made.trained |= {1, 2}
    return made


def test_the_sum_of_both_similarities_decides(projection: ExpandableProjection) -> None:
    image = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.6, 0.8], [0.1, 0.0]])
    text = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8], [0.7, -0.7]])
    image[1] = torch.tensor([1.0, 0.9])

    assert projection.route(image, text) == [1, 2, 2, 1]


def test_an_expert_that_was_never_trained_is_never_chosen(projection: ExpandableProjection) -> None:
    projection.trained.remove(2)

    assert projection.route(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])) == [1]
    projection.trained.remove(1)
    assert projection.route(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])) == [0]


def test_the_original_competes_only_for_task_0(projection: ExpandableProjection) -> None:
    down = torch.tensor([[0.0, -1.0]])
    assert projection.route(down, down) == [1]
    projection.add_keys("member", -torch.tensor([0.0, 1.0]), -torch.tensor([0.0, 1.0]), expert=0)
    assert projection.route(down, down) == [0]


def test_a_reused_expert_is_found_by_all_its_keys(projection: ExpandableProjection) -> None:
    projection.plan("c", reuse=1)
    projection.adaptation(None)
    projection.add_keys("c", torch.tensor([-1.0, 0.0]), torch.tensor([-1.0, 0.0]), expert=1)

    left, right = torch.tensor([[-1.0, 0.1]]), torch.tensor([[1.0, 0.1]])

    assert len(projection.experts) == 3
    assert projection.route(left, left) == projection.route(right, right) == [1]


# --- The pass ---------------------------------------------------------------------------------------------------------


def test_the_active_expert_projects(projection: ExpandableProjection) -> None:
    hidden = torch.randn(5, 2, 4)
    for expert in (2, 0, 1):
        projection.active = expert
        assert torch.equal(projection(hidden), projection.experts[expert](hidden))


def test_adaptation_trains_the_planned_expert_alone(projection: ExpandableProjection) -> None:
    def trainable() -> list[bool]:
        return [expert.weight.requires_grad for expert in projection.experts]

    assert trainable() == [False, False, True]
    assert projection.plan("c", reuse=1) == 1
    projection.adaptation(None)
    assert trainable() == [False, True, False]
    projection.adaptation(None)  # of an experience that is evaluated
    assert trainable() == [False, True, False]
    assert projection.plan("d") == 3
    projection.adaptation(None)
    assert trainable() == [False, False, False, True]
    assert torch.equal(projection.experts[3].weight, projection.experts[0].weight)


# --- In a model -------------------------------------------------------------------------------------------------------


@pytest.fixture
def routed(load: Callable[..., LMM], kind: str, samples: list[Any]) -> LMM:
    """A model with two wildly different experts beside the original, for the tasks colour and shape."""
    model = load(kind, trainable="projection")
    router = Router(model, lambda texts: torch.ones(len(texts), 2))
    classes = model.embed_images(model.collator(samples)[0])
    generator = torch.Generator().manual_seed(5)
    for task, sign in (("colour", 1), ("shape", -1)):
        expert = router.projection.plan(task)
        router.projection.adaptation(None)
        direction = nn.functional.normalize(sign * (classes[0] - classes[1]), dim=0)
        router.projection.add_keys(task, direction, torch.ones(2), expert)
        with torch.no_grad():
            for weight in router.projection.experts[expert].parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))
    router.projection.trained |= {1, 2}
    return model


def test_a_mixed_batch_answers_as_its_samples_alone(routed: LMM, samples: list[Any]) -> None:
    router = routed.router
    assert router is not None
    alone, experts = [], []
    for sample in samples:
        batch, _, _ = routed.collator([sample])
        alone += routed.generate(batch)
        experts += router.chosen
    batch, _, _ = routed.collator(samples)

    together = routed.generate(batch)

    assert router.chosen == experts
    assert len(set(experts)) > 1
    assert together == alone


def test_logits_of_a_mixed_batch_are_those_of_its_samples(routed: LMM, samples: list[Any]) -> None:
    batch, _, _ = routed.collator(samples)
    router = routed.router
    assert router is not None

    logits = routed(batch)

    assert len(set(router.chosen)) > 1
    for place, expert in enumerate(router.chosen):
        router.projection.active = expert
        alone = routed._logits(batch.select([place]))[0]
        torch.testing.assert_close(logits[place], alone, rtol=0, atol=1e-4)


def test_one_pass_per_expert_and_none_per_sample(routed: LMM, samples: list[Any]) -> None:
    router = routed.router
    assert router is not None
    passes: dict[int, int] = {}
    for number, expert in enumerate(router.projection.experts):
        expert.register_forward_hook(lambda module, inputs, output, n=number: passes.update({n: len(inputs[0])}))

    routed(routed.collator(samples)[0])

    assert passes == {expert: router.chosen.count(expert) for expert in set(router.chosen)}


def test_the_oracle_gives_every_sample_its_own_tasks_expert(routed: LMM, samples: list[Any]) -> None:
    router = routed.router
    assert router is not None
    known = [sample for sample in samples if sample[0].task.name != "caption"]
    batch, _, _ = routed.collator(known)
    with router.oracle():
        routed.generate(batch)
        assert router.chosen == [1 if task.name == "colour" else 2 for task in batch.tasks]
    routed.generate(batch)
    assert router.chosen == router.projection.route(*router.queries(batch))
    assert router.right(routed.collator(samples)[0]) is None  # caption has no expert yet


def test_with_no_keys_the_model_is_the_start_model(load: Callable[..., LMM], samples: list[Any]) -> None:
    plain, model = load(trainable="projection"), load(trainable="projection")
    Router(model, lambda texts: torch.ones(len(texts), 2))
    batch, _, _ = model.collator(samples)

    assert torch.equal(model(batch), plain(batch))
    assert model.generate(batch) == plain.generate(batch)


def test_plain_transformers_cannot_hold_experts(routed: LMM, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="EProj"):
        routed.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_the_projection_may_be_trainable(load: Callable[..., LMM]) -> None:
    model = load(trainable="bridge")
    before = copy.deepcopy(model.hf.state_dict())
    with pytest.raises(UserError, match="trainable='projection'"):
        Router(model, lambda texts: torch.ones(len(texts), 2))
    assert model.router is None
    assert before.keys() == model.hf.state_dict().keys()
