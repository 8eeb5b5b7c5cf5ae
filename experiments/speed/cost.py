"""The cost model against the clock: models of three widths, each part's forward pass and a whole training step."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from benchmark_plugins import now
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from avalanche_cit.models.cost import Tokens, forward_operations, training_operations
from avalanche_cit.models.families import FAMILIES
from avalanche_cit.models.loading import model_folder
from avalanche_cit.models.trainable import select_trainable

TIMES = (1, 2, 4)
"""How many times as wide as the shipped models."""
TOKENS = Tokens(instruction=12, prompt=12, answer=6)
BATCH = 16
PARTS = ("vision tower", "bridge", "language model", "training step")


def compare_cost(rounds: int, device: torch.device, times: tuple[int, ...] = TIMES) -> dict[str, Any]:
    """Measure models of random weights, and predict what was measured from operations alone.

    One constant is fitted to all of it, the operations per second of this machine: the one with which the errors, as
    ratios, balance out.

    Returns:
        Plain values: ``operations per second``, and by size and part the ``operations`` and ``seconds`` per sample,
        the ``least`` and ``greatest`` of these, and the ``error``, predicted / measured - 1.
    """
    models = {wider: _Measured(wider, device) for wider in times}
    seconds: dict[int, list[tuple[float, ...]]] = {wider: [] for wider in times}
    for round_ in range(rounds + 1):  # the first one warms up
        for wider, model in models.items():
            gc.collect()
            taken = model.seconds()
            if round_ > 0:
                seconds[wider].append(taken)
    cells: dict[str, dict[str, dict[str, float]]] = {
        f"{wider}x": {
            part: {
                "operations": operations,
                "seconds": statistics.median(taken) / BATCH,
                "least": min(taken) / BATCH,
                "greatest": max(taken) / BATCH,
            }
            for part, operations, taken in zip(
                PARTS, model.operations(), zip(*seconds[wider], strict=True), strict=True
            )
        }
        for wider, model in models.items()
    }
    speed = fitted([(cell["operations"], cell["seconds"]) for size in cells.values() for cell in size.values()])
    for size in cells.values():
        for cell in size.values():
            cell["error"] = cell["operations"] / speed / cell["seconds"] - 1
    return {"operations per second": speed, "batch": BATCH, "sizes": cells}


def fitted(measured: list[tuple[float, float]]) -> float:
    """Return the operations per second that pairs of operations and seconds show: their geometric mean."""
    return math.exp(statistics.mean(math.log(operations / seconds) for operations, seconds in measured))


def widened(times: int) -> Any:
    """Return the configuration of the shipped models, some times as wide."""
    config = AutoConfig.from_pretrained(model_folder("tiny-base"))
    vision, former, text = config.vision_config, config.qformer_config, config.text_config
    for part in (vision, former):
        part.hidden_size *= times
        part.intermediate_size *= times
        part.num_attention_heads *= times
    former.encoder_hidden_size *= times
    text.d_model *= times
    text.d_ff *= times
    text.num_heads *= times
    return config


class _Measured:
    """A model of random weights whose Q-Former is tuned, and stopwatches at its parts."""

    def __init__(self, times: int, device: torch.device) -> None:
        self.config = widened(times)
        self.device = device
        self.hf = AutoModelForImageTextToText.from_config(self.config).to(device)
        family = FAMILIES[self.config.model_type]
        select_trainable(self.hf, family, "bridge", None)
        self.hf.train()
        self.weights = [weight for weight in self.hf.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-5, fused=True)
        self._marks: list[float] = []
        for name in (family.vision, family.language):
            part = self.hf.get_submodule(name)
            part.register_forward_pre_hook(self._mark)
            part.register_forward_hook(self._mark)
        self._inputs = dict(self._made())

    def operations(self) -> Iterator[int]:
        """Yield the operations per sample of `PARTS`."""
        forward = forward_operations(self.config, TOKENS)
        yield from (forward.vision, forward.bridge, forward.language)
        yield training_operations(self.config, TOKENS).total

    def seconds(self) -> tuple[float, ...]:
        """Measure a batch: the parts in a pass without gradients, and a training step."""
        with torch.no_grad():
            self._marks.clear()
            self.hf(**self._inputs)
        parts = [later - earlier for earlier, later in zip(self._marks, self._marks[1:], strict=False)]
        return (*parts, _timed(self._step, self.device))

    def _step(self) -> None:
        self.optimizer.zero_grad()
        self.hf(**self._inputs).loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()

    def _mark(self, *given: Any) -> None:
        self._marks.append(now(self.device))

    def _made(self) -> Iterator[tuple[str, torch.Tensor]]:
        config, letter = self.config, 5
        side = config.vision_config.image_size
        images = torch.full((BATCH, config.num_query_tokens), config.image_token_id)
        yield "pixel_values", torch.rand(BATCH, 3, side, side, device=self.device)
        yield "input_ids", nn.functional.pad(images, (0, TOKENS.prompt), value=letter).to(self.device)
        yield "qformer_input_ids", torch.full((BATCH, TOKENS.instruction), letter, device=self.device)
        yield "labels", torch.full((BATCH, TOKENS.answer), letter, device=self.device)


def _timed(work: Callable[[], None], device: torch.device) -> float:
    begin = now(device)
    work()
    return now(device) - begin
