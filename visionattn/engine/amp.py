"""Mixed precision: bfloat16 on any device, float16 with a loss scaler on a GPU.

Differs from mmengine's AmpOptimWrapper, which is for accelerators only and scales the loss in bfloat16 too, where
nothing underflows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from visionattn.registry import OPTIM_WRAPPERS

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(OptimWrapper):
    """Runs the forward pass under autocast; weights, gradients and optimiser stay as they are.

        optim_wrapper = dict(type="visionattn.AmpOptimWrapper", optimizer=dict(type="AdamW", lr=1e-3))

    Args:
        optimizer, accumulative_counts, clip_grad: as of mmengine's OptimWrapper.
        dtype: "bfloat16", or "float16" for GPUs without it: its losses are scaled, and steps that overflow left out.
        init_scale: the loss scale that float16 begins with; bfloat16 has none.
    Raises:
        ValueError: another dtype, or float16 for a model that is not on a GPU.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        accumulative_counts: int = 1,
        clip_grad: dict[str, Any] | None = None,
        *,
        dtype: Literal["bfloat16", "float16"] = "bfloat16",
        init_scale: float = 2.0**16,
    ) -> None:
        super().__init__(optimizer, accumulative_counts, clip_grad)
        if dtype not in _DTYPES:
            raise ValueError(f"AmpOptimWrapper has dtype={dtype!r}; it can be 'bfloat16' or 'float16'")
        self.device_type = optimizer.param_groups[0]["params"][0].device.type
        if dtype == "float16" and self.device_type != "cuda":
            raise ValueError(f"dtype='float16' needs a GPU, the model is on the {self.device_type}; use 'bfloat16'")
        self.dtype = _DTYPES[dtype]
        self.loss_scaler = GradScaler(self.device_type, init_scale, enabled=dtype == "float16")

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast(self.device_type, self.dtype):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "loss_scaler": self.loss_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state_dict = dict(state_dict)
        scaler = state_dict.pop("loss_scaler", None)
        if scaler and self.loss_scaler.is_enabled():
            self.loss_scaler.load_state_dict(scaler)
        super().load_state_dict(state_dict)
