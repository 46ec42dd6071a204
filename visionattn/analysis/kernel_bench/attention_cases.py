"""The cases of attention: efficient, linear, double, in windows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.analysis.kernel_bench.block_peers import Batched, DoubleBlock, FusedSoftmax, PerHeadLoop, Projections
from visionattn.analysis.kernel_bench.case import Case, Family, Form, Function, normal
from visionattn.attention.base import QKVAttention
from visionattn.attention.build import build_attention
from visionattn.attention.efficient import EfficientAttention
from visionattn.blocks.plugin import AttentionPlugin
from visionattn.ops.efficient_attention import efficient_attention
from visionattn.ops.feature_attention import favor_attention, linear_attention

_LONGEST_SOFTMAX = {"cuda": 128 * 128, "cpu": 64 * 64}
"""Tokens beyond which quadratic attention would take most of the time of the whole."""

_BF16, _FP32 = torch.bfloat16, torch.float32
_CORES = {  # side, images, heads, channels per head, dtype
    "cuda": ((64, 8, 8, 64, _BF16), (128, 8, 8, 64, _BF16), (256, 8, 8, 64, _BF16), (128, 8, 8, 64, _FP32)),
    "cpu": ((32, 1, 8, 32, _FP32), (64, 1, 8, 32, _FP32), (128, 1, 8, 32, _FP32)),
}
_BLOCKS = {  # channels, key width, side, heads, images, dtype
    "cuda": (
        (64, 64, 64, 8, 8, _BF16),
        (64, 64, 256, 1, 8, _BF16),
        (128, 128, 128, 8, 8, _BF16),
        (256, 128, 128, 8, 8, _BF16),
        (256, 128, 128, 8, 8, _FP32),
    ),
    "cpu": ((64, 64, 32, 1, 1, _FP32), (64, 64, 64, 8, 1, _FP32), (64, 64, 128, 8, 1, _FP32)),
}
_DOUBLES = {  # channels, side, images, dtype
    "cuda": ((512, 64, 8, _BF16), (512, 128, 8, _BF16)),
    "cpu": ((128, 32, 1, _FP32), (256, 64, 1, _FP32)),
}
_WINDOWS = {  # channels, heads, side, shift, images, dtype; the last one is padded to whole windows
    "cuda": (
        (192, 6, 63, 3, 16, _BF16),
        (96, 3, 126, 0, 16, _BF16),
        (96, 3, 126, 3, 16, _BF16),
        (96, 3, 128, 3, 16, _BF16),
    ),
    "cpu": ((96, 3, 28, 3, 1, _FP32), (96, 3, 126, 3, 1, _FP32), (192, 6, 64, 3, 1, _FP32)),
}


def attention_families() -> dict[str, Family]:
    """By the name that each is asked for by; peers of other packages are not among them."""
    return {
        "efficient-attention": Family(
            "efficient attention on q, k, v", partial(_core_cases, "efficient-attention", _efficient_forms)
        ),
        "efficient-block": Family("its block: projections, attention, reprojection, residual", _block_cases),
        "linear-attention": Family(
            "elu + 1 linear attention on q, k, v", partial(_core_cases, "linear-attention", _linear_forms)
        ),
        "performer": Family("FAVOR+ on q, k, v", partial(_core_cases, "performer", _favor_forms)),
        "double-attention": Family("double attention with its projections", _double_cases),
        "window-attention": Family("Swin's section of shifted-window attention with its projections", _window_cases),
    }


def _core_cases(family: str, forms: Callable[..., list[Form]], kind: str) -> list[Case]:
    cases = []
    for number, (side, batch, heads, width, dtype) in enumerate(_CORES[kind]):

        def inputs(
            images: int, generator: torch.Generator, shape: tuple[int, ...] = (side**2, heads, width), dtype=dtype
        ) -> tuple[Tensor, ...]:
            # Token by token in memory, as a projection leaves them.
            return tuple(normal(images, *shape, generator=generator, dtype=dtype).transpose(1, 2) for _ in range(3))

        cases.append(
            Case(
                family,
                f"{side}x{side} tokens, {heads} heads of {width}",
                batch,
                dtype,
                inputs,
                partial(forms, tokens=side**2, width=width),
                smallest=number == 0,
            )
        )
    return cases


def _efficient_forms(device: torch.device, *, tokens: int, width: int) -> list[Form]:
    return [
        *_on_device(Function(efficient_attention), device),
        Form("loop", Function(_published_loop)),
        *_softmax(device, tokens),
    ]


def _linear_forms(device: torch.device, *, tokens: int, width: int) -> list[Form]:
    return [
        *_on_device(Function(linear_attention), device),
        Form("einsum", Function(_published_linear)),
        *_softmax(device, tokens),
    ]


def _favor_forms(device: torch.device, *, tokens: int, width: int) -> list[Form]:
    count = int(width * math.log(width))  # the published number
    features = torch.randn(count, width, generator=torch.Generator().manual_seed(3)).to(device)
    module = _Favor(features)
    return [*_on_device(module, device), Form("published", _PublishedFavor(features)), *_softmax(device, tokens)]


def _on_device(module: nn.Module, device: torch.device) -> list[Form]:
    """Ours, and beside it the plain form where ours is another one: these functions have none of their own on CPU."""
    ours = [Form("ours", module, own=True)]
    return ours if device.type == "cpu" else [*ours, Form("eager", module)]


def _softmax(device: torch.device, tokens: int) -> list[Form]:
    if tokens > _LONGEST_SOFTMAX[device.type]:
        return []
    return [Form("sdpa", Function(F.scaled_dot_product_attention), same=False)]


class _Favor(nn.Module):
    projection: Tensor

    def __init__(self, projection: Tensor) -> None:
        super().__init__()
        self.register_buffer("projection", projection)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return favor_attention(q, k, v, self.projection)


class _PublishedFavor(_Favor):
    """In the steps of the published code: features, normalisers, context, product."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, keys = self.features(q, (-1,)), self.features(k, (-1, -2))
        normalisers = 1 / torch.einsum("bhnr,bhr->bhn", queries, keys.sum(2))
        context = torch.einsum("bhnr,bhne->bhre", keys, v)
        return torch.einsum("bhnr,bhre,bhn->bhne", queries, context, normalisers)

    def features(self, x: Tensor, largest_over: tuple[int, ...]) -> Tensor:
        x = x * x.shape[-1] ** -0.25
        along = x @ self.projection.to(x.dtype).mT
        exponents = along - x.square().sum(-1, keepdim=True) / 2 - along.detach().amax(largest_over, keepdim=True)
        return len(self.projection) ** -0.5 * (exponents.exp() + 1e-4)


