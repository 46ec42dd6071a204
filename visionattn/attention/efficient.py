"""Efficient attention (Shen et al., Efficient Attention: Attention with Linear Complexities, WACV 2021, section 3.2).

Compared with: cmsflash/efficient-attention@46a5f9ea (MIT), golden vectors `efficient_attention_*`;
lucidrains/linear-attention-transformer@24ecf20b `ImageLinearAttention` (temperature d^(1/4)), golden vectors
`image_linear_attention_*`.
Differs: widths that the heads do not divide are refused (the reference drops channels); keys can be masked; the
residual is the block's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionattn.attention.base import Claims, ContextQKVAttention, QKVAttention
from visionattn.attention.shortcut import (
    ResidualMixer,
    plain_pair,
    plain_weights,
    runs_eagerly,
    takes_shortcuts,
    unobserved,
)
from visionattn.ops.efficient_attention import (
    efficient_attention,
    is_channels_first,
    project_maps,
    scaled_efficient_attention,
)
from visionattn.ops.folded_efficient_attention import folded_efficient_attention
from visionattn.ops.folded_mixing import Weights
from visionattn.ops.kernels.dispatch import asked_for, serves_folded
from visionattn.registry import ATTENTION
from visionattn.typing import Grid, Tokens

_PAPER = "Shen et al., WACV 2021, arXiv 1812.01243"

FEWEST_TOKENS = 256
"""Smaller maps cost calls, not arithmetic: the plain form has fewer of them."""


@ATTENTION.register_module()
class EfficientAttention(ContextQKVAttention, ResidualMixer):
    """softmax over channels of Q, softmax over positions of K: a true attention distribution of rank d, linear in N.

    Args:
        num_heads: 1 is the paper's form.
        key_dim: the author's choice is dim // 2.
        temperature: divides q and k before their softmax; d ** 0.25 is the author's suggestion, 1 the paper's form.
        normalize_queries: False leaves out the softmax of Q.
    """

    claims = Claims(paper=_PAPER, cost="N", permutation_equivariant=True, convex=True, causal=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 1,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        temperature: float = 1.0,
        normalize_queries: bool = True,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop,
        )
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be positive; 1.0 is the paper's form")
        self.temperature = temperature
        self.normalize_queries = normalize_queries

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return efficient_attention(
            q, k, v, mask, temperature=self.temperature, normalize_queries=self.normalize_queries
        )

    def add_to(self, residual: Tokens, x: Tokens, scale: Tensor | None = None, mask: Tensor | None = None) -> Tokens:
        """One walk over the map where `folds` allows it and nothing observes self; otherwise calls self."""
        if (
            type(residual) is type(x)
            and residual.dtype == x.dtype
            and residual.shape == x.shape
            and x.dim() <= 5
            and x.shape[-1] == self.dim
        ):  # else self(x), or the sum, has the error
            weights = folding_weights(self, x, None, mask, self)
            if weights is not None:
                return self._fold(x, weights, residual, None if scale is None else scale.to(x.dtype))
        mixed = self(x, mask=mask).to(residual.dtype)
        return residual + mixed if scale is None else torch.addcmul(residual, mixed, scale.to(residual.dtype))

    def _attend_map(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        weights = folding_weights(self, x, context, mask)
        return _attend_in_order(self, x, context, mask) if weights is None else self._fold(x, weights)

    def _fold(self, x: Tensor, weights: Weights, residual: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
        return folded_efficient_attention(
            x,
            weights,
            num_heads=self.num_heads,
            key_dim=self.key_dim,
            temperature=self.temperature,
            residual=residual,
            scale=scale,
        )


def folds(mixer: EfficientAttention, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> bool:
    """Whether `EfficientAttention` takes its folded form for this call."""
    return folding_weights(mixer, x, context, mask) is not None


def folding_weights(
    mixer: EfficientAttention,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    *passed_over: nn.Module,
) -> Weights | None:
    """What `EfficientAttention` needs of its layers for the folded form of this call; None where that may not be taken.

    All of these must hold (`ops/folded_efficient_attention.py` is the form):
    - the environment does not say VISIONATTN_KERNELS=off;
    - x looks at itself, without a mask;
    - on the CPU: float32 or float64; eager mode: no autocast, torch.compile, export, tracing, torch.func transform or
      forward-mode derivative;
    - on a device with kernels: they serve the case (`ops/kernels/dispatch.py`), also under autocast and torch.compile;
    - the mixer is exactly EfficientAttention (a subclass may look at values or weights) and normalises its queries;
    - qkv and proj are exactly nn.Linear, without hooks, parametrisations or wrappers, and proj_drop does nothing;
    - nothing observes the modules `passed_over`, which are not called either;
    - not an empty batch, at least `FEWEST_TOKENS` tokens, and no more multiplications than the plain form.
    """
    if context is not None or mask is not None or type(mixer) is not EfficientAttention or "attend" in vars(mixer):
        return None
    if not (
        mixer.normalize_queries
        and x.numel() > 0
        and _pays(math.prod(x.shape[1:-1]), mixer.dim, mixer.key_dim, mixer.value_dim, mixer.num_heads)
    ):
        return None
    if asked_for(x):
        return _weights_for_kernels(mixer, x, *passed_over)
    if not takes_shortcuts(x):
        return None
    layers = mixer._modules  # the table itself: each attribute that is a module costs a Python call
    weights = plain_pair(layers["qkv"], layers["proj"], layers["proj_drop"], x.dtype, *passed_over)  # type: ignore[arg-type]
    return None if weights is None else Weights(*weights)


def _weights_for_kernels(mixer: EfficientAttention, x: Tensor, *passed_over: nn.Module) -> Weights | None:
    """As `folding_weights`, for kernels: in the dtype in which the layers would compute."""
    first, autocast = plain_weights(mixer.qkv), torch.is_autocast_enabled(x.device.type)
    if first is None or (x.dtype != first[0].dtype and not autocast):  # the layers themselves have the error
        return None
    weights = plain_pair(mixer.qkv, mixer.proj, mixer.proj_drop, first[0].dtype, *passed_over)
    if weights is None:
        return None
    if autocast:
        dtype = torch.get_autocast_dtype(x.device.type)
        weights = tuple(None if t is None else t.to(dtype) for t in weights)  # type: ignore[assignment]
    served = serves_folded((x.flatten(1, -2),), weights, mixer.key_dim, mixer.num_heads)
    return Weights(*weights) if served else None


def _pays(tokens: int, dim: int, key: int, value: int, heads: int) -> bool:
    """Multiplications for one image: the folded form does not grow with value_dim, but folds value_dim once."""
    plain = tokens * (2 * dim * (key + value) + 2 * key * value // heads)
    folded = tokens * 4 * dim * key + 2 * dim * key * value // heads
    return tokens >= FEWEST_TOKENS and folded <= plain


def _attend_in_order(mixer: QKVAttention, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
    """The plain form; a channels-first map stays so from end to end, where its layers can be read as weights."""
    tokens = x.flatten(1, -2)
    if (
        context is not None
        or not is_channels_first(tokens)
        or not runs_eagerly()
        or plain_weights(mixer.qkv) is None
        or plain_weights(mixer.proj) is None
        or not unobserved(mixer.qkv, mixer.proj)
    ):
        return QKVAttention._attend_map(mixer, x, context, mask)
    grid: Grid = tuple(x.shape[1:-1])
    maps = project_maps(tokens.mT, mixer.qkv.weight, mixer.qkv.bias)
    # Split as maps: the backward lays the three gradients side by side without turning them.
    q, k, v = (
        torch.unflatten(part, 1, (mixer.num_heads, -1)).mT  # [B, heads, N, d], a view
        for part in torch.split(maps, [mixer.key_dim, mixer.key_dim, mixer.value_dim], dim=1)
    )
    out = mixer.attend(q, k, v, grid, grid, None if mask is None else mask.flatten(1))
    out = project_maps(out.mT.flatten(1, 2), mixer.proj.weight, mixer.proj.bias).mT
    return mixer.proj_drop(out).reshape(x.shape)


@ATTENTION.register_module()
class ScaledEfficientAttention(ContextQKVAttention):
    """Q (K^T V) / n: the dot-product non-local block in linear time.

    Args:
        num_heads: 1 is the paper's form.
        scale: replaces 1 / n; 1 / key_dim is the form of the first draft ("factorised attention").
    Raises:
        ValueError: scale is not finite.
    """

    claims = Claims(paper=_PAPER, cost="N", permutation_equivariant=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 1,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        scale: float | None = None,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop,
        )
        if scale is not None and not math.isfinite(scale):
            raise ValueError(f"scale={scale} must be finite; leave it out for 1 / n, 1 / key_dim is the first draft's")
        self.scale = scale

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return scaled_efficient_attention(q, k, v, mask, scale=self.scale)

    def _attend_map(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        return _attend_in_order(self, x, context, mask)
