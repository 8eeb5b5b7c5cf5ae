"""The mini-batches of an epoch, in an order that depends on nothing but its seed, from any place in it on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import skip_first_batches
from avalanche.benchmarks.utils.data_loader import MultiDatasetDataLoader

from avalanche_cit.benchmarks.batch import MiniBatch
from avalanche_cit.errors import UserError
from avalanche_cit.training.randomness import OwnDraws


def batches(loader: Any, seed: Sequence[int], skip: int = 0) -> Iterator[MiniBatch]:
    """Yield the mini-batches of one epoch.

    Loaders draw their order while they are read: Avalanche's memory loader, for instance, shuffles anew whenever the
    memory has been gone through. Those draws are kept apart from the training's own, such as dropout's. So the order
    depends on the seed alone, the number of worker processes changes nothing, and an epoch can be continued anywhere.

    Args:
        loader: Any iterable of mini-batches. Avalanche's own leave out what is skipped before it is read; others load
            it and throw it away.
        seed: Numbers that decide the order.
        skip: Mini-batches to leave out at the beginning.

    Raises:
        UserError: A data-loader worker died, or met a sample that cannot be read.
    """
    draws = OwnDraws(seed)
    with draws.taking():
        iterator = _from(loader, skip)
    while True:
        with draws.taking(), explained_loading():
            try:
                batch = next(iterator)
            except StopIteration:
                return
        yield batch


def whole_batches(loader: Any) -> Any:
    """Return a loader of whole mini-batches in every process.

    Avalanche's own give each process of several other samples; here processes share every mini-batch, see `Processes`.
    """
    if not (isinstance(loader, MultiDatasetDataLoader) and loader.distributed_sampling):
        return loader
    return MultiDatasetDataLoader(
        loader.datasets,
        loader.batch_sizes,
        oversample_small_datasets=loader.oversample_small_datasets,
        termination_dataset=loader.termination_dataset,
        distributed_sampling=False,
        never_ending=loader.never_ending,
        **loader.loader_kwargs,
    )


@contextmanager
def explained_loading() -> Iterator[None]:
    """Say in one line what torch says of a data-loader worker in many.

    That a worker died, torch may say anywhere in the main thread, as by a signal, as long as there are workers. So this
    goes around everything that is done with their mini-batches.

    Raises:
        UserError: A data-loader worker died, or met a sample that cannot be read.
    """
    try:
        yield
    except (RuntimeError, UserError) as error:
        explained = _explained(" ".join(str(error).split()))
        if explained is None:
            raise
        raise explained from error


def _from(loader: Any, skip: int) -> Iterator[Any]:
    if skip and isinstance(loader, MultiDatasetDataLoader):
        loader, skip = skip_first_batches(loader._get_loader(), skip), 0
    iterator: Iterator[Any] = iter(loader)
    for _ in range(skip):
        next(iterator)
    return iterator


def _explained(text: str) -> UserError | None:
    """Return the error behind a text of torch's; None for what is none of a worker's business."""
    if text.startswith("Caught UserError in DataLoader worker"):
        return UserError(text.rpartition("UserError: ")[2])
    if text.startswith("DataLoader worker (pid"):
        return UserError(f"a process that loads data died, often for want of memory: try fewer --data-workers ({text})")
    return None
