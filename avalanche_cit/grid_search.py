"""Grids of one option per strategy, tried out on the validation stream, and grown where the best value is their last.

Every strategy gets equally many values. Some strategies are another one with a part more, and start from the options
chosen for that one: penalties from SeqFT's learning rate, say. A best value on the edge of its grid is no proof of
being the best, so the grid is extended beyond that edge until the best value lies inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.evaluation.checked_json import is_number, read_yaml
from avalanche_cit.run_config import RunConfig, check_has_option

_NUMBERS = [field.name for field in fields(RunConfig) if "float" in str(field.type)]


@dataclass(frozen=True)
class Grid:
    """The values of one option that are tried for one strategy.

    Attributes:
        strategy: Name of the strategy.
        option: Name of the option.
        values: At least two numbers above 0, ascending.
        start_from: Strategy whose chosen options this one starts from, or None.

    Example:
        >>> grid = Grid("seqft", "lr", [1e-4, 1e-3], None)
        >>> grid.further({1e-4: 20.0, 1e-3: 30.0})
        0.01
        >>> grid.best({1e-4: 20.0, 1e-3: 30.0, 1e-2: 25.0})
        0.001
    """

    strategy: str
    option: str
    values: Sequence[float]
    start_from: str | None

    def best(self, scores: Mapping[float, float]) -> float:
        """Return the value with the highest score; of equal ones the most central."""
        ascending = sorted(scores)

        def depth(value: float) -> int:
            return min(ascending.index(value), len(ascending) - 1 - ascending.index(value))

        return max(ascending, key=lambda value: (scores[value], depth(value)))

    def further(self, scores: Mapping[float, float]) -> float | None:
        """Return the value to try next beyond the edge that the best one lies on, or None where it lies inside.

        The grid goes on by the ratio of its last two values, rounded to three digits.
        """
        ascending = sorted(scores)
        best = self.best(scores)
        if best == ascending[-1]:
            return float(f"{best * best / ascending[-2]:.3g}")
        if best == ascending[0]:
            return float(f"{best * best / ascending[1]:.3g}")
        return None


def read_grids(file: Path) -> list[Grid]:
    """Read grids from YAML, in the order in which they are to be tried.

    A line names a strategy, its option with the values, and perhaps the strategy that it starts from::

        seqft: {lr: [3.0e-4, 1.0e-3, 3.0e-3]}
        ewc: {lambda_: [10.0, 100.0, 1000.0], start_from: seqft}

    Raises:
        UserError: The file cannot be read, or a grid is wrong; the message names the strategy.
    """
    document = read_yaml(file)
    if not isinstance(document, dict) or not document:
        raise UserError(f"{file}: must hold a grid per strategy, such as 'seqft: {{lr: [0.0003, 0.001, 0.003]}}'")
    grids: list[Grid] = []
    for strategy, entry in document.items():
        try:
            grids.append(_grid(str(strategy), entry, [grid.strategy for grid in grids]))
        except UserError as error:
            raise UserError(f"{file}, {strategy}: {error}") from None
    sizes = {grid.strategy: len(grid.values) for grid in grids}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{strategy} {size}" for strategy, size in sizes.items())
        raise UserError(f"{file}: every strategy must have equally many values, here they have: {listed}")
    return grids


def _grid(strategy: str, entry: Any, earlier: Sequence[str]) -> Grid:
    if not isinstance(entry, dict):
        raise UserError("must be an option with its values, such as {lr: [0.0003, 0.001, 0.003]}")
    options = dict(entry)
    start_from = options.pop("start_from", None)
    if start_from is not None and start_from not in earlier:
        raise UserError(f"start_from is '{start_from}': it must be one of the strategies above")
    if len(options) != 1:
        raise UserError(f"must have one option, it has {len(options)}")
    ((option, values),) = options.items()
    if option not in _NUMBERS:
        raise unknown_name("option of a grid", str(option), _NUMBERS)
    check_has_option(strategy, option)
    if not isinstance(values, list) or len(values) < 2 or not all(is_number(value) and value > 0 for value in values):
        raise UserError(f"{option} must have at least two values, all numbers above 0 (write 1.0e-3, not 1e-3)")
    if sorted(set(values)) != values:
        raise UserError(f"the values of {option} must ascend")
    return Grid(strategy, option, [float(value) for value in values], start_from)
