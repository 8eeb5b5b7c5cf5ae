"""Telling weights apart: a checksum that changes with any name, data type, shape or bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import nullcontext

import torch
from accelerate.utils import align_module_device, has_offloaded_params
from torch import Tensor, nn


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return a checksum of named tensors.

    It depends on their names, data types, shapes and bytes, and neither on their order nor on the device that holds
    them. Tensors are copied to the CPU one at a time.

    Args:
        tensors: Tensors of any shape and data type, by name.

    Returns:
        A SHA-256 of 64 hexadecimal digits.

    Raises:
        ValueError: A tensor is on the meta device, which holds no values; `module_fingerprint` finds those of modules
            that accelerate has offloaded.

    Example:
        >>> fingerprint({"weight": torch.zeros(2)}) == fingerprint({"weight": torch.zeros(2, 1)})
        False
    """
    return _combined(_line(name, tensor) for name, tensor in tensors.items())


def module_fingerprint(module: nn.Module) -> str:
    """Return the `fingerprint` of all parameters and persistent buffers of a module, as its ``state_dict`` has them.

    Quantised weights enter with the scales that bitsandbytes keeps beside them. Weights that accelerate has offloaded
    to memory or disk are loaded one module at a time, and give the same checksum as on a device.

    Raises:
        ValueError: A tensor is on the meta device, and accelerate does not know its values.

    Example:
        >>> module_fingerprint(LMM.from_pretrained("tiny-base").hf)[:16]
        '95f2c43c5708cf07'
    """
    offloaded = [(f"{name}.", part) for name, part in module.named_modules() if name and has_offloaded_params(part)]
    lines: dict[str, str] = {}
    for prefix, part in [("", module), *offloaded]:
        with align_module_device(part, torch.device("cpu")) if has_offloaded_params(part) else nullcontext():
            for name, value in part.state_dict(prefix=prefix).items():
                if name not in lines and isinstance(value, Tensor) and not value.is_meta:
                    lines[name] = _line(name, value)
    left = next((name for name, value in module.state_dict().items() if _is_meta(value) and name not in lines), None)
    if left is not None:
        raise _no_values(left)
    return _combined(lines.values())


def _line(name: str, tensor: Tensor) -> str:
    if tensor.is_meta:
        raise _no_values(name)
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return f"{name!r} {tensor.dtype} {list(tensor.shape)} {hashlib.sha256(values).hexdigest()}\n"


def _combined(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _is_meta(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_meta


def _no_values(name: str) -> ValueError:
    return ValueError(f"'{name}' is on the meta device, which holds no values to take a fingerprint of")
