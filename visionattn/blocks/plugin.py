"""Attention as a residual on a backbone's feature map: the plug-in of OpenMMLab configs and of `insert_attention`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionattn.attention.build import build_attention
from visionattn.attention.shortcut import ResidualMixer
from visionattn.registry import MODELS
from visionattn.typing import AttentionConfig, Feature

# The orders of axes that move channels, by the number of axes; half the cost of movedim, which small maps feel.
_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
_FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


@MODELS.register_module()
class AttentionPlugin(nn.Module):
    """x + gamma * attention(norm(x)) on a feature map; gamma [C] starts at zero, so that nothing changes at insertion.

    gamma is a parameter of this module, not a zeroed convolution or norm inside it, because a host's `init_weights`
    refills every convolution and norm it finds.

    In an OpenMMLab backbone:
    `plugins=[dict(cfg=dict(type="visionattn.AttentionPlugin", attention=dict(type="EfficientAttention")),
    stages=(False, False, True, True), position="after_conv3")]`; two in one block need a `postfix` in their cfg.
    mmseg's ResNet gives every plug-in of one position the same map and keeps the last answer alone: give them
    different positions there, or use `visionattn.InsertedBackbone`.

    Args:
        in_channels: C, given by the host.
        attention: a mechanism's name or config.
        grid: where position-bound parameters are learned; a `grid` in the attention's config serves as well.
        norm: a LayerNorm over the channels before the attention.
        zero_init: False is the published x + attention(norm(x)), without gamma.
        channels_last: maps are [B, *grid, C], as between the stages of Swin.
    Raises:
        KeyError, TypeError, ValueError: as `build_attention`.
    """

    _abbr_ = "attention_plugin"  # mmcv names the child of the host by it

    def __init__(
        self,
        in_channels: int,
        attention: AttentionConfig,
        grid: Sequence[int] | None = None,
        *,
        norm: bool = False,
        zero_init: bool = True,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels_last = channels_last
        self.norm = nn.LayerNorm(in_channels) if norm else None
        self.attn = build_attention(attention, in_channels, grid)
        self.gamma = nn.Parameter(torch.zeros(in_channels)) if zero_init else None

    def forward(self, x: Feature, mask: Tensor | None = None) -> Feature:
        """The map after attention, in the layout and dtype of x.

        Args:
            x: [B, C, *grid], the grid of one to three dimensions; [B, *grid, C] if `channels_last`.
            mask: [B, *grid] bool, True where a position is real; None if all are.
        Raises:
            ValueError: x or the mask has another shape.
        """
        dims = x.dim()
        if not 3 <= dims <= 5 or x.shape[-1 if self.channels_last else 1] != self.in_channels:
            layout = f"[B, *grid, {self.in_channels}]" if self.channels_last else f"[B, {self.in_channels}, *grid]"
            raise ValueError(
                f"AttentionPlugin expects a map {layout} with a grid of one to three dimensions, got {list(x.shape)}"
            )
        tokens = x if self.channels_last else x.permute(_LAST[dims])
        normed = tokens if self.norm is None else self.norm(tokens)
        attn: nn.Module = self._modules["attn"]  # type: ignore[assignment]  # one Python call less than self.attn
        if isinstance(attn, ResidualMixer):
            out = attn.add_to(tokens, normed, self.gamma, mask)
            return out if self.channels_last else out.permute(_FIRST[dims])
        mixed = attn(normed, mask=mask).to(x.dtype)
        if self.gamma is None:
            return x + (mixed if self.channels_last else mixed.movedim(-1, 1))
        gamma = self.gamma.to(x.dtype)
        if self.channels_last:
            return torch.addcmul(x, mixed, gamma)
        return torch.addcmul(x, mixed.movedim(-1, 1), gamma.view(-1, *[1] * (dims - 2)))
