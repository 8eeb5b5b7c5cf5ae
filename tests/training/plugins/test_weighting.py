"""TIR and its controls against numbers worked by hand."""

import pytest
import torch

from avalanche_cit.training.plugins.weighting import weighted

OMEGA = [torch.tensor([[0.1, 0.2], [0.3, 0.0]]), torch.tensor([0.4])]
OWNER = [torch.tensor([[0, 1], [2, 0]], dtype=torch.int8), torch.tensor([1], dtype=torch.int8)]
SIMILARITY = torch.tensor([0.25, 1.0, 0.5])


def flat(parts: list[torch.Tensor]) -> list[float]:
    return torch.cat([part.flatten() for part in parts]).tolist()


def test_dissimilar_owners_stay_protected() -> None:
    result = weighted(OMEGA, OWNER, SIMILARITY)

    assert flat(result) == pytest.approx([0.075, 0.0, 0.15, 0.0, 0.0])
    assert [part.shape for part in result] == [part.shape for part in OMEGA]


def test_the_reversal_counts_similar_owners() -> None:
    assert flat(weighted(OMEGA, OWNER, SIMILARITY, weighting="similarity")) == pytest.approx([0.025, 0.2, 0.15, 0, 0.4])


def test_ones_are_the_importance_itself() -> None:
    result = weighted(OMEGA, OWNER, SIMILARITY, weighting="ones")

    assert flat(result) == flat(OMEGA)
    assert result[0].data_ptr() != OMEGA[0].data_ptr()


def test_similarity_0_is_the_importance_and_similarity_1_is_nothing() -> None:
    assert flat(weighted(OMEGA, OWNER, torch.zeros(3))) == flat(OMEGA)
    assert flat(weighted(OMEGA, OWNER, torch.ones(3))) == [0.0] * 5


def test_random_owners_are_drawn_evenly_and_by_the_generator_alone() -> None:
    omega, owner = [torch.ones(3000)], [torch.zeros(3000, dtype=torch.int8)]
    state = torch.get_rng_state()

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return weighted(omega, owner, SIMILARITY, weighting="random_owner", generator=generator)[0]

    one, same, other = draw(0), draw(0), draw(1)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    values, counts = one.unique(return_counts=True)
    assert values.tolist() == [0.0, 0.5, 0.75]
    assert min(counts.tolist()) > 900
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("weighting", ["dissimilarity", "similarity"])
def test_rescaled_to_the_same_sum(weighting: str) -> None:
    plain = weighted(OMEGA, OWNER, SIMILARITY, weighting=weighting)

    result = weighted(OMEGA, OWNER, SIMILARITY, weighting=weighting, rescale=True)

    factor = 1.0 / sum(flat(plain))
    assert flat(result) == pytest.approx([value * factor for value in flat(plain)])
    assert sum(flat(result)) == pytest.approx(1.0)


def test_nothing_left_to_rescale_stays_nothing() -> None:
    assert flat(weighted(OMEGA, OWNER, torch.ones(3), rescale=True)) == [0.0] * 5


def test_no_argument_is_changed() -> None:
    before = flat(OMEGA)

    weighted(OMEGA, OWNER, SIMILARITY, rescale=True)

    assert flat(OMEGA) == before
    assert SIMILARITY.tolist() == [0.25, 1.0, 0.5]
