"""Pictures: their form, and that they show what the scene says, where it says."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from avalanche_cit.benchmarks.mini.draw import draw_scene, draw_with_boxes
from avalanche_cit.benchmarks.mini.scenes import Scene, sample_scene
from avalanche_cit.benchmarks.mini.vocabulary import COLOURS, DOMAINS, RGB


def of(domain: str, count: int = 12) -> list[Scene]:
    rng = np.random.default_rng(2)
    return [sample_scene(domain, "train", rng) for _ in range(count)]


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(draw_scene(scene)).astype(float)


@pytest.mark.parametrize("domain", DOMAINS)
def test_pictures_are_64_by_64_rgb_and_always_the_same(domain: str) -> None:
    scene = of(domain, 1)[0]
    picture = draw_scene(scene)
    assert (picture.size, picture.mode) == ((64, 64), "RGB")
    assert picture.tobytes() == draw_scene(scene).tobytes() == draw_with_boxes(scene)[0].tobytes()
    assert picture.tobytes() != draw_scene(replace(scene, look=scene.look + 1)).tobytes()


def test_domains_have_colours_of_their_own() -> None:
    means = {domain: np.mean([pixels(scene) for scene in of(domain)], axis=(0, 1, 2)) for domain in DOMAINS}
    for one, other in combinations(DOMAINS, 2):
        assert np.linalg.norm(means[one] - means[other]) > 10, f"{one} and {other} look alike"


@pytest.mark.parametrize("domain", [domain for domain in DOMAINS if domain != "photo"])  # which are dimmed
def test_things_have_their_colour_place_and_size(domain: str) -> None:
    for scene in of(domain):
        picture, boxes, _ = draw_with_boxes(scene)
        shown = np.asarray(picture).astype(float)
        for thing, (left, top, right, bottom) in zip(scene.things, boxes, strict=True):
            x, y = (left + right) / 2, (top + bottom) / 2
            assert (int(y * 3 / 64), int(x * 3 / 64)) == divmod(thing.cell, 3)
            centre = shown[int(y), int(x)]
            assert min(COLOURS, key=lambda colour, centre=centre: np.abs(centre - RGB[colour]).sum()) == thing.colour
            assert (right - left > 14) == (thing.size == "large")


@pytest.mark.parametrize("domain", ["wall", "street", "book"])
def test_a_word_is_written_in_its_box_alone(domain: str) -> None:
    for scene in of(domain):
        for i, sign in enumerate(scene.signs):
            other = replace(sign, word="x" * len(sign.word))
            changed = replace(scene, signs=(*scene.signs[:i], other, *scene.signs[i + 1 :]))
            left, top, right, bottom = draw_with_boxes(scene)[2][i]
            assert 0 <= left < right <= 64
            assert 0 <= top < bottom <= 64
            difference = np.abs(pixels(scene) - pixels(changed)).sum(axis=2)
            assert difference[int(top) : int(bottom) + 1, int(left) : int(right) + 1].sum() == difference.sum() > 0


def test_unreadable_photographs_are_grainy() -> None:
    for scene in of("photo"):
        clear, spoilt = (pixels(replace(scene, unreadable=unreadable)) for unreadable in (False, True))
        assert np.abs(np.diff(spoilt, axis=1)).mean() > 1.5 * np.abs(np.diff(clear, axis=1)).mean()
