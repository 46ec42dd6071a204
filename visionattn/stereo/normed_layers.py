"""Convolution, batch norm and what follows, one step where what is between need not be kept for the backward."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TypeGuard

import torch
from torch import Tensor, nn

from visionattn.attention.shortcut import unobserved
from visionattn.ops.remade_norm import is_packing, is_remaking, remade_norm, remaking
from visionattn.stereo.shortcuts import shortens


def activations_remade(image: Tensor) -> AbstractContextManager[None]:
    """Around a training step's forward: the layers of this file keep for the backward what the convolutions answer, and
    nothing of what norms and activations make of it. Changes nothing where there is no backward, or on a GPU.

    Taken where `shortens` allows it for the image, and nobody else's hooks look at what is kept.
    """
    taken = image.is_cpu and torch.is_grad_enabled() and shortens(image) and not is_packing()
    return remaking() if taken else nullcontext()


class ConvNorm(nn.Sequential):
    """A convolution and its batch norm."""

    def forward(self, x: Tensor, plus: Tensor | None = None, *, relu: bool = False) -> Tensor:  # type: ignore[override]
        """norm(conv(x)) + plus, with ReLU or without.

        Args:
            x: what the convolution takes.
            plus: of the answer's shape.
        """
        conv, norm = self
        answer = conv(x)
        if (relu or plus is not None) and is_remaking() and _is_ordinary(norm, answer):
            return _remade(norm, answer, plus, relu)
        out: Tensor = norm(answer)
        del answer  # one volume less while the sum is made
        if plus is not None:
            kept = torch.is_grad_enabled() or out.dtype != plus.dtype
            out = out + plus if kept else out.add_(plus)
        return out.relu_() if relu else out


class Chain(nn.Sequential):
    """Layers one after the other; a ReLU behind a `ConvNorm` becomes part of it where its answer is made again."""

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, ConvNorm) and layers and _becomes_part(layer, layers[0]):
                layers.pop(0)
                x = layer(x, relu=True)
            else:
                x = layer(x)
        return x


def _becomes_part(layer: ConvNorm, behind: nn.Module) -> bool:
    return is_remaking() and type(behind) is nn.ReLU and unobserved(layer, behind)


_Norm = nn.BatchNorm2d | nn.BatchNorm3d


def _remade(norm: _Norm, x: Tensor, plus: Tensor | None, relu: bool) -> Tensor:
    """What norm(x) + plus is, for a norm that `_is_ordinary`."""
    mean, variance, number, momentum = norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum
    assert mean is not None
    assert variance is not None
    assert number is not None
    assert momentum is not None
    number.add_(1)
    return remade_norm(x, norm.weight, norm.bias, mean, variance, momentum=momentum, eps=norm.eps, plus=plus, relu=relu)


def _is_ordinary(norm: nn.Module, x: Tensor) -> TypeGuard[_Norm]:
    """A plain batch norm in training, with weights and running numbers, that nobody watches."""
    return (
        isinstance(norm, _Norm)
        and type(norm) in (nn.BatchNorm2d, nn.BatchNorm3d)
        and norm.training
        and norm.track_running_stats
        and norm.momentum is not None
        and _is_plain(norm.weight, x.dtype)
        and _is_plain(norm.bias, x.dtype)
        and unobserved(norm)
        and x.numel() > x.shape[1]  # or PyTorch's own refuses it
    )


def _is_plain(parameter: Tensor | None, dtype: torch.dtype) -> bool:
    return type(parameter) is nn.Parameter and parameter.dtype == dtype
