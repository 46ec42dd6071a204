"""Inputs of every memory order that the kernels read, and how far an answer is from the truth."""

from __future__ import annotations

import torch
from torch import Tensor

ORDERS = ("token by token", "channels first", "head by head")


def laid_out(
    order: str,
    batch: int,
    heads: int,
    tokens: int,
    width: int,
    *,
    dtype: torch.dtype,
    spread: float,
    seed: int,
    device: str = "cpu",
) -> Tensor:
    """Random [batch, heads, tokens, width] of one of `ORDERS`, inside a larger tensor, as a split projection is."""
    shape = {
        "token by token": (batch, tokens, heads + 1, width),
        "channels first": (batch, heads + 1, width, tokens),
        "head by head": (batch, heads + 1, tokens, width),
    }[order]
    t = (spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(device, dtype)
    return {"token by token": t.transpose(1, 2), "channels first": t.mT, "head by head": t}[order][:, 1:]


def key_mask(kind: str, batch: int, length: int, device: str = "cpu") -> Tensor | None:
    """None for "none"; else [batch, length] with strides of its own, three fifths real, the first key always.

    "one image without": the second image has no real key.
    """
    if kind == "none":
        return None
    mask = torch.rand(batch, 2 * length, generator=torch.Generator().manual_seed(9)) < 0.6
    mask = mask.to(device)[:, ::2]
    mask[:, 0] = True
    if kind == "one image without":
        mask[1] = False
    return mask


def error(ours: Tensor, truth: Tensor) -> float:
    """Largest difference in units of the truth's largest number, or of 0.1 if that is smaller; NaN where one is."""
    if truth.numel() == 0:
        return 0.0
    return ((ours.double() - truth.double()).abs().max() / truth.double().abs().max().clamp(min=0.1)).item()
