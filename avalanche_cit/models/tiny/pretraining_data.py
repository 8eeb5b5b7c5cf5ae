"""The pictures and texts that the tiny models are pre-trained on, drawn from the training splits of the mini world.

Pictures are held as arrays, because long-lived object heaps slow the training down; texts are made anew for every
batch from (seed, stage, step), which is also what makes a stopped pre-training resumable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from avalanche_cit.benchmarks.mini import language
from avalanche_cit.benchmarks.mini.draw import Box, draw_with_boxes
from avalanche_cit.benchmarks.mini.scenes import Scene, Split, sample_scene
from avalanche_cit.benchmarks.mini.vocabulary import COLOURS, DOMAINS, SHAPES, SIZES, WORDS
from avalanche_cit.models.tiny.architecture import IMAGE_SIDE, PATCH

GRID = IMAGE_SIDE // PATCH
HEADS = {
    "shape": 1 + len(SHAPES),
    "colour": 1 + len(COLOURS),
    "size": 1 + len(SIZES),
    "word": 1 + len(WORDS),
    "cell": 9,
}
"""What the vision stage predicts for every patch (classes; 0 stands for nothing there, except in ``cell``)."""

DENSE_PROMPT = "A dense image description."
CAPTION_PROMPT = "A short image description."
QUESTION_PROMPT = "Question: {question} Short answer:"
CHOICE_PROMPT = "Question: {question} Options: {options} Short answer:"

Ask = Callable[[Scene, np.random.Generator], language.Asked]
ASK: dict[str, Ask] = {
    "room": language.ask_room,
    "gallery": language.ask_gallery,
    "book": language.ask_book,
    "photo": language.ask_photo,
    "street": language.ask_street,
    "kitchen": language.ask_kitchen,
    "beach": language.ask_beach,
}
CAPTION: dict[str, Callable[[Scene], list[str]]] = {
    "park": language.park_captions,
    "wall": language.wall_captions,
    "table": language.table_captions,
}
TASK0_SHARES = {"kitchen": 1, "beach": 1, "wall": 1, "room": 5, "book": 2}
"""How often joint tuning draws each member of task 0 (OK-VQA, A-OKVQA, TextCaps, VQA v2, OCR-VQA): VQA v2 asks the most
kinds of questions, and is the largest general set in the real mixture too."""


@dataclass(frozen=True)
class Pictures:
    """Scenes with their pixels (N, 64, 64, 3; bytes) and the class of every patch under each head (N, 8, 8; int8)."""

    scenes: list[Scene]
    pixels: npt.NDArray[np.uint8]
    patches: dict[str, npt.NDArray[np.int8]]


def draw_pictures(count: int, split: Split, seed: int, domains: Sequence[str] = DOMAINS) -> Pictures:
    """Draw scenes of all domains in turn, from one split only."""
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(domains[i % len(domains)], split, rng) for i in range(count)]
    pixels = np.zeros((count, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    patches = {head: np.zeros((count, GRID, GRID), np.int8) for head in HEADS}
    centres = (np.arange(GRID) + 0.5) * PATCH
    cell = (centres / (IMAGE_SIDE / 3)).astype(np.int8)
    patches["cell"][:] = 3 * cell[:, None] + cell[None, :]
    for i, scene in enumerate(scenes):
        image, thing_boxes, sign_boxes = draw_with_boxes(scene)
        pixels[i] = np.asarray(image)
        if scene.unreadable:
            continue
        for thing, box in zip(scene.things, thing_boxes, strict=True):
            inside = _patches_in(box)
            patches["shape"][i][inside] = 1 + SHAPES.index(thing.shape)
            patches["colour"][i][inside] = 1 + COLOURS.index(thing.colour)
            patches["size"][i][inside] = 1 + SIZES.index(thing.size)
        for sign, box in zip(scene.signs, sign_boxes, strict=True):
            inside = _patches_in(box)
            patches["word"][i][inside] = 1 + WORDS.index(sign.word)
            patches["colour"][i][inside] = 1 + COLOURS.index(sign.colour)
    return Pictures(scenes, pixels, patches)


def _patches_in(box: Box) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = box
    edges = np.arange(GRID) * PATCH

    def covered(low: float, high: float) -> npt.NDArray[np.float64]:
        length: npt.NDArray[np.float64] = np.clip(np.minimum(edges + PATCH, high) - np.maximum(edges, low), 0, None)
        return length

    area = covered(top, bottom)[:, None] * covered(left, right)[None, :]
    return np.asarray(area >= min(0.4 * PATCH * PATCH, area.max()))


def instruction(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Return a prompt of the scene's own task and the text to answer with."""
    if scene.domain in CAPTION:
        return CAPTION_PROMPT, CAPTION[scene.domain](scene)[0]
    asked = ASK[scene.domain](scene, rng)
    if asked.choices:
        options = " ".join(f"({letter}) {choice}" for letter, choice in zip("abcd", asked.choices, strict=False))
        return CHOICE_PROMPT.format(question=asked.question, options=options), asked.answer
    return QUESTION_PROMPT.format(question=asked.question), asked.answer


def corpus(seed: int, count: int = 20_000) -> list[str]:
    """Return texts of every kind that the mini world can say; their words are the tokenizer's vocabulary."""
    rng = np.random.default_rng(seed)
    texts = [DENSE_PROMPT]
    for i in range(count):
        scene = sample_scene(DOMAINS[i % len(DOMAINS)], "train", rng)
        texts += [language.describe(scene), *instruction(scene, rng)]
        if scene.domain in CAPTION:
            texts += CAPTION[scene.domain](scene)
        else:
            texts += language_doubts(scene, rng)
    return texts


def language_doubts(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Return the answers that only a few annotators would give, so that they too are made of whole words."""
    return list(ASK[scene.domain](scene, rng).doubts)
