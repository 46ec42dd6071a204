"""What several processes found of a data set's samples, put back together in its order.

A sampler deals samples out like cards, and gives every process as many: the last ones of some are repetitions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

T = TypeVar("T")


def repeated(numbers: Sequence[int], size: int) -> list[int]:
    """How many of each process's last samples are repetitions.

    Args:
        numbers: samples that each process has seen; sample i of process r is sample i * processes + r of the sampler.
        size: samples in the data set.
    """
    left = list(numbers)
    for _ in range(sum(numbers) - size):
        left[max(range(len(left)), key=lambda rank: (left[rank], rank))] -= 1
    return [number - some for number, some in zip(numbers, left, strict=True)]


def dealt(lists: Sequence[Sequence[T]]) -> list[T]:
    """The items in the order in which the sampler dealt them out: the first of each process, the second of each ..."""
    return [some[turn] for turn in range(max(map(len, lists))) for some in lists if turn < len(some)]


def all_lists(items: Sequence[Any], gather: Callable[[Tensor], list[Tensor]]) -> list[list[Any]]:
    """Every process's list. As JSON: mmengine's own way is pickle, in files that many machines must share.

    Args:
        items: what JSON can say; anything else becomes its text.
        gather: from a tensor those of all processes, of one shape, by rank.
    """
    text = torch.frombuffer(bytearray(json.dumps(items, default=str).encode()), dtype=torch.uint8)
    lengths = [int(length) for length in gather(torch.tensor(len(text)))]
    texts = gather(F.pad(text, (0, max(lengths) - len(text))))
    return [json.loads(padded[:length].cpu().numpy().tobytes()) for padded, length in zip(texts, lengths, strict=True)]
