"""Normalisation of short answers as the EvalAI servers of VQA and TextVQA do it, before answers are compared.

Written from the documented behaviour of the VQA evaluation (Antol et al., 2015; https://visualqa.org/evaluation.html)
as TextVQA and MMF apply it, to predictions and references alike.
"""

from __future__ import annotations

import re
from functools import lru_cache

_PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
_PERIOD = re.compile(r"\.(?!\d)")
_ARTICLES = {"a", "an", "the"}
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
_NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}

# Only those whose spelling without an apostrophe is no word of its own: "we'll" would meet "well".
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't
    not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
    won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905
_CONTRACTIONS = {
    word[:i] + word[i + 1 :]: word for word in _CONTRACTED for i, letter in enumerate(word) if letter == "'"
}


@lru_cache(maxsize=100_000)  # the references are the same in every row of a matrix
def normalise_answer(answer: str) -> str:
    """Return the form in which answers are compared.

    In this order: lower case; commas and question marks are removed, and ``'s`` becomes a word; another punctuation
    mark is removed if one of its occurrences touches a space, and becomes a space otherwise; a period is removed unless
    a digit follows; number words up to ten become digits (and ``none`` becomes 0); articles are dropped; a contraction
    gets its missing apostrophe back.

    Example:
        >>> normalise_answer("The man's T-Shirt."), normalise_answer("two, dont 3.50")
        ("man 's t shirt", "2 don't 3.50")
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.replace("\n", " ").replace("\t", " ").strip()
    touching = {mark for mark in _PUNCTUATION if f"{mark} " in text or f" {mark}" in text}
    text = text.translate({ord(mark): "" if mark in touching else " " for mark in _PUNCTUATION})
    words = [_NUMBERS.get(word, word) for word in _PERIOD.sub("", text).split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
