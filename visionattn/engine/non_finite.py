"""A loss or a gradient that is not finite: its step is left out, and a run that has nothing else is stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from visionattn.engine.checkpoint import good_checkpoint
from visionattn.engine.fsdp import local
from visionattn.registry import HOOKS

_STATE = "non_finite"


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Keeps every nan and inf out of weights, optimiser and running statistics, and says where they came from.

    A step is left out, on all processes, if the loss of one of its batches or its gradient is not finite; the buffers
    are put back to what they were before such a batch. work_dir/non_finite/iter_N.json has the images' names and the
    statistics of inputs, parameters, buffers and gradients. Gradients of float16 are its loss scaler's own business.

    Args:
        limit: steps that may be left out one after the other; the next one ends the run.
    """

    priority = "ABOVE_NORMAL"

    def __init__(self, limit: int = 10) -> None:
        if limit < 0:
            raise ValueError(f"limit={limit}: the number of steps that may be left out in a row cannot be negative")
        self.limit = limit
        self.in_a_row = 0
        self._guarded: list[OptimWrapper] = []
        self._spoilt: set[int] = set()  # wrappers whose step, as far as it is accumulated, holds what is not finite
        self._found: str | None = None  # in this iteration
        self._left_out: bool | None = None  # this iteration's step; None if it had none
        self._where = ""
        self._gradients: dict[str, Any] = {}
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def before_train(self, runner: Any) -> None:
        state = runner.message_hub.runtime_info.get(_STATE, {})
        self.in_a_row, self._spoilt = state.get("in_a_row", 0), set(state.get("spoilt", ()))
        wrapper = runner.optim_wrapper
        wrappers = wrapper.optim_wrappers.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        for number, one in enumerate(wrappers):
            if one not in self._guarded:
                self._guarded.append(one)
                one.backward = partial(self._backward, number, one.backward)
                counted = hasattr(one.step, "_with_counter")
                one.step = partial(self._step, runner, number, one.step)
                if counted:  # by the parameter schedulers, which look for their mark
                    one.step._with_counter = True
        self._buffers = [(buffer, buffer.clone()) for buffer in runner.model.buffers()]

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self._found = self._left_out = None
        with torch.no_grad():
            for buffer, kept in self._buffers:
                kept.copy_(buffer)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        if self._left_out is not None:
            self.in_a_row = self.in_a_row + 1 if self._left_out else 0
        if self._found is not None:
            images = image_names(data_batch)
            report = self._report(runner, data_batch, outputs or {}, images)
            shown = f" ({', '.join(images[:4])}{', ...' if len(images) > 4 else ''})" if images else ""
            self._where = f"iteration {runner.iter + 1}: the {self._found} is not finite{shown}; see {report}"
            runner.logger.warning(
                f"{self._where}; its step is left out ({self.in_a_row} in a row, {self.limit} may be)"
            )
        if self._found is not None or self._left_out is not None:
            info = {"in_a_row": self.in_a_row, "spoilt": sorted(self._spoilt)}
            runner.message_hub.update_info(_STATE, info)
        if self.in_a_row > self.limit:
            good = good_checkpoint(runner.work_dir)
            raise ValueError(
                f"{self._where}; stopped, as the step was the {self.in_a_row}. in a row to be left out: lower the "
                "learning rate, or take out what is wrong with the data, then "
                + (f"resume from {good}" if good else "begin again: there is no checkpoint yet")
            )

    def _backward(self, number: int, backward: Callable[..., None], loss: Tensor, **kwargs: Any) -> None:
        if _everywhere(torch.isfinite(loss.detach()).all()):
            backward(loss, **kwargs)
            return
        self._found = "loss"
        self._spoilt.add(number)
        self._guarded[number]._inner_count += 1
        with torch.no_grad():
            for buffer, kept in self._buffers:
                buffer.copy_(kept)

    def _step(self, runner: Any, number: int, step: Callable[..., None], **kwargs: Any) -> None:
        wrapper = self._guarded[number]
        self._left_out = True
        if number in self._spoilt:  # the wrapper drops the gradients next
            self._spoilt.remove(number)
            return
        scaler = getattr(wrapper, "loss_scaler", None)
        if scaler is None or not scaler.is_enabled():
            gradients = [p.grad for group in wrapper.param_groups for p in group["params"] if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            if isinstance(norm, DTensor):
                norm = norm.full_tensor()
            if not _everywhere(torch.isfinite(norm)):
                self._found = "gradient"
                named = runner.model.named_parameters()
                self._gradients = {name: statistics(p.grad) for name, p in named if p.grad is not None}
                return
        self._left_out = False
        step(**kwargs)

    def _report(self, runner: Any, batch: Any, outputs: Mapping[str, Any], images: Sequence[str]) -> Path:
        rank = get_rank()
        path = Path(runner.work_dir) / "non_finite" / f"iter_{runner.iter + 1}{f'_rank_{rank}' if rank else ''}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        model = getattr(runner.model, "module", runner.model)
        content = {
            "iteration": runner.iter + 1,
            "epoch": runner.epoch,
            "what": self._found,
            "images": list(images),
            "losses": {name: _number(torch.as_tensor(value).detach().item()) for name, value in outputs.items()},
            "inputs": {name: statistics(tensor) for name, tensor in _tensors(batch, "batch")},
            "gradients": self._gradients,
            "parameters": {name: statistics(p) for name, p in model.named_parameters()},
            "buffers": {name: statistics(buffer) for name, buffer in model.named_buffers()},
        }
        self._gradients = {}
        path.write_text(json.dumps(content, indent=1))
        return path


def statistics(tensor: Tensor) -> dict[str, Any]:
    """Shape, type, and over the finite elements minimum, maximum, mean; how many are nan and inf.

    Of a tensor that is spread over the processes, this one's part.
    """
    values = local(tensor.detach())
    found: dict[str, Any] = {"shape": list(values.shape), "dtype": str(values.dtype).removeprefix("torch.")}
    finite = values[torch.isfinite(values)].double() if values.is_floating_point() else values.double().flatten()
    if finite.numel():
        found |= {"min": finite.min().item(), "max": finite.max().item(), "mean": finite.mean().item()}
    if values.is_floating_point():
        found |= {"nan": int(values.isnan().sum()), "inf": int(values.isinf().sum())}
    return found


def image_names(batch: Any) -> list[str]:
    """The image files of a batch, by what its data samples say, or dicts in it."""
    if isinstance(batch, Mapping):
        given = batch.get("img_path", ())
        named = [given] if isinstance(given, str | Path) else list(given)
        return [str(name) for name in named] + image_names([value for key, value in batch.items() if key != "img_path"])
    if isinstance(batch, list | tuple):
        return [name for one in batch for name in image_names(one)]
    return image_names(batch.metainfo) if hasattr(batch, "metainfo") else []


def _tensors(batch: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _tensors(value, f"{name}.{key}")
    elif isinstance(batch, list | tuple):
        for index, value in enumerate(batch):
            yield from _tensors(value, f"{name}[{index}]")


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON has no nan


def _everywhere(flag: Tensor) -> bool:
    """Whether the flag is true on every process."""
    number = flag.int()
    all_reduce(number, "min")
    return bool(number)
