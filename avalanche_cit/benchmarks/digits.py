"""scikit-learn's handwritten digits as reading tasks: real handwriting that is on every machine (ours).

The set is the test part of the Optical Recognition of Handwritten Digits data (Alpaydin and Kaynak, UCI), 1,797 digits
of 8 x 8 pixels. Its first 70% make the pictures to train on, the next 10% those to validate and the last 20% those to
test on: a picture of one split shows no digit of another one. Annotations are written as LLaVA's conversations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from avalanche_cit.benchmarks.whole_folder import write_whole
from avalanche_cit.errors import UserError, unknown_name

VERSION = 1
"""Raised whenever the same seed would draw other pictures."""

SIDE = 64
SHARES = {"train": (0.0, 0.7), "validation": (0.7, 0.8), "test": (0.8, 1.0)}
Digits = npt.NDArray[np.float64]
Ask = Callable[[list[int]], tuple[str, str]]

_TASKS: dict[str, tuple[int, Ask]] = {
    "digit": (1, lambda digits: ("which digit is this?", str(digits[0]))),
    "number": (2, lambda digits: ("which number is written here?", f"{digits[0]}{digits[1]}")),
    "larger": (2, lambda digits: ("which digit is larger?", "left" if digits[0] > digits[1] else "right")),
}
TASKS = tuple(_TASKS)
"""One digit's name; two digits read from left to right; which of two unequal ones is larger."""


def draw_task(task: str, root: Path, *, seed: int, sizes: Mapping[str, int]) -> None:
    """Write pictures and ``<split>.json`` of one task into ``root/<task>``, unless it is already there.

    Args:
        task: One of `TASKS`.
        root: The folder of all tasks.
        seed: Which digits are drawn together.
        sizes: Number of samples per split, ``{"train": ..., "validation": ..., "test": ...}``.

    Raises:
        UserError: There is no such task, or a number is out of its range.
        OSError: The folder cannot be written.

    Example:
        >>> draw_task("number", Path("digits"), seed=0, sizes={"train": 100, "validation": 10, "test": 20})
    """
    if task not in _TASKS:
        raise unknown_name("task of the digits", task, TASKS)
    if seed < 0 or min(sizes.values()) < 1:
        raise UserError(f"digits with seed {seed} and {dict(sizes)} samples: seeds are 0 or above, samples at least 1")
    write_whole(root / task, lambda folder: _draw(task, folder, seed, sizes))


def _draw(task: str, folder: Path, seed: int, sizes: Mapping[str, int]) -> None:
    from sklearn.datasets import load_digits  # which takes a second to import

    rng = np.random.default_rng((VERSION, seed, TASKS.index(task)))
    images, labels = load_digits(return_X_y=True)
    count, ask = _TASKS[task]
    for split, (start, end) in SHARES.items():
        (folder / split).mkdir()
        part = slice(round(start * len(images)), round(end * len(images)))
        records = []
        for number in range(sizes[split]):
            chosen = _choose(labels[part], count, unequal=task == "larger", rng=rng)
            _picture(images[part][chosen].reshape(-1, 8, 8)).save(folder / split / f"{number}.png")
            question, answer = ask([int(labels[part][i]) for i in chosen])
            turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
            records.append({"id": f"{split}_{number}", "image": f"{split}/{number}.png", "conversations": turns})
        (folder / f"{split}.json").write_text(json.dumps(records), encoding="utf-8")


def _choose(
    labels: npt.NDArray[np.int64], count: int, *, unequal: bool, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    while True:
        chosen = rng.integers(len(labels), size=count)
        if not unequal or labels[chosen[0]] != labels[chosen[1]]:
            return chosen


def _picture(digits: Digits) -> Image.Image:
    """Dark digits on white, side by side, as large as they fit."""
    row = np.concatenate(list(digits), axis=1)
    scale = SIDE // row.shape[1]
    ink = Image.fromarray((255 - row * 255 / 16).astype(np.uint8)).resize(
        (row.shape[1] * scale, row.shape[0] * scale), Image.Resampling.BICUBIC
    )
    page = Image.new("L", (SIDE, SIDE), 255)
    page.paste(ink, (0, (SIDE - ink.height) // 2))
    return page.convert("RGB")
