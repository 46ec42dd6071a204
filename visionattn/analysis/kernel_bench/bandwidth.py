"""How fast a device moves bytes, how many a case has to move, and how many inputs it takes to leave the caches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from visionattn.analysis.interleaved import Meter, interleaved

_COPIED = {"cuda": 2**30, "cpu": 2**27}  # bytes
_MOST_SETS = 8


def copied_bytes_per_second(device: torch.device, meter: Meter) -> float:
    """What copying a large tensor reaches, read and written bytes together."""
    source = torch.ones(_COPIED.get(device.type, 2**27) // 4, device=device)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, meter, repeats=7, budget_s=2.0)
    return 2 * size_of([source]) / (times["copy"].ms / 1e3)


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors' elements."""
    return sum(t.numel() * t.element_size() for t in tensors)


def fewest_bytes(inputs: Sequence[Tensor], learned: Sequence[Tensor], out: Tensor, *, training: bool) -> int:
    """What has to cross the memory once: forward reads inputs and weights and writes the answer.

    With a backward, that reads inputs, weights and the answer's gradient and writes the gradients of the former.
    """
    read, answer = size_of([*inputs, *learned]), size_of([out])
    forward = read + answer
    return forward + (2 * read + answer) if training else forward


def rotation(bytes_of_set: int, cache: int) -> int:
    """How many sets of inputs rotate, so that none is found in a cache of this size: two to eight."""
    return min(max(2, -(-2 * cache // max(bytes_of_set, 1))), _MOST_SETS)


def cache_bytes(device: torch.device) -> int:
    """The last cache before the device's memory; 32 MB where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = [_bytes(path.read_text()) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(sizes, default=32 * 2**20)


def _bytes(text: str) -> int:
    """Of 2048K or 32M."""
    text = text.strip()
    return int(text.rstrip("KM")) * {"K": 2**10, "M": 2**20}.get(text[-1:], 1)
