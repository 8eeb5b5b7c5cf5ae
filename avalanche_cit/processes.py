"""The processes that carry out one run together, as ``torchrun`` and ``accelerate launch`` start them.

Each has the whole model and trains on its own share of every mini-batch; gradients are added up by PyTorch's
``DistributedDataParallel``, set up by accelerate. A mini-batch is that of one process, cut into shares, so that the
number of processes changes how a run is computed and not what. One process alone talks to nobody.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, get_int_from_env
from torch import Tensor, nn

from avalanche_cit.errors import UserError

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # of torchrun, and of MPI's kinds
_ENGINES = {
    "FSDP": "ACCELERATE_USE_FSDP",
    "DeepSpeed": "ACCELERATE_USE_DEEPSPEED",
    "Megatron-LM": "ACCELERATE_USE_MEGATRON_LM",
}


def started_processes(asked: int | None = None) -> int:
    """Return how many processes a launcher has started, this one among them.

    Args:
        asked: How many it was asked for; None: any number will do.

    Raises:
        UserError: They are more or fewer, or the launcher wants an engine other than data parallelism.
    """
    started: int = get_int_from_env(_SIZES, 1)
    if asked is not None and asked != started:
        raise UserError(
            f"{asked} processes are asked for, and {started} started: begin with `torchrun --nproc_per_node {asked} "
            "...` (on a CPU `accelerate launch` starts one only)"
        )
    for engine, variable in _ENGINES.items():
        if os.environ.get(variable, "").lower() in ("1", "true"):
            raise UserError(
                f"{engine} is not proved to train right here, so it is refused: launch without it, each process then "
                "has the whole model"
            )
    return started


def be_alone() -> None:
    """Refuse to be one of several processes, for a command that several cannot carry out together.

    Raises:
        UserError: A launcher has started several.
    """
    if started_processes() > 1:
        raise UserError(
            "this command is for one process: torchrun and accelerate launch start forgetting_matrix.py; many runs at "
            "a time are compare.py --workers N"
        )


def join_processes(asked: int | None = None, device: str | torch.device = "cpu") -> Processes:
    """Join the processes that a launcher has started; a process that was started alone stays alone.

    Args:
        asked: How many there have to be; None: any number will do.
        device: ``cuda`` for a GPU per process, ``cpu`` for none.

    Raises:
        UserError: They are more or fewer, the launcher wants an engine other than data parallelism, or there are not
            enough GPUs.

    Example:
        >>> processes = join_processes(device="cuda")  # torchrun --nproc_per_node 4 script.py
        >>> processes.rank, processes.count
        (2, 4)
    """
    if started_processes(asked) == 1:
        return Processes()
    gpus = torch.device(device).type == "cuda"
    own = get_int_from_env(("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK"), 0)
    if gpus and own >= torch.cuda.device_count():
        raise UserError(f"there is no GPU {own}: start at most {torch.cuda.device_count()} processes on a machine")
    state = PartialState(cpu=not gpus)
    return Processes(state.num_processes, state.process_index, gpus=gpus)


class Processes:
    """The processes of a run, seen from one of them. Every method but `share` has to be called by all.

    Args:
        count: How many there are.
        rank: The number of this one.
        gpus: Whether each has a GPU.

    Example:
        >>> Processes().mean(torch.tensor(2.0))
        tensor(2.)
    """

    def __init__(self, count: int = 1, rank: int = 0, *, gpus: bool = False) -> None:
        self.count = count
        self.rank = rank
        self._gpus = gpus

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files and prints."""
        return self.rank == 0

    def share(self, samples: Sequence[Any]) -> Sequence[Any]:
        """Return this process's share of samples; together all shares are the samples, each once."""
        return samples if self.count == 1 else samples[self.rank :: self.count]

    def sharing(self, collate: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
        """Return a collate function that makes this process's share of a mini-batch."""
        return collate if self.count == 1 else ShareOfBatch(collate, self)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Return the module whose backward passes average gradients over all processes; it shares all weights."""
        if self.count == 1:
            return model
        # some weights may take no part in a loss, and buffers never change
        handler = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
        accelerator = Accelerator(cpu=not self._gpus, mixed_precision="no", kwargs_handlers=[handler])
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # of a few small weights
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # used by accelerate
            module: nn.Module = accelerator.prepare_model(model, device_placement=False)
        return module

    def total(self, *numbers: float) -> list[float]:
        """Add up numbers of the hosts; no device is waited for."""
        if self.count == 1:
            return list(numbers)
        together = torch.tensor(numbers, dtype=torch.float64)
        torch.distributed.all_reduce(together, group=self._hosts)
        return together.tolist()

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors in place."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
        if self.count == 1:
            return tensor
        together = tensor.clone()
        self.sum([together])
        return together / self.count

    def gathered(self, part: Any) -> list[Any]:
        """Return the plain values, or tensors on the CPU, that the processes give, by rank."""
        if self.count == 1:
            return [part]
        parts: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(parts, part, group=self._hosts)
        return parts

    def of_main(self, value: Any) -> Any:
        """Return the plain value that the main process gives."""
        return self.gathered(value)[0]

    def wait(self) -> None:
        """Wait until all are here."""
        self.total(0.0)

    @contextmanager
    def quiet_but_main(self) -> Iterator[None]:
        """Have the main process alone print; an error that is raised leaves here as always."""
        with ExitStack() as stack:
            if not self.is_main:
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            yield

    @property
    def _hosts(self) -> Any:
        """Through which hosts talk, past their devices."""
        return _group_of_hosts()


@cache
def _group_of_hosts() -> Any:
    return torch.distributed.new_group(backend="gloo")


class ShareOfBatch:
    """Collates a process's own share of the samples of a mini-batch.

    Where there are fewer samples than processes, those that get none take the first one and count it as nothing: every
    process has to take part in every step.

    Args:
        collate: Makes an `InstructionBatch`, with labels and task labels.
        processes: Who shares.
    """

    def __init__(self, collate: Callable[[Sequence[Any]], Any], processes: Processes) -> None:
        self.collate = collate
        self.processes = processes

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Collate."""
        own = self.processes.share(samples)
        if own:
            return self.collate(own)
        batch, *labels = self.collate(samples[:1])
        return [replace(batch, counts=False), *labels]
