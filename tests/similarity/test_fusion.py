"""Similarity of tasks against numbers worked by hand, from one task to four."""

import math

import pytest
import torch
from torch import Tensor

from avalanche_cit.errors import UserError
from avalanche_cit.similarity import TaskEmbedding, cosines, fuse, standardise, task_similarity


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def symmetric(size: int, pairs: dict[tuple[int, int], float]) -> Tensor:
    matrix = torch.eye(size, dtype=torch.float64)
    for (j, k), value in pairs.items():
        matrix[j, k] = matrix[k, j] = value
    return matrix


def at(angle: float) -> Tensor:
    """A unit vector in the plane: the cosine of two is that of the angle between them."""
    return torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))])


def embeddings(*angles: tuple[float, float, float]) -> list[TaskEmbedding]:
    return [TaskEmbedding(at(image), at(text_input), at(text_output)) for image, text_input, text_output in angles]


def test_cosines_of_rows_of_any_length() -> None:
    rows = torch.tensor([[3.0, 4.0], [8.0, 6.0], [0.0, -5.0]])

    expected = symmetric(3, {(0, 1): 48 / 50, (0, 2): -20 / 25, (1, 2): -30 / 50})
    torch.testing.assert_close(cosines(rows), expected, rtol=0, atol=1e-12)


def test_three_cosines_are_standardised_over_their_pairs() -> None:
    # mean 0.4, deviations -0.2, 0, 0.2, unbiased variance 0.08 / 2, sd 0.2
    cosine = symmetric(3, {(0, 1): 0.2, (0, 2): 0.4, (1, 2): 0.6})

    expected = symmetric(3, {(0, 1): sigmoid(-1), (0, 2): 0.5, (1, 2): sigmoid(1)})
    torch.testing.assert_close(standardise(cosine), expected, rtol=0, atol=1e-12)


