"""Sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv 2010.01412): steps by the worst neighbour's gradient.

The gradient g at the weights w leads to w + rho g / |g|; the optimiser steps from w by the gradient found there. Every
iteration so costs two forward and two backward passes.

Compared with: davda54/sam (MIT), as romilbert/samformer@71f10eaa has it.
Differs: weights come back bit by bit, from copies; the second pass leaves running statistics alone; several processes
(DDP, FSDP) climb along the gradient of the whole batch, to one neighbour, where the paper's accelerators climb each
along its own batch's (its "m-sharpness").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from visionattn.engine.amp import AmpOptimWrapper
from visionattn.registry import OPTIM_WRAPPERS


class _Call(NamedTuple):
    """A forward pass that can be run again."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@OPTIM_WRAPPERS.register_module()
class SAMOptimWrapper(OptimWrapper):
    """Steps of any optimiser by sharpness-aware gradients; losses in the log are those of the first pass.

        optim_wrapper = dict(type="visionattn.SAMOptimWrapper", rho=0.05, optimizer=dict(type="AdamW", lr=1e-3))

    The forward pass is repeated with the batch as it was given to the model; dropout draws anew. Gradients are clipped
    in the second pass only. Where the first pass has a loss or a gradient that is not finite, there is no second one.

    Args:
        optimizer, clip_grad: as of mmengine's OptimWrapper.
        accumulative_counts: 1; the first pass needs the gradient of the whole step.
        rho: how far to go, in the Euclidean norm over all weights.
    Raises:
        ValueError: rho is not above 0, or gradients are to be accumulated.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        accumulative_counts: int = 1,
        clip_grad: dict[str, Any] | None = None,
        *,
        rho: float = 0.05,
    ) -> None:
        name = type(self).__name__
        if accumulative_counts != 1:
            raise ValueError(
                f"{name} has accumulative_counts={accumulative_counts}: its first pass needs the gradient of the whole "
                "step, so that no gradients can be accumulated; take a larger batch, or more processes"
            )
        if not 0.0 < rho < float("inf"):
            raise ValueError(f"{name} has rho={rho}; it must be above 0, such as 0.05 (without it, take OptimWrapper)")
        super().__init__(optimizer, accumulative_counts, clip_grad)
        self.rho = rho
        self._calls: list[_Call] = []

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        self._calls = []

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._calls.append(_Call(module, args, kwargs))

        handle: RemovableHandle = model.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            with super().optim_context(model):
                yield
        finally:
            handle.remove()

    def update_params(
        self, loss: Tensor, step_kwargs: dict[str, Any] | None = None, zero_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Both passes and the step.

        Args:
            loss: of the forward pass inside `optim_context`.
            step_kwargs, zero_kwargs: of the optimiser's step and zero_grad.
        Raises:
            ValueError: the model was not called exactly once inside `optim_context`.
        """
        calls, self._calls = self._calls, []
        if len(calls) != 1:
            raise ValueError(
                f"{type(self).__name__} repeats the model's forward pass, and saw {len(calls)} of them: its train_step "
                "must call the model itself once inside optim_context, as that of mmengine's BaseModel does"
            )
        self.backward(loss)
        kept = self._climb()
        if kept:
            self.zero_grad(**(zero_kwargs or {}))
            try:
                self._repeat(calls[0])
            finally:
                with torch.no_grad():
                    for parameter, weights in kept:
                        parameter.copy_(weights)
        self.step(**(step_kwargs or {}))
        self.zero_grad(**(zero_kwargs or {}))

    def _climb(self) -> list[tuple[Tensor, Tensor]]:
        """Moves the weights by rho along the gradient; what they were. Nothing moves if the gradient is not finite."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not parameters:  # those of a loss that is not finite were left out
            return []
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        length = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not 0.0 < length < float("inf"):
            return []
        kept = [(p, p.detach().clone()) for p in parameters]
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(parameter.grad, alpha=self.rho / length)
        return kept

    def _repeat(self, call: _Call) -> None:
        """The gradient where the weights are now."""
        model: Any = call.model
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        with super().optim_context(model):
            losses = model(*call.args, **call.kwargs)
        loss, _ = getattr(model, "module", model).parse_losses(losses)
        self._inner_count -= 1  # both passes are one iteration
        self.backward(loss)
        if any(p.grad is not None for group in self.param_groups for p in group["params"]):
            with torch.no_grad():
                for buffer, statistics in buffers:
                    buffer.copy_(statistics)


@OPTIM_WRAPPERS.register_module()
class SAMAmpOptimWrapper(SAMOptimWrapper, AmpOptimWrapper):
    """`SAMOptimWrapper` with both forward passes in bfloat16, as of `AmpOptimWrapper`."""
