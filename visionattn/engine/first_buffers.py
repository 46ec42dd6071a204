"""One set of running statistics for a validation: that of the first process, which the checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import EMAHook
from torch import Tensor, nn


@contextmanager
def buffers_of_the_first_process(runner: Any) -> Iterator[None]:
    """Inside, every process has the first one's buffers, in the model and in its moving average.

    Batch norms that are not synchronised gather the statistics of their own process. What they gathered is there again
    afterwards: how often a run validates does not change it.
    """
    models = [runner.model, *(hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook))]
    buffers = [buffer for model in models for buffer in _saved_buffers(model)] if get_world_size() > 1 else []
    own = [buffer.clone() for buffer in buffers]
    for buffer in buffers:
        broadcast(buffer)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, own, strict=True):
                buffer.copy_(value)


def _saved_buffers(model: nn.Module) -> list[Tensor]:
    saved = set(model.state_dict())
    return [buffer for name, buffer in model.named_buffers() if name in saved]
