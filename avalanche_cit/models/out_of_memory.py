"""Going on with smaller batches when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate.utils import find_executable_batch_size
from accelerate.utils.memory import should_reduce_batch_size

from avalanche_cit.errors import UserError

T = TypeVar("T")


def halving(work: Callable[[int], T], samples: int) -> T:
    """Do some work on `samples` samples at a time, or on half as many as often as memory runs out.

    Args:
        work: Called with the number of samples at a time; must be such that it can be begun anew.
        samples: How many to begin with.

    Raises:
        UserError: Not even a single sample fits.

    Example:
        >>> halving(lambda size: [answer for part in batch.split(size) for answer in generate(part)], len(batch))
    """
    try:
        return work(samples)
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
    # from here on outside of the handler, whose traceback holds the tensors that did not fit
    size = samples

    def half() -> int:
        nonlocal size
        size //= 2
        return size

    def smaller(batch_size: int) -> T:
        print(f"note: memory ran out; going on with {batch_size} samples at a time")
        return work(batch_size)

    if samples > 1:
        try:
            return find_executable_batch_size(smaller, starting_batch_size=half(), reduce_batch_size_fn=half)()  # type: ignore[no-any-return]
        except RuntimeError as error:
            if "reached zero" not in str(error):
                raise
    raise UserError(
        "memory does not suffice for a single sample: use a smaller model, dtype=bfloat16, or --gradient_checkpointing"
    )
