"""Draws a scene as a 64 x 64 picture: a backdrop per image domain, shapes with outlines, words on boards."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from avalanche_cit.benchmarks.mini.scenes import Scene, Sign, Thing
from avalanche_cit.benchmarks.mini.vocabulary import RGB

SIDE = 64
_FINE = 2  # shapes are drawn this many times larger and then reduced, which smooths their edges
_RADIUS = {"small": 5.0, "large": 9.0}
_FONT = ImageFont.load_default_imagefont()
_LETTER_WIDTH = 6

Box = tuple[float, float, float, float]


def draw_scene(scene: Scene) -> Image.Image:
    """Return the picture of a scene, the same for the same scene."""
    return _draw(scene)[0]


def draw_with_boxes(scene: Scene) -> tuple[Image.Image, list[Box], list[Box]]:
    """Return the picture and where its things and signs are (left, top, right, bottom, in pixels)."""
    return _draw(scene)


def _draw(scene: Scene) -> tuple[Image.Image, list[Box], list[Box]]:
    rng = np.random.default_rng(scene.look)
    canvas = Image.fromarray(_backdrop(scene, rng)).resize((SIDE * _FINE,) * 2, Image.Resampling.NEAREST)
    brush = ImageDraw.Draw(canvas)
    thing_boxes = [_draw_thing(brush, thing, rng) for thing in scene.things]
    image = canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    brush = ImageDraw.Draw(image)
    sign_boxes = [_draw_sign(brush, sign, scene.domain, rng) for sign in scene.signs]
    if scene.domain == "photo":
        image = _photograph(image, scene.unreadable, rng)
    return image, thing_boxes, sign_boxes


def _backdrop(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The empty domain: (64, 64, 3) bytes."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    noise = rng.normal(0, 1, (SIDE, SIDE, 1))
    match scene.domain:
        case "park":
            horizon = rng.uniform(26, 38)
            sky = np.stack([150 + 0.9 * y, 195 + 0.5 * y, 235 + 0 * y], -1)
            grass = np.stack([96 + 0 * y, 160 - 0.5 * (y - 32), 84 + 0 * y], -1)
            picture = np.where((y < horizon)[..., None], sky, grass) + 5 * noise
        case "wall":
            shift = (y // 8 % 2) * 8
            mortar = (y % 8 < 1) | ((x + shift) % 16 < 1)
            picture = np.where(mortar[..., None], [205, 195, 185], [158, 96, 78]) + 6 * noise
        case "room":
            tiles = ((x // 8 + y // 8) % 2)[..., None]
            picture = np.where(tiles > 0, [198, 190, 172], [172, 160, 140]) + 3 * noise
        case "book":
            picture = np.full((SIDE, SIDE, 3), 120.0) - 18 * ((x + y) % 6 < 3)[..., None]
            cover = np.array(RGB[scene.signs[0].colour]) * 0.9
            inside = (x >= 5) & (x < 59) & (y >= 1) & (y < 63)
            picture = np.where(inside[..., None], cover, picture)
        case "gallery":
            picture = np.full((SIDE, SIDE, 3), 226.0) - 16 * (x % 10 < 3)[..., None] + 2 * noise
            frame = (x < 2) | (x >= 62) | (y < 2) | (y >= 62)
            picture = np.where(frame[..., None], [150, 110, 50], picture)
        case "photo":
            picture = np.stack([70 + 0.7 * x, 66 + 0.6 * y, 74 + 0.3 * (x + y)], -1) + 9 * noise
        case "street":
            picture = np.full((SIDE, SIDE, 3), 104.0) + 8 * noise
            picture[(np.abs(x - 32) < 1.5) & (y % 12 < 6)] = [225, 225, 205]
            picture[(x < 3) | (x >= 61)] = [150, 150, 160]
        case "kitchen":
            picture = np.full((SIDE, SIDE, 3), 1.0) * np.array([214, 226, 230]) + 2 * noise
            picture[(x % 16 < 1) | (y % 16 < 1)] = [170, 186, 196]
        case "beach":
            wave = 14 + 3 * np.sin(x / 6 + rng.uniform(0, 6))
            picture = np.where((y < wave)[..., None], [88, 178, 196], [232, 212, 164]) + 6 * noise
        case "table":
            grain = 10 * np.sin(y / 2.5 + 2 * np.sin(x / 14 + rng.uniform(0, 6)))
            picture = np.stack([150 + grain, 108 + grain, 66 + grain], -1) + 3 * noise
        case _:
            raise ValueError(f"no such image domain: {scene.domain}")
    return np.clip(picture + rng.uniform(-8, 8), 0, 255).astype(np.uint8)


def _draw_thing(brush: ImageDraw.ImageDraw, thing: Thing, rng: np.random.Generator) -> Box:
    cell = SIDE / 3
    jitter = rng.uniform(-1.5, 1.5, 2)
    cx, cy = cell * (thing.column + 0.5) + jitter[0], cell * (thing.row + 0.5) + jitter[1]
    r = _RADIUS[thing.size] + rng.uniform(-0.5, 0.5)
    fill = tuple(int(c) for c in np.clip(np.array(RGB[thing.colour]) + rng.uniform(-12, 12, 3), 0, 255))
    outline = (24, 24, 24)
    points = [((cx + r * px) * _FINE, (cy + r * py) * _FINE) for px, py in _OUTLINES[thing.shape]]
    brush.polygon(points, fill=fill, outline=outline, width=_FINE)
    return (cx - r, cy - r, cx + r, cy + r)


def _circle(n: int = 40) -> list[tuple[float, float]]:
    return [(math.cos(2 * math.pi * i / n), math.sin(2 * math.pi * i / n)) for i in range(n)]


def _star() -> list[tuple[float, float]]:
    radii = (1.12, 0.45)
    return [(radii[i % 2] * math.sin(math.pi * i / 5), -radii[i % 2] * math.cos(math.pi * i / 5)) for i in range(10)]


def _heart(n: int = 40) -> list[tuple[float, float]]:
    angles = [2 * math.pi * i / n for i in range(n)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15 - 0.1,
        )
        for t in angles
    ]


_A = 0.36
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": _circle(),
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0, -1), (1, 0.85), (-1, 0.85)],
    "star": _star(),
    "heart": _heart(),
    "cross": [
        *((-_A, -1), (_A, -1), (_A, -_A), (1, -_A), (1, _A), (_A, _A)),
        *((_A, 1), (-_A, 1), (-_A, _A), (-1, _A), (-1, -_A), (-_A, -_A)),
    ],
}


def _draw_sign(brush: ImageDraw.ImageDraw, sign: Sign, domain: str, rng: np.random.Generator) -> Box:
    width, height = _LETTER_WIDTH * len(sign.word) + 5, 12
    free = (SIDE - width) / 2 - 2
    left = round((SIDE - width) / 2 + (0 if domain == "book" else rng.uniform(-free, free)))
    top = {0: 3, 1: 15, 2: 49}[sign.row] if domain == "book" else {0: 4, 2: 47}[sign.row] + int(rng.integers(-1, 2))
    box = (left, top, left + width, top + height)
    if domain != "book":
        brush.rectangle(box, fill=RGB[sign.colour], outline=(24, 24, 24))
    dark = sign.colour in ("red", "green", "blue", "purple")
    brush.text((left + 3, top + 1), sign.word, font=_FONT, fill=(255, 255, 255) if dark else (0, 0, 0))
    return box


def _photograph(image: Image.Image, unreadable: bool, rng: np.random.Generator) -> Image.Image:
    """A hand-held snapshot: dim and slightly soft, or spoilt by blur and grain."""
    soft = image.filter(ImageFilter.GaussianBlur(6.0 if unreadable else rng.uniform(0.2, 0.5)))
    pixels = np.asarray(soft).astype(np.float32) * rng.uniform(0.75, 0.95)
    pixels += rng.normal(0, 22 if unreadable else 3, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
