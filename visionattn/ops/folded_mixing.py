"""The small matrices of folded efficient attention: from X P^T to M, and the gradients back; nothing of a map's size.

The algebra and its names are those of `folded_efficient_attention`.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Options(NamedTuple):
    """What is not a tensor."""

    heads: int
    key_dim: int
    temperature: float
    adds_x: bool  # the residual is x itself, and the tensor `residual` None


class Weights(NamedTuple):
    """The layers' own tensors."""

    qkv: Tensor  # [2 D + E, C]: queries, keys, values
    qkv_bias: Tensor | None  # [2 D + E]
    proj: Tensor  # [C, E]
    proj_bias: Tensor | None  # [C]


class Mixing(NamedTuple):
    """What the tokens' R are mixed by, and what it is made of."""

    weighted: Tensor  # [B, C, D], X P^T
    context: Tensor  # [B, heads, e, d], G
    matrix: Tensor  # [B, C, D], M without the scale

    @classmethod
    def of(cls, weighted: Tensor, weights: Weights, heads: int) -> Mixing:
        """From X P^T."""
        context = _value_weight(weights, heads, weighted.shape[2]) @ _by_head(weighted, heads)
        if weights.qkv_bias is not None:
            context += weights.qkv_bias[-weights.proj.shape[1] :].view(heads, -1, 1)
        matrix = _side_by_side(_output_weight(weights, heads) @ context)
        if weights.proj_bias is not None:
            matrix.add_(weights.proj_bias.unsqueeze(1), alpha=1 / heads)
        return cls(weighted, context, matrix)


class MixingGradients(NamedTuple):
    """By what M is made of."""

    weighted: Tensor  # [B, C, D]
    scale: Tensor | None  # [C]
    value: Tensor  # [E, C], of the values' rows of qkv
    value_bias: Tensor  # [E]
    proj: Tensor  # [C, E]
    proj_bias: Tensor | None  # [C]

    @classmethod
    def of(cls, grad: Tensor, scale: Tensor | None, mixing: Mixing, weights: Weights, heads: int) -> MixingGradients:
        """From the gradient of scale * M."""
        grad_scale = None if scale is None else (grad * mixing.matrix).sum((0, 2))
        grad = scaled(grad, scale)
        grad_proj_bias = None if weights.proj_bias is None else grad.sum((0, 2)) / heads
        by_head = _by_head(grad, heads)
        grad_proj = (by_head @ mixing.context.mT).sum(0).transpose(0, 1).flatten(1)
        grad_context = _output_weight(weights, heads).mT @ by_head
        grad_value = (grad_context @ _by_head(mixing.weighted, heads).mT).sum(0).flatten(0, 1)
        grad_weighted = _side_by_side(_value_weight(weights, heads, grad.shape[2]).mT @ grad_context)
        grad_value_bias = grad_context.sum((0, 3)).flatten()
        return cls(grad_weighted, grad_scale, grad_value, grad_value_bias, grad_proj, grad_proj_bias)


def scaled(matrices: Tensor, scale: Tensor | None) -> Tensor:
    """Rows of [B, C, D] times scale [C]; None is 1."""
    return matrices if scale is None else matrices * scale[:, None]


def _value_weight(weights: Weights, heads: int, dim: int) -> Tensor:
    """[heads, e, C]."""
    return weights.qkv[2 * dim :].view(heads, -1, weights.qkv.shape[1])


def _output_weight(weights: Weights, heads: int) -> Tensor:
    """[heads, C, e]."""
    return weights.proj.view(len(weights.proj), heads, -1).transpose(0, 1)


def _by_head(matrices: Tensor, heads: int) -> Tensor:
    """[B, C, heads * d] as the view [B, heads, C, d]."""
    return matrices.view(*matrices.shape[:2], heads, -1).transpose(1, 2)


def _side_by_side(by_head: Tensor) -> Tensor:
    """[B, heads, C, d] to [B, C, heads * d]."""
    return by_head.transpose(1, 2).flatten(2)
