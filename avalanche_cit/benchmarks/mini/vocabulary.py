"""What the mini world is made of: shapes, colours, places, written words and the little that it knows about them."""

from __future__ import annotations

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SIZES = ("small", "large")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
NUMBERS = ("zero", "one", "two", "three", "four")

RGB = {
    "red": (214, 30, 38),
    "orange": (245, 133, 20),
    "yellow": (247, 222, 40),
    "green": (36, 150, 54),
    "blue": (34, 84, 210),
    "purple": (124, 44, 160),
    "pink": (246, 130, 180),
    "white": (246, 246, 246),
}

AUTHORS = ("anna", "ben", "clara", "david", "emma", "felix", "greta", "hugo", "iris", "jonas", "kate", "leo")
TITLE_FIRST = ("brave", "cold", "dark", "early", "final", "great", "happy", "inner", "last", "magic", "north", "quiet")
TITLE_SECOND = ("river", "stone", "house", "moon", "tree", "ship", "road", "king", "winds", "gate", "field", "song")
SIGN_WORDS = (
    *("bakery", "bank", "bus", "cafe", "exit", "farm", "fish", "gym", "hotel", "keys", "lake", "mall"),
    *("open", "park", "pizza", "salon", "shop", "stop", "taxi", "tea", "toys", "train", "wine", "zoo"),
)
WORDS = (*AUTHORS, *TITLE_FIRST, *TITLE_SECOND, *SIGN_WORDS)

DOMAINS = ("park", "wall", "room", "book", "gallery", "photo", "street", "kitchen", "beach", "table")
"""Image domains, one per task; each has its own backdrop and layout."""

GENRES = {
    "circle": "travel",
    "square": "cooking",
    "triangle": "history",
    "star": "fantasy",
    "heart": "romance",
    "cross": "medicine",
}
"""The genre that the emblem on a book cover stands for."""

FRUITS = {
    "red": "cherry",
    "orange": "mandarin",
    "yellow": "banana",
    "green": "kiwi",
    "blue": "blueberry",
    "purple": "grape",
    "pink": "peach",
    "white": "coconut",
}
"""What the world knows about colours."""

MEANINGS = {
    "circle": "sun",
    "square": "home",
    "triangle": "mountain",
    "star": "night",
    "heart": "love",
    "cross": "hospital",
}
"""What the world knows about shapes."""

GALLERY_NAMES = {
    "circle": "disc",
    "square": "box",
    "triangle": "cone",
    "star": "star",
    "heart": "heart",
    "cross": "plus",
}
"""GQA-like tasks name objects by a scene graph of their own, as the real set does."""
