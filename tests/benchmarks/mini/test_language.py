"""What is said about a scene is true of it: questions by an oracle that reads them, captions by what they mention."""

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from avalanche_cit.benchmarks.mini import language
from avalanche_cit.benchmarks.mini.language import Asked
from avalanche_cit.benchmarks.mini.scenes import Scene, Sign, Thing, sample_scene
from avalanche_cit.benchmarks.mini.vocabulary import COLOURS, DOMAINS, NUMBERS, SHAPES, SIGN_WORDS

ASK = {
    "room": language.ask_room,
    "gallery": language.ask_gallery,
    "book": language.ask_book,
    "photo": language.ask_photo,
    "street": language.ask_street,
    "kitchen": language.ask_kitchen,
    "beach": language.ask_beach,
}
KINDS = {
    "room": {"colour", "count", "exists", "at", "where", "relation"},
    "gallery": {"relation", "relation_colour", "verify", "size", "side"},
    "book": {"title", "author", "genre", "is_genre"},
    "photo": {"what", "colour", "read", "unanswerable"},
    "street": {"read", "read_by_colour", "sign_colour"},
    "kitchen": {"fruit", "meaning"},
    "beach": {"colour", "shape", "fruit", "count"},
}
COLOUR, SHAPE, PLACE = "|".join(COLOURS), "|".join(SHAPES), "(?:top|middle|bottom) (?:left|center|right)"
PLACES = [f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "center", "right")]


@pytest.fixture(scope="module")
def asked() -> dict[str, list[tuple[Scene, Asked]]]:
    """Of every domain that questions are asked about, 1500 scenes with a question each."""
    rng = np.random.default_rng(0)
    scenes = {domain: [sample_scene(domain, "train", rng) for _ in range(1500)] for domain in ASK}
    return {domain: [(scene, ASK[domain](scene, rng)) for scene in scenes[domain]] for domain in ASK}


# --- Questions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ASK)
def test_every_answer_is_true_and_the_only_one(
    domain: str, asked: dict[str, list[tuple[Scene, Asked]]], true_answer: Callable[[Scene, str], str]
) -> None:
    for scene, question in asked[domain]:
        answer = question.choices["abcd".index(question.answer)] if question.choices else question.answer
        assert answer == true_answer(scene, question.question), f"{question} about {scene}"
    assert {question.kind for _, question in asked[domain]} == KINDS[domain]


@pytest.mark.parametrize("domain", ["room", "gallery", "book"])
def test_yes_and_no_are_balanced(domain: str, asked: dict[str, list[tuple[Scene, Asked]]]) -> None:
    answers = Counter(question.answer for _, question in asked[domain] if question.answer in ("yes", "no"))
    assert answers.total() > 150
    assert answers["yes"] / answers.total() == pytest.approx(0.5, abs=0.12)


def test_four_different_choices_under_letters_of_equal_share(asked: dict[str, list[tuple[Scene, Asked]]]) -> None:
    letters = Counter(question.answer for _, question in asked["beach"])
    assert set(letters) == set("abcd")
    assert min(letters.values()) > 0.2 * letters.total()
    assert all(len(set(question.choices)) == 4 for _, question in asked["beach"])
    assert not any(question.choices for domain in ASK if domain != "beach" for _, question in asked[domain])


def test_a_quarter_of_the_photographs_is_unanswerable(asked: dict[str, list[tuple[Scene, Asked]]]) -> None:
    unanswerable = sum(question.answer == "unanswerable" for _, question in asked["photo"])
    assert unanswerable / 1500 == pytest.approx(0.25, abs=0.05)


def test_answer_formats_differ_between_domains(asked: dict[str, list[tuple[Scene, Asked]]]) -> None:
    """What is asked of one thing is answered in the form of the domain: one word more, a letter, a name of its own."""

    def answers(domain: str, kind: str) -> set[str]:
        return {question.answer for _, question in asked[domain] if question.kind == kind}

    assert answers("room", "colour") == answers("gallery", "relation_colour") == set(COLOURS)
    assert answers("street", "sign_colour") == {f"{colour} sign" for colour in COLOURS}
    assert answers("photo", "what") == {f"{colour} {shape}" for colour in COLOURS for shape in SHAPES}
    assert answers("room", "at") == set(SHAPES)
    assert answers("gallery", "relation") == {"disc", "box", "cone", "star", "heart", "plus"}
    assert answers("beach", "shape") == answers("beach", "count") == set("abcd")
    assert {answer.split()[1] for answer in answers("book", "genre")} == {"books"}
    assert all(answer.isdigit() for answer in answers("room", "count"))


# --- Captions ---------------------------------------------------------------------------------------------------------


def of(domain: str, count: int = 300) -> list[Scene]:
    rng = np.random.default_rng(1)
    return [sample_scene(domain, "train", rng) for _ in range(count)]


def named(things: tuple[Thing, ...]) -> Counter[str]:
    return Counter(f"{thing.colour} {thing.shape}" for thing in things)


def test_park_captions_mention_exactly_the_things() -> None:
    for scene in of("park"):
        captions = language.park_captions(scene)
        assert len(set(captions)) == 5
        for caption in captions:
            mentioned = re.findall(rf"(?:(small|large) )?({COLOUR}) ({SHAPE})\b", caption)
            assert Counter(f"{colour} {shape}" for _, colour, shape in mentioned) == named(scene.things)
            sizes = {(f"{colour} {shape}", size) for size, colour, shape in mentioned if size}
            assert sizes in (set(), {(thing.name, thing.size) for thing in scene.things})
            assert re.findall(PLACE, caption) in ([], [PLACES[thing.cell] for thing in scene.things])
        assert sum("small" in caption or "large" in caption for caption in captions) == 4


def test_wall_captions_read_the_sign_and_say_what_it_is_beside() -> None:
    for scene in of("wall"):
        captions = language.wall_captions(scene)
        assert len(set(captions)) == 5
        (sign,) = scene.signs
        beside = []
        for caption in captions:
            assert [word for word in caption.split() if word in SIGN_WORDS] == [sign.word]
            assert set(re.findall(rf"({COLOUR}) sign", caption)) <= {sign.colour}
            things = Counter(re.findall(rf"(?:{COLOUR}) (?:{SHAPE})\b", caption))
            if things:
                assert things == named(scene.things)
                beside += re.findall("above|below", caption)
        assert beside == ["above" if all(thing.row > sign.row for thing in scene.things) else "below"] * 4
        if beside[0] == "below":
            assert all(thing.row < sign.row for thing in scene.things)


def test_table_captions_count_the_things() -> None:
    for scene in of("table"):
        captions = language.table_captions(scene)
        assert len(set(captions)) == 5
        shapes = Counter(thing.shape for thing in scene.things)
        for caption in captions[:4]:
            counted = re.findall(rf"({'|'.join(NUMBERS)}) ({SHAPE})((?:(?<=s)es|s)?)\b", caption)
            assert {shape: NUMBERS.index(number) for number, shape, _ in counted} == shapes
            assert all(bool(plural) == (shapes[shape] > 1) for _, shape, plural in counted)
        assert Counter(re.findall(rf"(?:{COLOUR}) (?:{SHAPE})\b", captions[4])) == named(scene.things)


def test_articles_fit() -> None:
    captions = [c for scene in of("park") for c in language.park_captions(scene)]
    captions += [c for scene in of("wall") for c in language.wall_captions(scene)]
    assert any("an orange" in caption for caption in captions)
    assert not re.search(r"\ba orange\b|\ban (?!orange)", "\n".join(captions))


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_dense_caption_tells_the_whole_scene(domain: str) -> None:
    """A scene can be built again from its description, and is the same."""
    for scene in of(domain):
        first, *parts = language.describe(scene).split(" , ")
        assert first == domain
        if scene.unreadable:
            assert parts == ["blurred"]
        elif domain == "book":
            cover, emblem, title, author = (part.split() for part in parts)
            assert [cover[1], emblem[2], title[0], author[0]] == ["cover", "emblem", "title", "author"]
            words = [*title[1:], author[1]]
            assert scene.signs == tuple(Sign(word, cover[0], row) for row, word in enumerate(words))
            assert emblem[:2] == [scene.things[0].colour, scene.things[0].shape]
        else:
            things, signs = [], []
            for part in parts:
                words = part.split()
                if words[1] == "sign":
                    signs.append(Sign(words[3], words[0], ("top", "middle", "bottom").index(words[2])))
                else:
                    size, colour, shape, *place = words
                    things.append(Thing(shape, colour, size, PLACES.index(" ".join(place))))
            assert (tuple(things), tuple(signs)) == (scene.things, scene.signs)
