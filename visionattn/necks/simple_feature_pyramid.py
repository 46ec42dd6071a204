"""Simple feature pyramid (Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, ECCV 2022,
section 3, arXiv 2203.16527): every level from the one map of a plain backbone, none from another.

The authors' code (detectron2 `SimpleFeaturePyramid`) could not be run here: the layers are the paper's, with the widths
of that code (half the channels after each transposed convolution).
Differs: a map of odd extent is halved upwards (3 -> 2), so that maps of one pixel will do; attention on the maps that
are returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from visionattn.attention.base import check_whole
from visionattn.necks.extra_levels import build_extra_levels, init_conv
from visionattn.necks.level_attention import LevelAttention, LevelPlugins
from visionattn.necks.norm import build_norm, normed
from visionattn.registry import MODELS
from visionattn.typing import Feature

_LEVELS = 4


@MODELS.register_module()
class SimpleFeaturePyramid(nn.Module):
    """Four maps at 4, 2, 1 and 1/2 times the resolution of one: strides 4, 8, 16 and 32 of a ViT with 16 x 16 patches.

    Args:
        in_channels: of the map that comes in; divisible by 4.
        out_channels: of every map returned.
        in_stride: of the map that comes in, for `strides`; None leaves them unknown.
        extra_levels: "LastLevelMaxPool" for a fifth map, as Mask R-CNN has it; or dict(type="LastLevelP6P7").
        norm_cfg: "LN2d" as published, "BN", "SyncBN" or "GN", or dict(type=..., **options); None is without.
        attention: on the maps returned, as for `FPN`.
    Attributes:
        out_channels: of the maps returned, one entry each.
        strides: of the maps returned; None where in_stride is.
    Raises:
        KeyError, TypeError, ValueError: an option that does not fit.
    """

    strides: tuple[int, ...] | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        *,
        in_stride: int | None = 16,
        extra_levels: str | Mapping[str, Any] | None = None,
        norm_cfg: str | Mapping[str, Any] | None = "LN2d",
        attention: LevelAttention | None = None,
    ) -> None:
        super().__init__()
        check_whole(in_channels=in_channels, out_channels=out_channels, in_stride=in_stride)
        if in_channels % 4:
            raise ValueError(f"in_channels={in_channels} must be divisible by 4: two layers halve it")
        if in_stride is not None and in_stride % 4:
            raise ValueError(f"in_stride={in_stride} is no multiple of 4; None leaves the strides of the maps unknown")
        self.in_channels = in_channels
        half, quarter = in_channels // 2, in_channels // 4
        resized: list[tuple[list[nn.Module], int]] = [
            ([*_doubled(in_channels, norm_cfg), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, stride=2)], quarter),
            ([nn.ConvTranspose2d(in_channels, half, 2, stride=2)], half),
            ([], in_channels),
            ([nn.MaxPool2d(2, ceil_mode=True)], in_channels),
        ]
        self.levels = nn.ModuleList(
            nn.Sequential(
                *layers,
                normed(nn.Conv2d(width, out_channels, 1), norm_cfg),
                normed(nn.Conv2d(out_channels, out_channels, 3, padding=1), norm_cfg),
            )
            for layers, width in resized
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module)
        self.extra_blocks = build_extra_levels(extra_levels, in_channels, out_channels)
        number = _LEVELS + (0 if self.extra_blocks is None else self.extra_blocks.number)
        self.attention = LevelPlugins(attention, out_channels, number)
        self.out_channels = (out_channels,) * number
        self.strides = None if in_stride is None else tuple(in_stride * 2**level // 4 for level in range(number))

    def forward(self, maps: Sequence[Tensor]) -> list[Feature]:
        """Maps [B, out_channels, ...] at 4, 2, 1 and 1/2 times the resolution, then the extra levels.

        Args:
            maps: one map [B, in_channels, H, W].
        Raises:
            ValueError: several maps, or one of other channels.
        """
        if len(maps) != 1 or maps[0].shape[1] != self.in_channels:
            raise ValueError(
                f"SimpleFeaturePyramid expects one map of {self.in_channels} channels, got maps of "
                f"{tuple(x.shape[1] for x in maps)}; a VisionTransformer returns one where out_indices names one block"
            )
        outputs = [level(maps[0]) for level in self.levels]
        if self.extra_blocks is not None:
            outputs = [*outputs, *self.extra_blocks(outputs, maps)]
        return self.attention.on(outputs)


def _doubled(channels: int, norm_cfg: str | Mapping[str, Any] | None) -> list[nn.Module]:
    """Twice the resolution at half the channels, and the norm."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)]
    return layers if norm_cfg is None else [*layers, build_norm(norm_cfg, channels // 2)]
