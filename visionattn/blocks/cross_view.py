"""Attention between the views of a stereo pair, as a residual: left attends right and right attends left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionattn.attention.base import ContextMixer
from visionattn.attention.build import attention_class, build_attention, list_attention
from visionattn.registry import MODELS
from visionattn.typing import AttentionConfig, Feature


@MODELS.register_module()
class CrossViewBlock(nn.Module):
    """x + gamma * attention(norm(x), norm(other view)) for both views, with the same weights.

    gamma [C] starts at zero, so that a network computes the same before and after the block is put in.

    Args:
        channels: C of both maps.
        attention: a mechanism's name or config; it must be able to look at another map.
        grid: where position-bound parameters are learned; a `grid` in the attention's config serves as well.
        rows: a position looks along its own row of the other view, where its match lies in a rectified pair; False
            lets it look at the whole map.
        norm: a LayerNorm over the channels before the attention.
        zero_init: False is without gamma.
    Raises:
        TypeError: the mechanism cannot look at another map.
        ValueError: it takes no grids of one dimension (with rows) or two (without).
        KeyError, TypeError, ValueError: as `build_attention`.
    """

    def __init__(
        self,
        channels: int,
        attention: AttentionConfig,
        grid: Sequence[int] | None = None,
        *,
        rows: bool = True,
        norm: bool = True,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.rows = rows
        self.norm = nn.LayerNorm(channels) if norm else None
        self.attn = build_context_mixer(attention, channels, grid, rows=rows)
        self.gamma = nn.Parameter(torch.zeros(channels)) if zero_init else None

    def forward(self, left: Feature, right: Feature) -> tuple[Feature, Feature]:
        """Both maps after looking at each other, in their own dtype.

        Args:
            left, right: [B, C, H, W].
        Raises:
            ValueError: other shapes.
        """
        if left.shape != right.shape or left.dim() != 4 or left.shape[1] != self.channels:
            raise ValueError(
                f"CrossViewBlock expects two maps [B, {self.channels}, H, W] of one size, "
                f"got {list(left.shape)} and {list(right.shape)}"
            )
        views = torch.cat([left, right]).movedim(1, -1)  # both directions in one call
        normed = views if self.norm is None else self.norm(views)
        others = torch.cat(normed.chunk(2)[::-1])
        mixed = (attend_rows(self.attn, normed, others) if self.rows else self.attn(normed, others)).to(views.dtype)
        if self.gamma is not None:
            mixed = mixed * self.gamma.to(views.dtype)
        out_left, out_right = (views + mixed).movedim(-1, 1).chunk(2)
        return out_left, out_right


def attend_rows(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """Every row of x [B, H, W, C] attends the same row of the context [B, H, W', C]; [B, H, W, C]."""
    mixed: Tensor = attention(x.flatten(0, 1), context.flatten(0, 1))
    return mixed.reshape(x.shape)


def build_context_mixer(
    cfg: AttentionConfig, dim: int, grid: Sequence[int] | None = None, *, rows: bool
) -> ContextMixer:
    """`build_attention` of a mechanism that can look at another map, row by row or as a whole.

    Raises:
        TypeError: it cannot look at another map; the message names those that can.
        ValueError: it cannot look at rows, or at maps.
        KeyError, TypeError, ValueError: as `build_attention`.
    """
    mixer = build_attention(cfg, dim, grid)
    if not isinstance(mixer, ContextMixer):
        able = ", ".join(name for name in list_attention() if issubclass(attention_class(name), ContextMixer))
        raise TypeError(f"{type(mixer).__name__} cannot look at another map; between two views, use one of {able}")
    if (1 if rows else 2) not in mixer.grid_dims:
        what, way_out = ("rows", "let it look at the whole map") if rows else ("maps", "let it look along the rows")
        if (1 if rows else 2) in type(mixer).grid_dims:
            way_out += f", or give its config a grid for them, such as grid={(64,) if rows else (64, 64)}"
        raise ValueError(f"{type(mixer).__name__} takes no {what} (grids of {mixer.grid_dims} dimensions); {way_out}")
    return mixer