def _published_loop(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Efficient attention as published, on channels-first maps, one head after the other."""
    attended = []
    for queries, keys, values in zip(*(t.mT.unbind(1) for t in (q, k, v)), strict=True):
        context = keys.softmax(-1) @ values.mT
        attended.append(context.mT @ queries.softmax(1))
    return torch.stack(attended, dim=1).mT


def _published_linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention as published: einsums over tokens, heads and channels."""
    queries, keys = F.elu(q) + 1, F.elu(k) + 1
    context = torch.einsum("bhnd,bhne->bhde", keys, v)
    sums = torch.einsum("bhnd,bhd->bhn", queries, keys.sum(2)) + 1e-6
    return torch.einsum("bhnd,bhde,bhn->bhne", queries, context, 1 / sums)


def _block_cases(kind: str) -> list[Case]:
    cases = []
    for number, (channels, key_dim, side, heads, batch, dtype) in enumerate(_BLOCKS[kind]):

        def forms(
            device: torch.device, sizes: tuple[int, int, int] = (channels, key_dim, heads), side=side, dtype=dtype
        ) -> list[Form]:
            channels, key_dim, heads = sizes
            attention = {"type": "EfficientAttention", "key_dim": key_dim, "num_heads": heads}
            ours = AttentionPlugin(channels, attention, zero_init=False).to(device, dtype)
            made = [Form("ours", ours, own=True), Form("eager", ours)]
            if device.type != "cpu":
                made.append(Form("unfolded", _unfolded(ours), own=True))
            for name, peer in (("loop", PerHeadLoop), ("batched", Batched)):
                made.append(Form(name, _with_weights(peer(channels, key_dim, channels, heads), ours.attn, device)))
            if side**2 <= _LONGEST_SOFTMAX[device.type]:
                made.append(Form("sdpa", FusedSoftmax(channels, key_dim, heads).to(device, dtype), same=False))
            return made

        cases.append(
            Case(
                "efficient-block",
                f"{side}x{side} map of {channels} channels, {heads} head{'s' if heads > 1 else ''}, keys {key_dim}",
                batch,
                dtype,
                _maps((channels, side, side), dtype),
                forms,
                smallest=number == 0,
            )
        )
    return cases


class _Unfolded(EfficientAttention):
    """By the kernels of its core: only the mechanism itself is folded, not a class derived from it."""


def _unfolded(block: AttentionPlugin) -> AttentionPlugin:
    """The same block, with the same weights, whose projections and attention are apart."""
    other = copy.deepcopy(block)
    other.attn.__class__ = _Unfolded
    return other


def _double_cases(kind: str) -> list[Case]:
    cases = []
    for number, (channels, side, batch, dtype) in enumerate(_DOUBLES[kind]):

        def forms(device: torch.device, channels: int = channels, dtype: torch.dtype = dtype) -> list[Form]:
            ours = build_attention("DoubleAttention", channels).to(device, dtype)
            assert isinstance(ours, QKVAttention)
            published = _with_weights(DoubleBlock(channels, ours.key_dim, ours.value_dim, 1), ours, device)
            return [*_on_device(ours, device), Form("published", published)]

        size = f"{side}x{side} map of {channels} channels"
        inputs = _maps((side, side, channels), dtype)
        cases.append(Case("double-attention", size, batch, dtype, inputs, forms, smallest=number == 0))
    return cases


def _window_cases(kind: str) -> list[Case]:
    cases = []
    for number, (channels, heads, side, shift, batch, dtype) in enumerate(_WINDOWS[kind]):

        def forms(
            device: torch.device, sizes: tuple[int, int, int] = (channels, heads, shift), dtype=dtype
        ) -> list[Form]:
            channels, heads, shift = sizes
            attention = {"type": "WindowAttention", "num_heads": heads, "shift": (shift, shift), "mask_padding": False}
            ours = build_attention(attention, channels).to(device, dtype)
            return [Form("ours", ours, own=True), Form("eager", ours)]

        shifted = f"windows of 7 shifted by {shift}" if shift else "windows of 7"
        cases.append(
            Case(
                "window-attention",
                f"{side}x{side} map of {channels} channels, {heads} heads, {shifted}",
                batch,
                dtype,
                _maps((side, side, channels), dtype),
                forms,
                smallest=number == 0,
            )
        )
    return cases


def _maps(shape: Sequence[int], dtype: torch.dtype) -> Callable[[int, torch.Generator], tuple[Tensor, ...]]:
    """One map per image."""
    return lambda images, generator: (normal(images, *shape, generator=generator, dtype=dtype),)


def _with_weights(peer: Projections, ours: nn.Module, device: torch.device) -> nn.Module:
    assert isinstance(ours, QKVAttention)
    weight = ours.qkv.weight
    peer.to(device, weight.dtype).copy_weights(ours)
    return peer
