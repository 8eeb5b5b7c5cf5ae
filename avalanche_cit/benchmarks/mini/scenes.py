"""Scenes of the mini world: what stands where, drawn at random under the rules of each image domain.

A scene's own content decides its split, so no scene of a training split can turn up in a test split,
whatever the seed and whichever task drew it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from avalanche_cit.benchmarks.mini.vocabulary import (
    AUTHORS,
    COLOURS,
    COLUMNS,
    ROWS,
    SHAPES,
    SIGN_WORDS,
    SIZES,
    TITLE_FIRST,
    TITLE_SECOND,
)

Split = Literal["train", "validation", "test"]
_SPLIT_OF_BUCKET: tuple[Split, ...] = ("train",) * 5 + ("validation",) + ("test",) * 2


@dataclass(frozen=True)
class Thing:
    """A coloured shape in a cell of the 3 x 3 grid (``cell`` = 3 * row + column)."""

    shape: str
    colour: str
    size: str
    cell: int

    @property
    def row(self) -> int:
        """Row of the cell, 0 at the top."""
        return self.cell // 3

    @property
    def column(self) -> int:
        """Column of the cell, 0 at the left."""
        return self.cell % 3

    @property
    def place(self) -> str:
        """The cell in words, such as ``"top left"``."""
        return f"{ROWS[self.row]} {COLUMNS[self.column]}"

    @property
    def name(self) -> str:
        """Colour and shape, such as ``"red circle"``."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Sign:
    """A written word on a coloured board, in one of the three rows."""

    word: str
    colour: str
    row: int


@dataclass(frozen=True)
class Scene:
    """All that is in one picture. ``look`` seeds what carries no meaning: jitter, shades, noise."""

    domain: str
    things: tuple[Thing, ...]
    signs: tuple[Sign, ...]
    unreadable: bool
    look: int

    @property
    def split(self) -> Split:
        """The split that this scene belongs to, by a checksum of its content without its look."""
        content = repr((self.domain, self.things, self.signs, self.unreadable))
        return _SPLIT_OF_BUCKET[zlib.crc32(content.encode()) % len(_SPLIT_OF_BUCKET)]


def sample_scene(domain: str, split: Split, rng: np.random.Generator) -> Scene:
    """Draw scenes of a domain until one belongs to the split."""
    while True:
        scene = _sample(domain, rng)
        if scene.split == split:
            return scene


def _sample(domain: str, rng: np.random.Generator) -> Scene:
    look = int(rng.integers(2**31))
    if domain == "book":
        words = (rng.choice(TITLE_FIRST), rng.choice(TITLE_SECOND), rng.choice(AUTHORS))
        cover = str(rng.choice(COLOURS))
        signs = tuple(Sign(str(word), cover, row) for row, word in enumerate(words))
        emblem = Thing(str(rng.choice(SHAPES)), _other(cover, rng), "small", 4)
        return Scene(domain, (emblem,), signs, False, look)
    if domain == "wall":
        sign_row = int(rng.choice((0, 2)))
        signs = (_sign(sign_row, rng),)
        return Scene(domain, _things(int(rng.integers(1, 3)), rng, free_rows=_without(sign_row)), signs, False, look)
    if domain == "street":
        rows = (0, 2) if rng.random() < 0.6 else (int(rng.choice((0, 2))),)
        signs = tuple(_sign(row, rng) for row in rows)
        return Scene(domain, _things(int(rng.integers(0, 3)), rng, free_rows=(1,)), signs, False, look)
    if domain == "photo":
        unreadable = bool(rng.random() < 0.25)
        signs = (_sign(2, rng),) if rng.random() < 0.4 else ()
        return Scene(domain, _things(1, rng, free_rows=(0, 1)), signs, unreadable, look)
    fewest, most = {"gallery": (2, 4), "kitchen": (1, 3), "beach": (1, 3), "park": (1, 4)}.get(domain, (1, 5))
    return Scene(domain, _things(int(rng.integers(fewest, most)), rng), (), False, look)


def _things(count: int, rng: np.random.Generator, free_rows: tuple[int, ...] = (0, 1, 2)) -> tuple[Thing, ...]:
    cells = sorted(rng.choice([3 * row + column for row in free_rows for column in range(3)], count, replace=False))
    names = rng.choice(len(SHAPES) * len(COLOURS), count, replace=False)  # no two of one shape and colour
    return tuple(
        Thing(SHAPES[name // len(COLOURS)], COLOURS[name % len(COLOURS)], str(rng.choice(SIZES)), int(cell))
        for name, cell in zip(names, cells, strict=True)
    )


def _sign(row: int, rng: np.random.Generator) -> Sign:
    return Sign(str(rng.choice(SIGN_WORDS)), str(rng.choice(COLOURS)), row)


def _other(colour: str, rng: np.random.Generator) -> str:
    return str(rng.choice([other for other in COLOURS if other != colour]))


def _without(row: int) -> tuple[int, ...]:
    return tuple(other for other in range(3) if other != row)
