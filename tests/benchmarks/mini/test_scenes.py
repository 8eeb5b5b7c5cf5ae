"""Scenes: splits that share nothing, and the rules of each image domain."""

from dataclasses import replace

import numpy as np
import pytest

from avalanche_cit.benchmarks.mini.scenes import Scene, Thing, sample_scene
from avalanche_cit.benchmarks.mini.vocabulary import COLOURS, DOMAINS, SHAPES, SIZES

SPLITS = ("train", "validation", "test")
THINGS = {
    **{"park": {1, 2, 3}, "wall": {1, 2}, "room": {1, 2, 3, 4}, "book": {1}, "gallery": {2, 3}, "photo": {1}},
    **{"street": {0, 1, 2}, "kitchen": {1, 2}, "beach": {1, 2}, "table": {1, 2, 3, 4}},
}
SIGN_ROWS = {
    **{"wall": {(0,), (2,)}, "book": {(0, 1, 2)}, "photo": {(), (2,)}, "street": {(0,), (2,), (0, 2)}},
    **{domain: {()} for domain in ("park", "room", "gallery", "kitchen", "beach", "table")},
}


def draw(domain: str, seed: int, count: int, split: str = "train") -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(domain, split, rng) for _ in range(count)]


def test_no_scene_of_one_split_occurs_in_another() -> None:
    split_of: dict[Scene, str] = {}
    scenes = seen_again = 0
    for domain in DOMAINS:
        for seed in (0, 1, 2):
            for split in SPLITS:
                for scene in draw(domain, 3 * seed + SPLITS.index(split), 60, split):
                    content = replace(scene, look=0)
                    seen_again += content in split_of
                    assert split_of.setdefault(content, split) == split
                    scenes += 1
    assert scenes == 5400
    assert seen_again > 100  # small domains do repeat themselves, so splits drawn at random would have met


def test_the_split_is_of_the_content_alone() -> None:
    contents = [
        Scene("photo", (Thing(shape, colour, size, cell),), (), unreadable, look=0)
        for shape in SHAPES
        for colour in COLOURS
        for size in SIZES
        for cell in range(6)
        for unreadable in (False, True)
    ]
    splits = [scene.split for scene in contents]
    assert [replace(scene, look=9).split for scene in contents] == splits
    shares = [splits.count(split) / len(contents) for split in SPLITS]
    assert shares == pytest.approx([5 / 8, 1 / 8, 2 / 8], abs=0.04)
    assert replace(contents[0], domain="beach").split in SPLITS


@pytest.mark.parametrize("domain", DOMAINS)
def test_scenes_keep_the_rules_of_their_domain(domain: str) -> None:
    scenes = draw(domain, 0, 400)
    assert {len(scene.things) for scene in scenes} == THINGS[domain]
    assert {tuple(sign.row for sign in scene.signs) for scene in scenes} == SIGN_ROWS[domain]
    assert {scene.unreadable for scene in scenes} == ({False, True} if domain == "photo" else {False})
    for scene in scenes:
        assert scene.domain == domain
        cells = [thing.cell for thing in scene.things]
        assert cells == sorted(set(cells))  # one thing a cell, in one order: equal content is equal
        assert len({(thing.shape, thing.colour) for thing in scene.things}) == len(cells)
        if domain != "book":
            assert not {cell // 3 for cell in cells} & {sign.row for sign in scene.signs}
    if domain == "book":
        assert all(scene.things[0].colour != scene.signs[0].colour for scene in scenes)
    assert len({scene.look for scene in scenes}) > 390
