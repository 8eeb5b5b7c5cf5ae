"""The mini world in small, drawn once for all tests, and an oracle that answers its questions by itself."""

import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import yaml

from avalanche_cit.benchmarks import Task, benchmark_tasks
from avalanche_cit.benchmarks.mini.scenes import Scene, Sign, Thing
from avalanche_cit.benchmarks.mini.vocabulary import FRUITS, GALLERY_NAMES, GENRES, MEANINGS, NUMBERS, SHAPES

SEED = 5
SIZES = {"train": 16, "validation": 4, "test": 8}
TASKS = ["flickr30k", "textcaps", "vqav2", "ocrvqa", "gqa", "vizwiz", "textvqa", "okvqa", "aokvqa", "coco"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def in_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVALANCHE_CIT_CACHE", str(cache))


@pytest.fixture(scope="session")
def world(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    """All ten tasks of the definitions, `SIZES` samples each, drawn from `SEED`."""
    definitions = resources.files("avalanche_cit.benchmarks") / "mini" / "definitions.yaml"
    about = {"name": "all_tasks", "version": 1, "description": "All tasks.", "drawn_by": "mini"}
    file = tmp_path_factory.mktemp("benchmark") / "all_tasks.yaml"
    file.write_text(yaml.safe_dump({**about, "tasks": TASKS, "definitions": str(definitions)}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVALANCHE_CIT_CACHE", str(cache))
        members, tasks = benchmark_tasks(file, seed=SEED, sizes=SIZES)
    assert members == []
    return {task.name: task for task in tasks}


# --- The oracle -------------------------------------------------------------------------------------------------------

PLACES = [f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "center", "right")]
ROW_OF = {"top": 0, "middle": 1, "bottom": 2}
SHAPE = "|".join(SHAPES)
RELATION = "left of|right of|above|below"


def names_of(scene: Scene, thing: Thing) -> set[str]:
    """Every noun phrase that fits a thing, in the words of its domain."""
    if scene.domain == "gallery":
        return {f"{thing.colour} {GALLERY_NAMES[thing.shape]}"}
    return {thing.shape, f"{thing.colour} {thing.shape}", f"{PLACES[thing.cell]} shape"}


def the(scene: Scene, phrase: str) -> Thing:
    """The thing that a phrase names, which must be the only one."""
    named = [thing for thing in scene.things if phrase in names_of(scene, thing)]
    assert len(named) == 1, f"'{phrase}' names {len(named)} things of {scene}"
    return named[0]


def related(scene: Scene, words: str, anchor: Thing) -> list[Thing]:
    """The things that stand so to another one."""
    row, column = divmod(anchor.cell, 3)
    holds: dict[str, Callable[[int, int], bool]] = {
        "left of": lambda r, c: c < column,
        "right of": lambda r, c: c > column,
        "above": lambda r, c: r < row,
        "below": lambda r, c: r > row,
    }
    return [thing for thing in scene.things if holds[words](*divmod(thing.cell, 3))]


def the_one(scene: Scene, words: str, phrase: str) -> Thing:
    """The thing that stands so to a named one, which must be the only one."""
    found = related(scene, words, the(scene, phrase))
    assert len(found) == 1, f"{len(found)} things are {words} the {phrase} in {scene}"
    return found[0]


def the_thing_at(scene: Scene, place: str) -> Thing:
    return the(scene, f"{place} shape")


def the_sign(scene: Scene, which: str | None = None) -> Sign:
    """The sign of a row or a colour, or the only one."""
    fits = [s for s in scene.signs if which is None or s.colour == which or s.row == ROW_OF.get(which)]
    assert len(fits) == 1, f"'{which}' names {len(fits)} signs of {scene}"
    return fits[0]


def count(scene: Scene, shape: str) -> int:
    return sum(thing.shape == shape for thing in scene.things)


def yes_no(truth: bool) -> str:
    return "yes" if truth else "no"


def only(scene: Scene) -> Thing:
    (thing,) = scene.things
    return thing


def side(scene: Scene, phrase: str) -> str:
    return {0: "left", 2: "right"}[the(scene, phrase).cell % 3]


def written(scene: Scene) -> dict[int, str]:
    return {sign.row: sign.word for sign in scene.signs}


QUESTIONS: dict[str, list[tuple[str, Callable[..., str]]]] = {
    "room": [
        (rf"what color is the ({SHAPE})\?", lambda s, phrase: the(s, phrase).colour),
        (r"how many shapes are there\?", lambda s: str(len(s.things))),
        (rf"how many ({SHAPE})(?:s|(?<=s)es) are there\?", lambda s, shape: str(count(s, shape))),
        (rf"is there a ({SHAPE})\?", lambda s, shape: yes_no(count(s, shape) > 0)),
        (r"what is at the (\w+ \w+)\?", lambda s, place: the_thing_at(s, place).shape),
        (rf"where is the ({SHAPE})\?", lambda s, phrase: PLACES[the(s, phrase).cell]),
        (rf"what is ({RELATION}) the (.+)\?", lambda s, words, phrase: the_one(s, words, phrase).shape),
    ],
    "gallery": [
        (rf"which object is ({RELATION}) the (.+)\?", lambda s, w, p: GALLERY_NAMES[the_one(s, w, p).shape]),
        (rf"which color is the object ({RELATION}) the (.+)\?", lambda s, w, p: the_one(s, w, p).colour),
        (rf"is the (.+) ({RELATION}) the (.+)\?", lambda s, a, w, b: yes_no(the(s, a) in related(s, w, the(s, b)))),
        (r"which size is the (.+)\?", lambda s, phrase: the(s, phrase).size),
        (r"on which side is the (.+)\?", side),
    ],
    "book": [
        (r"what is the title of this book\?", lambda s: f"{written(s)[0]} {written(s)[1]}"),
        (r"who wrote this book\?", lambda s: written(s)[2]),
        (r"what type of book is this\?", lambda s: f"{GENRES[only(s).shape]} books"),
        (r"is this book related to (\w+)\?", lambda s, genre: yes_no(GENRES[only(s).shape] == genre)),
    ],
    "photo": [
        (r"can you please tell me what this is\?", lambda s: f"{only(s).colour} {only(s).shape}"),
        (r"hi , what color is this please\?", lambda s: only(s).colour),
        (r"can you tell me what this says\?", lambda s: the_sign(s).word),
    ],
    "street": [
        (r"what does the sign say\?", lambda s: the_sign(s).word),
        (r"what does the (top|bottom) sign say\?", lambda s, row: the_sign(s, row).word),
        (r"which word is on the (\w+) sign\?", lambda s, which: the_sign(s, which).word),
        (r"what is the color of the sign\?", lambda s: f"{the_sign(s).colour} sign"),
        (r"what is the color of the (top|bottom) sign\?", lambda s, row: f"{the_sign(s, row).colour} sign"),
    ],
    "kitchen": [
        (r"which fruit has the color of the (.+)\?", lambda s, phrase: FRUITS[the(s, phrase).colour]),
        (r"what does the (.+ shape) stand for\?", lambda s, phrase: MEANINGS[the(s, phrase).shape]),
    ],
    "beach": [
        (r"what color is the (.+ shape)\?", lambda s, phrase: the(s, phrase).colour),
        (r"what is at the (\w+ \w+)\?", lambda s, place: the_thing_at(s, place).shape),
        (r"which fruit has the color of the (.+ shape)\?", lambda s, phrase: FRUITS[the(s, phrase).colour]),
        (r"how many shapes are there\?", lambda s: NUMBERS[len(s.things)]),
    ],
}


@pytest.fixture(scope="session")
def true_answer() -> Callable[[Scene, str], str]:
    """Read a question as a person would, and look its answer up in the scene; fails where there is not one."""

    def answer(scene: Scene, question: str) -> str:
        found = [(read, match) for form, read in QUESTIONS[scene.domain] if (match := re.fullmatch(form, question))]
        assert len(found) == 1, f"'{question}' can be read in {len(found)} ways"
        read, match = found[0]
        told = read(scene, *match.groups())  # also where it is blurred: the question must fit what is there
        return "unanswerable" if scene.unreadable else told

    return answer
