"""In which precision sums over many tokens run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(t: Tensor) -> Tensor:
    """t, in float32 if it is of a half precision."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Operations keep their arguments' precision inside; also for devices that have no autocast, as "meta"."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