def test_four_cosines_are_standardised_over_their_six_pairs() -> None:
    # mean 0.3, sum of squares 4 * 0.01 + 2 * 0.04 = 0.12, unbiased variance 0.12 / 5
    values = {(0, 1): 0.2, (0, 2): 0.4, (0, 3): 0.1, (1, 2): 0.5, (1, 3): 0.2, (2, 3): 0.4}
    sd = math.sqrt(0.024)

    expected = symmetric(4, {pair: sigmoid((value - 0.3) / sd) for pair, value in values.items()})
    torch.testing.assert_close(standardise(symmetric(4, values)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("cosine", "similarity"), [(0.3, 0.3), (-0.3, 0.0), (1.0, 1.0)])
def test_a_single_pair_keeps_its_cosine_above_zero(cosine: float, similarity: float) -> None:
    assert torch.equal(standardise(symmetric(2, {(0, 1): cosine})), symmetric(2, {(0, 1): similarity}))


def test_one_task_is_similar_to_itself() -> None:
    assert standardise(torch.tensor([[0.9]])).tolist() == [[1.0]]
    assert task_similarity(embeddings((0, 10, 20))).tolist() == [[1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cosine", [0.1, 0.3, 0.7, 1.0])
def test_equal_cosines_give_a_half(cosine: float, dtype: torch.dtype) -> None:
    pairs = {(j, k): cosine for j in range(5) for k in range(j)}

    similarity = standardise(symmetric(5, pairs).to(dtype))

    assert torch.equal(similarity, symmetric(5, dict.fromkeys(pairs, 0.5)).to(dtype))


def test_cosines_a_little_apart_are_not_taken_for_equal() -> None:
    cosine = symmetric(3, {(0, 1): 0.5, (0, 2): 0.5 + 1e-6, (1, 2): 0.5 + 2e-6})

    expected = symmetric(3, {(0, 1): sigmoid(-1), (0, 2): 0.5, (1, 2): sigmoid(1)})
    torch.testing.assert_close(standardise(cosine), expected, rtol=0, atol=1e-6)


def test_rounding_of_equal_tasks_is_not_blown_up() -> None:
    # in single precision the cosines of equal vectors differ by 1e-7, which standardising would turn into 0.2 or 0.8
    vector = torch.nn.functional.normalize(torch.randn(768, generator=torch.Generator().manual_seed(0)), dim=0)
    other = torch.nn.functional.normalize(torch.randn(768, generator=torch.Generator().manual_seed(1)), dim=0)

    same = standardise(cosines(torch.stack([vector] * 6)))
    one_apart = standardise(cosines(torch.stack([vector] * 5 + [other])))

    assert torch.equal(same, symmetric(6, {(j, k): 0.5 for j in range(6) for k in range(j)}))
    assert one_apart[:5, :5][~torch.eye(5, dtype=torch.bool)].unique().numel() == 1


def test_product_and_mean_of_the_modalities() -> None:
    matrices = [symmetric(2, {(0, 1): value}) for value in (0.5, 0.4, 0.9)]

    torch.testing.assert_close(fuse(matrices), symmetric(2, {(0, 1): 0.18}))
    torch.testing.assert_close(fuse(matrices, "product"), fuse(matrices))
    torch.testing.assert_close(fuse(matrices, "mean"), symmetric(2, {(0, 1): 0.6}))


def test_an_unknown_fusion_is_named_with_the_near_miss() -> None:
    with pytest.raises(UserError, match="unknown fusion 'produkt': did you mean 'product'"):
        fuse([torch.eye(2)], "produkt")
    with pytest.raises(UserError, match="unknown fusion 'max'"):
        task_similarity(embeddings((0, 0, 0)), "max")


def test_two_tasks_by_hand() -> None:
    # cosines 0.5 (60 degrees), 0 (90 degrees) and below 0 (120 degrees)
    pair = embeddings((0, 0, 0), (60, 60, 60))
    assert task_similarity(pair)[1, 0] == pytest.approx(0.125, abs=1e-6)
    assert task_similarity(pair, "mean")[1, 0] == pytest.approx(0.5, abs=1e-6)
    apart = embeddings((0, 0, 0), (60, 60, 120))
    assert task_similarity(apart)[1, 0] == 0
    assert task_similarity(apart, "mean")[1, 0] == pytest.approx(1 / 3, abs=1e-6)


def test_three_tasks_by_hand() -> None:
    # image: angles 0, 90, 180: cosines 0, 0 and -1: mean -1/3, sd sqrt((1/9 + 1/9 + 4/9) / 2) = 0.57735, z 0.57735
    # twice and -1.15470; text input: equal tasks, all 1/2; text output: angles 0, 180, 90
    matrix = task_similarity(embeddings((0, 7, 0), (90, 7, 180), (180, 7, 90)))

    near, far = sigmoid(1 / math.sqrt(3)), sigmoid(-2 / math.sqrt(3))
    pairs = {(0, 1): near * 0.5 * far, (0, 2): far * 0.5 * near, (1, 2): near * 0.5 * near}
    torch.testing.assert_close(matrix, symmetric(3, pairs).float(), rtol=0, atol=1e-6)
    assert matrix.dtype == torch.float32


def test_similarity_depends_on_the_tasks_seen_so_far() -> None:
    tasks = embeddings((0, 0, 0), (30, 40, 50), (80, 10, 20), (10, 70, 90))

    assert not torch.allclose(task_similarity(tasks[:3]), task_similarity(tasks)[:3, :3])
    order = [2, 0, 3, 1]
    shuffled = task_similarity([tasks[i] for i in order])
    torch.testing.assert_close(shuffled, task_similarity(tasks)[order][:, order])


def test_nothing_given_is_changed() -> None:
    tasks = embeddings((0, 0, 0), (30, 40, 50), (80, 10, 20))
    before = [{name: vector.clone() for name, vector in task.as_tensors().items()} for task in tasks]
    rows, cosine = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]]), symmetric(3, {(0, 1): 0.9, (0, 2): 0.1})
    matrices = [symmetric(2, {(0, 1): 0.5}), symmetric(2, {(0, 1): 0.4})]
    given = [rows.clone(), cosine.clone(), *(matrix.clone() for matrix in matrices)]

    task_similarity(tasks)
    cosines(rows)
    standardise(cosine)
    fuse(matrices)
    standardise(matrices[0])

    for task, old in zip(tasks, before, strict=True):
        assert all(torch.equal(vector, old[name]) for name, vector in task.as_tensors().items())
    for tensor, old in zip([rows, cosine, *matrices], given, strict=True):
        assert torch.equal(tensor, old)
