"""Norms inside a mechanism's formula, over tokens [B, N, C], whose statistics padded tokens do not enter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32, without_autocast


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by the statistics, weight and bias of a checkpoint, none of which is trained."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, number in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((width,), number))

    def forward(self, tokens: Tensor) -> Tensor:
        """[.., C]."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return tokens * scale + (self.bias - self.running_mean * scale)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # a batch norm's count, of no use here
        super()._load_from_state_dict(state_dict, prefix, *args)


def token_norm(width: int, groups: int | None, frozen: bool) -> nn.Module:
    """A batch norm, frozen if asked for, or a group norm if groups are given.

    Raises:
        ValueError: groups do not divide the width, or are to be frozen.
    """
    if groups is None:
        return FrozenBatchNorm(width) if frozen else nn.BatchNorm1d(width)
    if frozen:
        raise ValueError(f"frozen_norm freezes a batch norm, but norm_groups={groups} asks for a group norm; drop one")
    if groups < 1 or width % groups:
        raise ValueError(f"norm_groups={groups} does not divide a norm's width of {width}; use 1 or another divisor")
    return nn.GroupNorm(groups, width)


def normalized(norm: nn.Module, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Normalised tokens [B, N, C]; those outside mask [B, N] (True = real) count in no statistic."""
    if isinstance(norm, nn.GroupNorm):
        return _group_normalized(norm, tokens, mask)
    if mask is None or not norm.training or isinstance(norm, FrozenBatchNorm):
        flat: Tensor = norm(tokens.flatten(0, 1))
        return flat.reshape(tokens.shape)
    real = norm(tokens[mask])
    return torch.zeros_like(tokens, dtype=real.dtype).masked_scatter(mask[..., None], real)


def _group_normalized(norm: nn.GroupNorm, tokens: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return F.group_norm(tokens.mT, norm.num_groups, norm.weight, norm.bias, norm.eps).mT
    with without_autocast(tokens.device):
        grouped = at_least_float32(tokens).reshape(*tokens.shape[:2], norm.num_groups, -1)
        real = mask[:, :, None, None].to(grouped.dtype)
        share = real / (real.sum(1, keepdim=True) * grouped.shape[-1]).clamp(min=1)
        centred = grouped - (grouped * share).sum((1, 3), keepdim=True)
        variance = (centred.square() * share).sum((1, 3), keepdim=True)
        normal = (centred * (variance + norm.eps).rsqrt()).flatten(2)
        return (normal * norm.weight + norm.bias).to(tokens.dtype)
