"""Inputs of every memory order that the kernels read, how far answers are from the truth, and what is too far."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import pytest
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


class HeadCase(Protocol):
    """What a case of attention says of each of its tensors."""

    order: str
    batch: int
    heads: int
    dtype: torch.dtype
    spread: float


def head_tensor(case: HeadCase, tokens: int, width: int, seed: int, device: str) -> Tensor:
    """`laid_out` as the case has it."""
    return laid_out(
        case.order,
        case.batch,
        case.heads,
        tokens,
        width,
        dtype=case.dtype,
        spread=case.spread,
        seed=seed,
        device=device,
    )


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


def kernel_errors(
    names: Iterable[str], kernel: Iterable[Tensor], twin: Iterable[Tensor], truth: Iterable[Tensor]
) -> dict[str, float]:
    """By "kernel: name" and "twin: name", the errors of each of some tensors."""
    found = {}
    for name, ours, plain, exact in zip(names, kernel, twin, truth, strict=True):
        found[f"kernel: {name}"], found[f"twin: {name}"] = error(ours.detach(), exact), error(plain, exact)
    return found


def different_strides(some: Iterable[Tensor], others: Iterable[Tensor]) -> float:
    """How many pairs differ in their strides."""
    return float(sum(a.stride() != b.stride() for a, b in zip(some, others, strict=True)))


def too_large(found: dict[str, float], rounding: float) -> dict[str, float]:
    """The errors that are: of a kernel above twice its twin's and above rounding; any of what "differs"."""
    wrong = {}
    for name, size in found.items():
        kind, _, of = name.partition(": ")
        if kind == "kernel":
            allowed = max(2 * found[f"twin: {of}"], rounding)
        elif kind == "twin":
            continue
        else:
            allowed = 0.0 if "differ" in name else 1e-11
        if not size <= allowed:  # NaN is too large
            wrong[name] = size
    return wrong


def assert_differentiable_once(answer: Tensor, leaf: Tensor) -> None:
    """Of an op's answer: who asks for the second derivative is told so, and the way out."""
    (first,) = torch.autograd.grad(answer.sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=r"visionattn::\w+ is differentiable once; with VISIONATTN_KERNELS=off"):
        first.sum().backward()
