"""Tokens of captions as the COCO caption evaluation sees them, without its Java tokenizer.

NLTK's Treebank tokenizer, lower case, and the COCO evaluation's list of punctuation removed. Where Treebank and
Stanford's PTBTokenizer differ on what captions hold (full stops within a line, quoted words, typographic marks),
Stanford is followed.
"""

from __future__ import annotations

import functools
import re

from nltk.tokenize import TreebankWordTokenizer

_TOKENIZER = TreebankWordTokenizer()
# Brackets stay, as -lrb- and -rrb-: the COCO evaluation means to remove them, but its list has them in upper case only.
_PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
_TYPOGRAPHIC = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "…": "...", "–": " -- ", "—": " -- "})
_KEEPS_QUOTE = re.compile(r"'(?:s|m|d|t|n|re|ve|ll|em|til|cause|\d.*)")
_KEEPS_STOP = re.compile(
    r"(?:[a-z]\.)+|(?:mr|mrs|ms|dr|prof|ph\.d|st|jr|sr|inc|ltd|co|corp|vs|ave|blvd|rd|etc|ft|mt|sgt|capt|gen|lt|rev|hon"
    r"|gov|sen|rep|jan|feb|sept|dec|est|dept|tel)\."
)


@functools.lru_cache(maxsize=200_000)  # the references of a task come back in every row of the matrix
def caption_tokens(caption: str) -> str:
    """Return the tokens of a caption, separated by single spaces.

    Example:
        >>> caption_tokens('A man (in red) can\\'t read "STOP". He waits.')
        "a man -lrb- in red -rrb- ca n't read stop he waits"
    """
    # Treebank splits off a full stop at the very end only; a last word makes all full stops alike.
    tokens = _TOKENIZER.tokenize(caption.translate(_TYPOGRAPHIC) + " end", convert_parentheses=True)[:-1]
    plain = (_plain(token.lower()) for token in tokens)
    return " ".join(token for token in plain if token and token not in _PUNCTUATION)


def _plain(token: str) -> str:
    """Return a token without the full stop that ends its sentence and the quotes around it."""
    if len(token) > 1 and token.endswith(".") and not _KEEPS_STOP.fullmatch(token):
        token = token.rstrip(".'")
    return token if _KEEPS_QUOTE.fullmatch(token) else token.lstrip("'")
