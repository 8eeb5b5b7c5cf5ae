"""Random states are returned, taken over, and kept apart."""

import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from avalanche_cit.training.randomness import OwnDraws, random_state, set_random_state


def draws() -> list[float]:
    """Draw from every generator of the host, normal numbers too: NumPy's and Python's keep the second of a pair."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.rand(())),
        float(torch.randn(())),
    ]


def test_a_state_that_is_taken_over_is_drawn_from_again() -> None:
    draws()
    state = random_state()
    expected = [draws() for _ in range(400)]  # more than NumPy and Python have ready at once

    set_random_state(state)

    assert [draws() for _ in range(400)] == expected


def test_a_state_survives_json_but_for_its_tensors() -> None:
    state = random_state()
    plain = {name: state[name] for name in ("python", "numpy")}
    expected = draws()

    set_random_state({**state, **json.loads(json.dumps(plain))})

    assert draws() == expected
    assert state["torch"].dtype == torch.uint8
    assert state["cuda"] == [] or torch.cuda.is_available()


@pytest.mark.parametrize("generator", [0, 2, 4])
def test_every_generator_is_set(generator: int) -> None:
    state = random_state()
    expected = draws()[generator]
    draws()

    set_random_state(state)

    assert draws()[generator] == expected


def test_states_of_devices_that_are_not_there_are_left() -> None:
    state = random_state()

    set_random_state({**state, "cuda": [torch.zeros(16, dtype=torch.uint8)] * 2} if not state["cuda"] else state)


def test_own_draws_depend_on_their_seed_alone() -> None:
    def own(seed: tuple[int, ...], outside: int) -> list[list[float]]:
        random.seed(outside)
        np.random.seed(outside)
        torch.manual_seed(outside)
        own = OwnDraws(seed)
        drawn = []
        for _ in range(3):
            draws()
            with own.taking():
                drawn.append(draws())
        return drawn

    assert own((0, 1), outside=1) == own((0, 1), outside=2)
    others: list[Any] = [own(seed, outside=1) for seed in ((0, 1), (1, 0), (0, 2), (0,), (1, 1))]
    assert len({str(drawn) for drawn in others}) == len(others)


def test_own_draws_go_on_where_they_stopped() -> None:
    def drawn(parts: list[int]) -> list[list[float]]:
        own, found = OwnDraws((5,)), []
        for part in parts:
            with own.taking():
                found += [draws() for _ in range(part)]
        return found

    assert drawn([4]) == drawn([1, 3]) == drawn([2, 0, 2])


def test_own_draws_change_none_outside() -> None:
    state = random_state()
    expected = draws()
    set_random_state(state)

    own = OwnDraws((0,))
    with own.taking():
        draws()
    with pytest.raises(ZeroDivisionError), own.taking():
        draws()[0] / 0

    assert draws() == expected
