"""What a run is made of, and what it costs, however many processes have carried it out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from avalanche.core import SupervisedPlugin

from avalanche_cit.errors import UserError
from avalanche_cit.logging.provenance import peak_memory


class RunRecord(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg,misc]
    """Adds up time and memory over the processes of a run, and refuses to go on with other data or another model.

    Args:
        ingredients: What the run is made of, as plain values; see `ingredients` in `provenance`.

    Example:
        >>> record = RunRecord(ingredients(model, tasks))
        >>> record.cost()
        {'wall_time_s': 0.0, 'peak_memory_mb': 812, 'processes': 1}
    """

    def __init__(self, ingredients: Mapping[str, Any]) -> None:
        super().__init__()
        self.ingredients = ingredients
        self._begin = time.monotonic()
        self._before: dict[str, Any] = {"wall_time_s": 0.0, "processes": 0}

    def cost(self) -> dict[str, Any]:
        """Return the seconds so far, the peak memory of each kind in MB, and the number of processes."""
        peaks = {name: max(peak, self._before.get(name, 0)) for name, peak in peak_memory().items()}
        seconds = self._before["wall_time_s"] + time.monotonic() - self._begin
        return {"wall_time_s": round(seconds, 1), **peaks, "processes": self._before["processes"] + 1}

    def state_dict(self) -> dict[str, Any]:
        """Return the ingredients, and the cost so far."""
        return {"ingredients": dict(self.ingredients), "cost": self.cost()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the cost of a `state_dict`.

        Raises:
            UserError: The ingredients are others; the message names them.
        """
        old, new = (
            _flat({name: made_of[name] for name in ("data", "model")})
            for made_of in (state["ingredients"], self.ingredients)
        )
        differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if differing:
            raise UserError(
                f"the run was begun with other data or another model: {', '.join(differing)} differ; "
                "restore them, or begin anew with another --output"
            )
        self._before = state["cost"]


def _flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{above}{key} ") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat
