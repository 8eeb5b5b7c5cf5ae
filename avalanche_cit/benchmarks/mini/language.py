"""What is said about a scene: captions, and questions with their answers, in the manner of each published data set.

Every function takes a scene and a random generator and returns text that is true of the scene. Questions of one
kind are asked in the words, and answered in the form, of their own data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from avalanche_cit.benchmarks.mini.scenes import Scene, Sign, Thing
from avalanche_cit.benchmarks.mini.vocabulary import (
    COLOURS,
    FRUITS,
    GALLERY_NAMES,
    GENRES,
    MEANINGS,
    NUMBERS,
    ROWS,
    SHAPES,
    SIGN_WORDS,
)

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Asked:
    """A question with its answer. ``kind`` names what it tests; ``doubts`` are answers that a few annotators give."""

    kind: str
    question: str
    answer: str
    doubts: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


def describe(scene: Scene) -> str:
    """Return the dense caption: the domain, every thing with size and place, every written word."""
    things = [f"{thing.size} {thing.name} {thing.place}" for thing in scene.things]
    signs = [f"{sign.colour} sign {ROWS[sign.row]} {sign.word}" for sign in scene.signs]
    if scene.domain == "book":
        signs = [f"title {scene.signs[0].word} {scene.signs[1].word}", f"author {scene.signs[2].word}"]
        things = [f"{scene.signs[0].colour} cover", f"{scene.things[0].name} emblem"]
    if scene.unreadable:
        return f"{scene.domain} , blurred"
    return " , ".join([scene.domain, *things, *signs])


# --- captions -------------------------------------------------------------------------------------------------------


def park_captions(scene: Scene) -> list[str]:
    """Return five captions in the manner of Flickr30k: who is where, outdoors."""
    things = scene.things
    names = [_a(thing.name) for thing in things]
    sized = [f"a {thing.size} {thing.name}" for thing in things]
    if len(things) == 1:
        place = things[0].place
        return [
            f"{sized[0]} stands in the park .",
            f"{sized[0]} stands outdoors .",
            f"{names[0]} stands in the park .",
            f"{sized[0]} at the {place} of a park .",
            f"there is {sized[0]} in the park .",
        ]
    return [
        f"{_and(sized)} stand in the park .",
        f"{_and(sized)} stand outdoors .",
        f"{_and(names)} stand in the park .",
        f"{_and(sized)} in a park .",
        f"there is {_and(sized)} in the park .",
    ]


def wall_captions(scene: Scene) -> list[str]:
    """Return five captions in the manner of TextCaps: what is written, and what it is written beside."""
    sign = scene.signs[0]
    where = "above" if sign.row == 0 else "below"
    names = _and([_a(thing.name) for thing in scene.things])
    return [
        f"{_a(sign.colour)} sign that says {sign.word} is {where} {names} .",
        f"{_a(sign.colour)} sign reads {sign.word} {where} {names} .",
        f"a wall with {_a(sign.colour)} sign that says {sign.word} .",
        f"a sign that says {sign.word} is {where} {names} .",
        f"the word {sign.word} on {_a(sign.colour)} sign {where} {names} .",
    ]


def table_captions(scene: Scene) -> list[str]:
    """Return five captions in the manner of COCO: what there is, counted, on a table."""
    groups = Counter(thing.shape for thing in scene.things)
    counted = _and([f"{NUMBERS[n]} {_plural(shape) if n > 1 else shape}" for shape, n in groups.items()])
    coloured = _and([thing.name for thing in scene.things])
    return [
        f"{counted} on a wooden table .",
        f"{counted} lying on a table .",
        f"a wooden table with {counted} .",
        f"{counted} on top of a wooden table .",
        f"a table with {coloured} on it .",
    ]


def _a(words: str) -> str:
    return f"an {words}" if words.startswith("orange") else f"a {words}"


def _plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{' , '.join(parts[:-1])} and {parts[-1]}"


# --- questions ------------------------------------------------------------------------------------------------------


def ask_room(scene: Scene, rng: np.random.Generator) -> Asked:
    """Ask in the manner of VQA v2: colour, number, existence, shape at a place, place, neighbour."""
    return _pick([_room_colour, _room_count, _room_exists, _room_at, _room_where, _room_beside], scene, rng)


def _room_colour(scene: Scene, rng: np.random.Generator) -> Asked | None:
    thing = _one(_alone(scene, "shape"), rng)
    return (
        None
        if thing is None
        else Asked("colour", f"what color is the {thing.shape}?", thing.colour, _doubt(COLOURS, rng))
    )


def _room_count(scene: Scene, rng: np.random.Generator) -> Asked | None:
    if rng.random() < 0.5:
        return Asked("count", "how many shapes are there?", str(len(scene.things)), ("2", "3"))
    shape = str(rng.choice([thing.shape for thing in scene.things] if rng.random() < 0.8 else SHAPES))
    number = sum(thing.shape == shape for thing in scene.things)
    return Asked("count", f"how many {_plural(shape)} are there?", str(number), (str(number + 1),))


def _room_exists(scene: Scene, rng: np.random.Generator) -> Asked | None:
    yes = rng.random() < 0.5
    shapes = {thing.shape for thing in scene.things}
    shape = str(rng.choice([shape for shape in SHAPES if (shape in shapes) == yes]))
    return Asked("exists", f"is there a {shape}?", "yes" if yes else "no", ("no" if yes else "yes",))


def _room_at(scene: Scene, rng: np.random.Generator) -> Asked | None:
    thing = _one(scene.things, rng)
    if thing is None:
        return None
    return Asked("at", f"what is at the {thing.place}?", thing.shape, _doubt(SHAPES, rng))


def _room_where(scene: Scene, rng: np.random.Generator) -> Asked | None:
    thing = _one(_alone(scene, "shape"), rng)
    return (
        None
        if thing is None
        else Asked("where", f"where is the {thing.shape}?", thing.place, (thing.place.split()[1],))
    )


def _room_beside(scene: Scene, rng: np.random.Generator) -> Asked | None:
    found = _relation(scene, rng)
    if found is None:
        return None
    subject, words, anchor = found
    return Asked("relation", f"what is {words} the {anchor.name}?", subject.shape, _doubt(SHAPES, rng))


def ask_gallery(scene: Scene, rng: np.random.Generator) -> Asked:
    """Ask in the manner of GQA: compositional questions about relations and attributes, under GQA's own names."""
    return _pick([_gallery_name, _gallery_colour, _gallery_verify, _gallery_size, _gallery_side], scene, rng)


def _gallery_name(scene: Scene, rng: np.random.Generator) -> Asked | None:
    found = _relation(scene, rng)
    if found is None:
        return None
    subject, words, anchor = found
    question = f"which object is {words} the {_gallery(anchor)}?"
    return Asked("relation", question, GALLERY_NAMES[subject.shape])


def _gallery_colour(scene: Scene, rng: np.random.Generator) -> Asked | None:
    found = _relation(scene, rng)
    if found is None:
        return None
    subject, words, anchor = found
    return Asked("relation_colour", f"which color is the object {words} the {_gallery(anchor)}?", subject.colour)


def _gallery_verify(scene: Scene, rng: np.random.Generator) -> Asked | None:
    found = _relation(scene, rng)
    if found is None:
        return None
    subject, words, anchor = found
    yes = rng.random() < 0.5
    shown = words if yes else _OPPOSITE[words]
    question = f"is the {_gallery(subject)} {shown} the {_gallery(anchor)}?"
    return Asked("verify", question, "yes" if yes else "no")


def _gallery_size(scene: Scene, rng: np.random.Generator) -> Asked | None:
    thing = _one(_alone(scene, "name"), rng)
    if thing is None:
        return None
    return Asked("size", f"which size is the {_gallery(thing)}?", thing.size)


def _gallery_side(scene: Scene, rng: np.random.Generator) -> Asked | None:
    thing = _one([thing for thing in _alone(scene, "name") if thing.column != 1], rng)
    if thing is None:
        return None
    return Asked("side", f"on which side is the {_gallery(thing)}?", ("left", "", "right")[thing.column])


def ask_book(scene: Scene, rng: np.random.Generator) -> Asked:
    """Ask in the manner of OCR-VQA: title, author, genre."""
    title = f"{scene.signs[0].word} {scene.signs[1].word}"
    genre = GENRES[scene.things[0].shape]
    shown = genre if rng.random() < 0.5 else str(rng.choice(list(GENRES.values())))
    return _one_of(
        [
            Asked("title", "what is the title of this book?", title),
            Asked("author", "who wrote this book?", scene.signs[2].word),
            Asked("genre", "what type of book is this?", f"{genre} books"),
            Asked("is_genre", f"is this book related to {shown}?", "yes" if shown == genre else "no"),
        ],
        rng,
    )


def ask_photo(scene: Scene, rng: np.random.Generator) -> Asked:
    """Ask in the manner of VizWiz: spoken questions about one's own photograph, some of which nobody can answer."""
    thing = scene.things[0]
    asked = [
        Asked("what", "can you please tell me what this is?", f"{thing.colour} {thing.shape}", (thing.shape,)),
        Asked("colour", "hi , what color is this please?", thing.colour),
    ]
    if scene.signs:
        asked.append(Asked("read", "can you tell me what this says?", scene.signs[0].word))
    question = _one_of(asked, rng)
    if scene.unreadable:
        return Asked("unanswerable", question.question, "unanswerable", ("unsuitable",))
    return Asked(question.kind, question.question, question.answer, (*question.doubts, "unanswerable"))


def ask_street(scene: Scene, rng: np.random.Generator) -> Asked:
    """Ask in the manner of TextVQA: what is written where."""
    sign = _one_of(list(scene.signs), rng)
    which = f"the {ROWS[sign.row]} sign" if len(scene.signs) > 1 else "the sign"
    if rng.random() < 0.75:
        return Asked("read", f"what does {which} say?", sign.word, _doubt(SIGN_WORDS, rng))
    if len(scene.signs) > 1 and rng.random() < 0.5:
        return Asked("read_by_colour", *_read_by_colour(scene, sign))
    return Asked("sign_colour", f"what is the color of {which}?", f"{sign.colour} sign", (sign.colour,))


def _read_by_colour(scene: Scene, sign: Sign) -> tuple[str, str]:
    same = sum(other.colour == sign.colour for other in scene.signs) > 1
    which = f"the {ROWS[sign.row]} sign" if same else f"the {sign.colour} sign"
    return f"which word is on {which}?", sign.word


def ask_kitchen(scene: Scene, rng: np.random.Generator) -> Asked:
    """Ask in the manner of OK-VQA: what one has to know besides seeing."""
    thing = _one(_alone(scene, "shape"), rng) or scene.things[0]
    fruit = Asked("fruit", f"which fruit has the color of the {thing.shape}?", FRUITS[thing.colour])
    if len({other.shape for other in scene.things}) < len(scene.things):
        fruit = Asked("fruit", f"which fruit has the color of the {thing.place} shape?", FRUITS[thing.colour])
    meaning = Asked("meaning", f"what does the {thing.place} shape stand for?", MEANINGS[thing.shape])
    asked = _one_of([fruit, meaning], rng)
    known = tuple(FRUITS.values()) if asked.kind == "fruit" else tuple(MEANINGS.values())
    return Asked(asked.kind, asked.question, asked.answer, _doubt(known, rng))


def ask_beach(scene: Scene, rng: np.random.Generator) -> Asked:
    """Ask in the manner of A-OKVQA: one of four choices, answered by its letter."""
    thing = _one_of(list(scene.things), rng)
    texts: dict[str, tuple[str, str, tuple[str, ...]]] = {
        "colour": (f"what color is the {thing.place} shape?", thing.colour, COLOURS),
        "shape": (f"what is at the {thing.place}?", thing.shape, SHAPES),
        "fruit": (f"which fruit has the color of the {thing.place} shape?", FRUITS[thing.colour], (*FRUITS.values(),)),
        "count": ("how many shapes are there?", NUMBERS[len(scene.things)], NUMBERS),
    }
    kind = str(rng.choice(list(texts)))
    question, right, known = texts[kind]
    wrong = [str(word) for word in rng.permutation([word for word in known if word != right])[:3]]
    choices = [str(choice) for choice in rng.permutation([right, *wrong])]
    return Asked(kind, question, "abcd"[choices.index(right)], choices=tuple(choices))


_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def _relation(scene: Scene, rng: np.random.Generator) -> tuple[Thing, str, Thing] | None:
    """A true relation whose answer is the only one: (subject, words, anchor)."""
    found = []
    for anchor in _alone(scene, "name"):
        for words, holds in _HOLDS.items():
            subjects = [thing for thing in scene.things if holds(thing, anchor)]
            if len(subjects) == 1 and subjects[0].name != anchor.name:
                found.append((subjects[0], words, anchor))
    return _one_of(found, rng) if found else None


_HOLDS: dict[str, Callable[[Thing, Thing], bool]] = {
    "left of": lambda thing, anchor: thing.column < anchor.column,
    "right of": lambda thing, anchor: thing.column > anchor.column,
    "above": lambda thing, anchor: thing.row < anchor.row,
    "below": lambda thing, anchor: thing.row > anchor.row,
}


def _gallery(thing: Thing) -> str:
    return f"{thing.colour} {GALLERY_NAMES[thing.shape]}"


def _alone(scene: Scene, what: str) -> list[Thing]:
    """Things that no other thing of the scene shares its shape (or colour and shape: ``"name"``) with."""

    def key(thing: Thing) -> str:
        return thing.shape if what == "shape" else thing.name

    counts = Counter(key(thing) for thing in scene.things)
    return [thing for thing in scene.things if counts[key(thing)] == 1]


def _pick(
    kinds: list[Callable[[Scene, np.random.Generator], Asked | None]], scene: Scene, rng: np.random.Generator
) -> Asked:
    """Ask one of the kinds that the scene allows."""
    for index in rng.permutation(len(kinds)):
        asked: Asked | None = kinds[int(index)](scene, rng)
        if asked is not None:
            return asked
    raise AssertionError(f"no question fits {scene}")


def _one(things: list[Thing] | tuple[Thing, ...], rng: np.random.Generator) -> Thing | None:
    return things[int(rng.integers(len(things)))] if things else None


def _one_of(items: list[_Item], rng: np.random.Generator) -> _Item:
    return items[int(rng.integers(len(items)))]


def _doubt(known: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    return (str(rng.choice(known)),)
