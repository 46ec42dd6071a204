"""Random features that are drawn anew while a model trains."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from mmengine.hooks import Hook

from visionattn.attention.performer import Performer
from visionattn.registry import HOOKS


@HOOKS.register_module()
class RedrawFeaturesHook(Hook):
    """Redraws every Performer's features after each `redraw_interval` iterations, by its own option; always at work.

    The new features follow from the old ones and the iteration alone: every process draws the same, and a resumed run
    what it would have drawn. Between two iterations, so that a checkpointed block meets the same features when it runs
    again for its backward. EMAHook(update_buffers=True) would average features of two draws: leave that option out.
    """

    def before_train(self, runner: Any) -> None:
        self._performers = [module for module in runner.model.modules() if isinstance(module, Performer)]

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        done = runner.iter + 1
        for mixer in self._performers:
            if mixer.redraw_interval is not None and done % mixer.redraw_interval == 0:
                old = mixer.projection_matrix.float().cpu().numpy().tobytes()
                mixer.redraw(torch.Generator().manual_seed(zlib.crc32(old, done)))
