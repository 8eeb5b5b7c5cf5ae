"""The exceptions: one for mistakes that a user can mend, one for signals that end a run.

Scripts print its text as one line and exit with status 2; in Python it is an ordinary ``ValueError``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A wrong option, file or record. Its message says what is wrong, where, and how to mend it, in one line."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that is not among the known ones, with the nearest of them suggested.

    Args:
        kind: What the name should have been, such as ``"strategy"``.
        name: What the user wrote.
        known: The names that exist.

    Example:
        >>> str(unknown_name("strategy", "reply", ["replay", "seqft"]))
        "unknown strategy 'reply': did you mean 'replay'? Known: replay, seqft"
    """
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    message = f"unknown {kind} '{name}': {hint}Known: {', '.join(names)}"
    return UserError(" ".join(message.split()))  # names out of a user's file may hold line breaks


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end.

    Attributes:
        signal: Its number, such as ``signal.SIGTERM``.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal
