"""Two or more ways of doing the same work, timed in turn, and the ratio of what they take."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from benchmark_plugins import now

FILLING = "seconds that filling the cache took"

Work = Callable[[], object]


@dataclass(frozen=True)
class Side:
    """One way of doing the work.

    Attributes:
        name: What it is called.
        prepare: Makes all that the clock does not count (a fresh model), and returns what it counts.
    """

    name: str
    prepare: Callable[[], Work]


@dataclass(frozen=True)
class Ratio:
    """One number that is asked for.

    Attributes:
        key: Its name.
        rounds: What each round gave.
        value: The number itself.
        asked: What it has to reach.
        at_most: Whether it must not be larger, rather than not smaller.
    """

    key: str
    rounds: list[float]
    value: float
    asked: float
    at_most: bool = False

    @property
    def demand(self) -> str:
        """What is asked, as text."""
        return f"{'<=' if self.at_most else '>='} {self.asked:.2f}"

    @property
    def met(self) -> bool:
        """Whether the number is as asked."""
        return self.value <= self.asked if self.at_most else self.value >= self.asked

    def plain(self) -> dict[str, Any]:
        """Return plain values."""
        spread = {"least": min(self.rounds), "greatest": max(self.rounds)}
        return {"value": self.value, **spread, "rounds": self.rounds, "asked": self.demand, "met": self.met}


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Attributes:
        ratios: The numbers that are asked for.
        details: Plain values beside them.
    """

    ratios: list[Ratio]
    details: dict[str, Any]


def alternate(sides: Sequence[Side], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Return the seconds of each side in each round, after one that is not counted.

    The sides take turns within a round, and each round begins with another one, so that whatever else slows the
    machine down, or warms it up, falls on all alike. Sides that are compared best stand beside each other.
    """
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for round_ in range(rounds + 1):
        first = round_ % len(sides)
        for side in [*sides[first:], *sides[:first]]:
            work = side.prepare()
            gc.collect()
            begin = now(device)
            work()
            taken = now(device) - begin
            if round_ > 0:
                seconds[side.name].append(taken)
    return seconds


def times_as_fast(key: str, asked: float, seconds: Mapping[str, list[float]], ours: str, other: str) -> Ratio:
    """Return how many times as fast one side was as another, round by round, and the median."""
    rounds = [theirs / own for theirs, own in zip(seconds[other], seconds[ours], strict=True)]
    return Ratio(key, rounds, statistics.median(rounds), asked)


def rates(seconds: Mapping[str, list[float]], samples: int) -> dict[str, dict[str, float]]:
    """Return the samples per second of each side: median, least and greatest."""
    return {
        name: {what: samples / pick(taken) for what, pick in (("median", statistics.median), *_LEAST_AND_GREATEST)}
        for name, taken in seconds.items()
    }


_LEAST_AND_GREATEST = (("least", max), ("greatest", min))  # of rates, which are greatest where seconds are least
