"""The random states of a process: Python's, NumPy's, torch's on the CPU, and torch's on every other device."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Return all random states as tensors and plain values, which `set_random_state` takes.

    Example:
        >>> state = random_state()
        >>> first = torch.rand(1)
        >>> set_random_state(state)
        >>> torch.rand(1) == first
        tensor([True])
    """
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, [int(key) for key in keys], position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Take over what `random_state` returned; of devices, as many as there are."""
    version, numbers, gauss = state["python"]
    name, keys, position, has_gauss, cached = state["numpy"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    for device, own in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(own, device)
    for own in state["mps"] if torch.backends.mps.is_available() else []:
        torch.mps.set_rng_state(own)


class OwnDraws:
    """Random states on the host that a piece of code has to itself, whatever is drawn around it.

    Args:
        seed: Numbers that decide all draws together.

    Example:
        >>> draws = OwnDraws((0, 1))
        >>> with draws.taking():
        ...     order = torch.randperm(3)  # depends on (0, 1) alone, and changes no draw outside
    """

    def __init__(self, seed: Sequence[int]) -> None:
        number = int(np.random.SeedSequence(tuple(seed)).generate_state(1)[0])
        self._python: Any = random.Random(number).getstate()
        self._numpy: Any = np.random.RandomState(number).get_state()
        self._torch = torch.Generator().manual_seed(number).get_state()

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Draw from the own states, which go on where they stopped the last time."""
        python, numpy, outside = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        try:
            yield
        finally:
            self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_rng_state(outside)
