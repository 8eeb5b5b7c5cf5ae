"""Ctrl-C and the scheduler's SIGTERM, answered when the optimizer step at hand is over."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from avalanche_cit.errors import Interrupted


class StopRequest:
    """Whether somebody wants the training to end.

    Attributes:
        waits: Whether an optimizer step is at hand, whose end is worth waiting for: there the training can be saved.
        requested: Number of the signal that asks, None where none has.
    """

    def __init__(self) -> None:
        self.waits = False
        self.requested: int | None = None

    def check(self) -> None:
        """Stop here, if asked to.

        Raises:
            Interrupted: It is.
        """
        if self.requested is not None:
            raise Interrupted(self.requested)

    def _receive(self, number: int, frame: Any) -> None:
        asked_before, self.requested = self.requested == number, number  # a launcher may pass Ctrl-C on as SIGTERM
        if asked_before or not self.waits:
            raise Interrupted(number)
        os.write(2, b"\nstopping after this step; once more stops at once\n")  # print() may be at work itself


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Answer SIGINT and SIGTERM by a `StopRequest`; outside of the main thread, where Python takes none, by nothing.

    Example:
        >>> with stop_on_signals() as stop:
        ...     strategy = SeqFT(model=model, plugins=[CheckpointPlugin("checkpoints", stop=stop)])
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
