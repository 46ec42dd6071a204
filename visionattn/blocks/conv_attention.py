"""Attention in a convolution's place, as in Bottleneck Transformers (Srinivas et al., CVPR 2021, arXiv 2101.11605)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from visionattn.attention.build import build_attention
from visionattn.typing import AttentionConfig, Feature


class ConvAttention(nn.Module):
    """A map [B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]: attention, then the mean of each stride.

    The norm and the activation that followed the convolution are the host's and stay there.

    Args:
        channels: C.
        attention: a mechanism's name or config.
        grid: where position-bound parameters are learned; a `grid` in the attention's config serves as well.
        stride: of the convolution, (vertical, horizontal).
    Raises:
        KeyError, TypeError, ValueError: as `build_attention`.
    """

    def __init__(
        self,
        channels: int,
        attention: AttentionConfig,
        grid: Sequence[int] | None = None,
        *,
        stride: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        self.attn = build_attention(attention, channels, grid)
        # As many positions as a padded convolution leaves of an odd extent; the last of them averages what is there.
        strided = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        self.pool = nn.Identity() if stride == (1, 1) else strided

    def forward(self, x: Feature) -> Feature:
        mixed: Tensor = self.attn(x.movedim(1, -1)).movedim(-1, 1)
        return self.pool(mixed)
