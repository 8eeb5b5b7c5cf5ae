"""Numbers of a training step that stay on the device until they are fetched, many steps at a time.

Asking a device for a number makes the host wait until everything before it has been computed, and the device wait for
the host's next command after that. So a step asks for none. It leaves its numbers here, each with what is to be done
with it: log a loss, log a penalty, stop the training where it is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


class PendingNumbers:
    """Numbers to be fetched, in the order in which they were left.

    Example:
        >>> pending, losses = PendingNumbers(), []
        >>> pending.add(losses.append, torch.tensor(0.25))
        >>> pending.fetch()
        >>> losses
        [0.25]
    """

    def __init__(self) -> None:
        self._entries: list[tuple[Callable[..., None], Sequence[Tensor]]] = []

    def __len__(self) -> int:
        """Return how often something was left since the last time that all was fetched."""
        return len(self._entries)

    def add(self, then: Callable[..., None], *numbers: Tensor) -> None:
        """Leave numbers.

        Args:
            then: Called with the numbers when they are known.
            numbers: Tensors of one element each. They are copied: what becomes of them later does not matter.
        """
        self._entries.append((then, [number.detach().clone().reshape(()) for number in numbers]))

    def fetch(self) -> None:
        """Wait for the device, once per device and data type, and hand every number on.

        Where a call raises, what was left after it is dropped.
        """
        entries, self._entries = self._entries, []
        values = _values([number for _, numbers in entries for number in numbers])
        for then, numbers in entries:
            then(*[next(values) for _ in numbers])

    def clear(self) -> None:
        """Drop what was left."""
        self._entries = []


def _values(numbers: Sequence[Tensor]) -> Iterator[float]:
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, number in enumerate(numbers):
        groups.setdefault((number.device, number.dtype), []).append(place)
    values = [0.0] * len(numbers)
    for places in groups.values():
        for place, value in zip(places, torch.stack([numbers[place] for place in places]).tolist(), strict=True):
            values[place] = value
    return iter(values)
