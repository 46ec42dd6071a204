"""Feature pyramid network (Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017, section 3).

Compared with: torchvision 0.26 `FeaturePyramidNetwork` (same parameter names, same output), onedl-mmsegmentation 1.4.2
`FPN`.
Differs: attention on the maps that are returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.necks.extra_levels import build_extra_levels, init_conv
from visionattn.necks.level_attention import LevelAttention, LevelPlugins
from visionattn.necks.norm import normed
from visionattn.registry import MODELS
from visionattn.typing import Feature


@MODELS.register_module()
class FPN(nn.Module):
    """A pyramid of maps of equal width: 1 x 1 convolutions, added up from the top by nearest neighbour, then 3 x 3.

    Args:
        in_channels: of the maps that come in, finest first.
        out_channels: of every map returned.
        in_strides: of the maps that come in, for `strides`.
        extra_levels: "LastLevelMaxPool", dict(type="LastLevelP6P7"), or none.
        norm_cfg: "BN", "SyncBN", "GN" or "LN2d", or dict(type=..., **options), behind every convolution of the
            pyramid; None is without, as published.
        attention: one config for every map returned; level -> config; or a list with a config or None for each. Levels
            count from 0, the finest; extra levels go on, and are made from maps before their attention. Each config is
            a mechanism's or dict(type="AttentionPlugin", attention=..., norm=...). Where in the pyramid the efficient
            attention paper put its modules could not be read: this is our choice, and which levels is the config's.
    Attributes:
        out_channels: of the maps returned, one entry each.
        strides: of the maps returned; None without in_strides.
    Raises:
        KeyError, TypeError, ValueError: an option that does not fit.
    """

    strides: tuple[int, ...] | None

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        in_strides: Sequence[int] | None = None,
        extra_levels: str | Mapping[str, Any] | None = None,
        norm_cfg: str | Mapping[str, Any] | None = None,
        attention: LevelAttention | None = None,
    ) -> None:
        super().__init__()
        _check_inputs(in_channels, in_strides)
        self.in_channels = tuple(in_channels)
        self.inner_blocks = nn.ModuleList(normed(nn.Conv2d(c, out_channels, 1), norm_cfg) for c in in_channels)
        self.layer_blocks = nn.ModuleList(
            normed(nn.Conv2d(out_channels, out_channels, 3, padding=1), norm_cfg) for _ in in_channels
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module)
        self.extra_blocks = build_extra_levels(extra_levels, in_channels[-1], out_channels)
        extra = 0 if self.extra_blocks is None else self.extra_blocks.number
        levels = len(in_channels) + extra
        self.attention = LevelPlugins(attention, out_channels, levels)
        self.out_channels = (out_channels,) * levels
        self.strides = None
        if in_strides is not None:
            self.strides = (*in_strides, *(in_strides[-1] * 2 ** (level + 1) for level in range(extra)))

    def forward(self, maps: Sequence[Tensor]) -> list[Feature]:
        """The pyramid, finest first: [B, out_channels, H_i, W_i] of every input, then the extra levels.

        Args:
            maps: [B, in_channels[i], H_i, W_i], finest first.
        Raises:
            ValueError: another number of maps, or maps of other channels.
        """
        came = tuple(x.shape[1] for x in maps)
        if came != self.in_channels:
            raise ValueError(f"FPN expects maps of {self.in_channels} channels, finest first; got {came}")
        inner = [block(x) for block, x in zip(self.inner_blocks, maps, strict=True)]
        for level in reversed(range(len(inner) - 1)):
            inner[level] = inner[level] + F.interpolate(inner[level + 1], inner[level].shape[-2:], mode="nearest")
        outputs = [block(x) for block, x in zip(self.layer_blocks, inner, strict=True)]
        if self.extra_blocks is not None:
            outputs = [*outputs, *self.extra_blocks(outputs, maps)]
        return self.attention.on(outputs)


def _check_inputs(in_channels: Sequence[int], in_strides: Sequence[int] | None) -> None:
    if not isinstance(in_channels, Sequence) or not in_channels:
        raise TypeError(f"in_channels={in_channels!r} must list the channels of the maps, as (64, 128, 256, 512)")
    if in_strides is not None and len(in_strides) != len(in_channels):
        raise ValueError(
            f"in_strides={tuple(in_strides)} and in_channels={tuple(in_channels)} must have one entry per map"
        )
