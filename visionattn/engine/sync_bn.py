"""Batch norm over the batches of all processes, on GPUs and on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_PLAIN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


class CPUSyncBatchNorm(_BatchNorm):
    """What torch.nn.SyncBatchNorm is on GPUs; that class refuses tensors on a CPU, and DDP refuses it there.

    Mean and squared deviations are summed over the processes one after the other, so that nothing cancels.
    """

    def forward(self, input: Tensor) -> Tensor:
        joint = self.training and get_world_size() > 1
        return self._normalised(input) if joint else super().forward(input)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [B, C, ...], got {list(input.shape)}")

    def _normalised(self, x: Tensor) -> Tensor:
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        exact = x if x.dtype == torch.float64 else x.float()
        # [C + 1]: sums, and how many they are of
        sums: Tensor = _Sum.apply(torch.cat([exact.sum(axes), exact.new_tensor([x.numel() / x.shape[1]])]))
        number = sums[-1].detach()
        mean = sums[:-1] / number
        centred = exact - mean.view(shape)
        variance: Tensor = _Sum.apply(centred.square().sum(axes)) / number
        self._count(mean.detach(), variance.detach(), number)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(x.dtype)

    def _count(self, mean: Tensor, variance: Tensor, number: Tensor) -> None:
        """Moves the running statistics, the variance as that of a sample."""
        if not self.track_running_stats:
            return
        assert isinstance(self.num_batches_tracked, Tensor)
        assert isinstance(self.running_mean, Tensor)
        assert isinstance(self.running_var, Tensor)
        self.num_batches_tracked.add_(1)
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_((variance * number / (number - 1)).to(self.running_var), momentum)


class _WithAct(nn.Module):
    """The norm below it, then the dropout and the activation that timm's BatchNormAct2d comes with."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = self.act(self.drop(super().forward(input)))
        return out


class SyncBatchNormAct(_WithAct, nn.SyncBatchNorm):
    """timm's BatchNormAct2d on GPUs."""


class CPUSyncBatchNormAct(_WithAct, CPUSyncBatchNorm):
    """timm's BatchNormAct2d on CPUs."""


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        all_reduce(total)
        return total


def synchronised(model: nn.Module, device: str, kinds: tuple[type[nn.Module], ...] = (_BatchNorm,)) -> nn.Module:
    """The model with every batch norm synchronised: the same parameters, buffers and names.

    Args:
        device: "cpu" or what the model will be on; torch.nn.SyncBatchNorm where it is not the CPU.
        kinds: the norms that are replaced; (nn.SyncBatchNorm,) takes those alone that a config names "SyncBN".
    Raises:
        ValueError: a batch norm of another class, whose own forward would be lost.
    """
    for name, module in list(model.named_modules()):
        already = isinstance(module, nn.SyncBatchNorm) and device != "cpu"
        if isinstance(module, _BatchNorm) and isinstance(module, kinds) and not already:
            replaced = _replaced(module, name, device)
            if name == "":
                return replaced
            above, _, last = name.rpartition(".")
            setattr(model.get_submodule(above), last, replaced)
    return model


def _replaced(norm: _BatchNorm, name: str, device: str) -> _BatchNorm:
    options = (norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made: _BatchNorm
    if type(norm).forward in _PLAIN:
        made = CPUSyncBatchNorm(*options) if device == "cpu" else nn.SyncBatchNorm(*options)
    elif sorted(part for part, _ in norm.named_children()) == ["act", "drop"]:
        # mmengine's conversion keeps these two and does not call them.
        made = CPUSyncBatchNormAct(*options) if device == "cpu" else SyncBatchNormAct(*options)
        made.drop, made.act = norm.get_submodule("drop"), norm.get_submodule("act")
    else:
        raise ValueError(
            f"sync_bn: {name} is a {type(norm).__name__}, whose forward is its own; what can be synchronised is "
            "torch's batch norm and timm's BatchNormAct2d"
        )
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    return made.train(norm.training)
