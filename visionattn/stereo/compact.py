"""A small stereo network on any backbone of the toolkit, after GwcNet: our own composition, published nowhere.

One map of each view at a quarter of the resolution (backbone and feature pyramid), correlations of groups of channels
(GwcNet, arXiv 1903.04025), one hourglass of 3-D convolutions, a soft argmax at that quarter, and convex upsampling
(RAFT, arXiv 2003.12039), which keeps edges that interpolation would smear.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.blocks.plugin import AttentionPlugin
from visionattn.ops.convex_upsampling import convex_upsampling
from visionattn.ops.disparity_regression import soft_argmax
from visionattn.ops.precision import at_least_float32
from visionattn.registry import MODELS
from visionattn.stereo.backbone_features import BackboneFeatures
from visionattn.stereo.layers import check_pair, conv_bn_3d, disparity_planes, doubling_bn_3d
from visionattn.stereo.shortcuts import correlation_volume
from visionattn.typing import AttentionConfig

_STRIDE = 4
_SHARPNESS = 16.0  # logits between features that are equal and such that have nothing in common, to begin with


@MODELS.register_module()
class CompactStereo(nn.Module):
    """Left and right image -> disparities of the left image in pixels.

    What is inserted as attention starts as the identity, as in `PSMNet`.

    Args:
        backbone: as `create_backbone` takes it; it has a map of stride 4.
        max_disparity: disparities below it are found; a multiple of 16.
        channels: of the map that is matched.
        groups: of these channels that are correlated.
        volume_channels: of the 3-D convolutions; twice and four times as many further down.
        attention: what to insert where: "features" (the map of each view), "cost" (the cost volume) or "hourglass" (its
            bottom, a sixteenth of each axis).
    Raises:
        KeyError, TypeError, ValueError: a place that there is not; a backbone or attention that cannot be built;
            max_disparity is no multiple of 16, or groups do not divide the channels.
    """

    divisor = 16
    """Of both sides of the images that it takes."""
    smallest = 32
    """Side."""

    def __init__(
        self,
        backbone: str | Mapping[str, Any],
        max_disparity: int = 192,
        *,
        channels: int = 64,
        groups: int = 8,
        volume_channels: int = 16,
        attention: Mapping[str, AttentionConfig] | None = None,
    ) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"groups={groups} does not divide channels={channels}")
        self.planes = disparity_planes(max_disparity, self.divisor)
        self.groups = groups
        self.features = BackboneFeatures(backbone, channels, (_STRIDE,))
        self.norm = nn.BatchNorm2d(channels)  # unlike features are then as often opposite as equal
        self.stem = nn.Sequential(
            conv_bn_3d(groups, volume_channels, 3, 1, 1),
            nn.ReLU(),
            conv_bn_3d(volume_channels, volume_channels, 3, 1, 1),
        )
        self.hourglass = _Hourglass(volume_channels)
        self.scores = nn.Conv3d(volume_channels, 1, 3, padding=1)
        self.sharpness = nn.Parameter(torch.tensor(_SHARPNESS))
        self.weights = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 9 * _STRIDE**2, 1)
        )
        places = {"features": channels, "cost": volume_channels, "hourglass": 4 * volume_channels}
        wanted = dict(attention or {})
        unknown = sorted(set(wanted) - set(places))
        if unknown:
            raise KeyError(f"CompactStereo has no place {unknown[0]!r} for attention; it has {', '.join(places)}")
        self.attention = nn.ModuleDict({p: AttentionPlugin(places[p], cfg) for p, cfg in sorted(wanted.items())})

    def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Disparities [B, H, W] in float32 at least: in training one that is interpolated, then the upsampled one.

        Args:
            left, right: [B, 3, H, W], normalised; sides of 32 or more that 16 divides.
        Raises:
            ValueError: other shapes.
        """
        check_pair(left, right, self.divisor, self.smallest)
        (maps,) = self.features(torch.cat([left, right]))
        left_map, right_map = self._at("features", self.norm(maps)).chunk(2)
        costs = correlation_volume(self._unit(left_map), self._unit(right_map), self.planes, self.groups)
        volume = self._at("cost", F.relu(self.stem(costs)))
        bottom = self.attention["hourglass"] if "hourglass" in self.attention else None  # noqa: SIM401  # no dict
        learned = self.scores(self.hourglass(volume, bottom)).squeeze(1)
        # The plain likeness of the features matches from the first step on; what is learned is added to it.
        coarse = soft_argmax(learned + self.sharpness * costs.mean(1))  # in its own pixels
        fine = convex_upsampling(coarse, self.weights(left_map), _STRIDE)
        if not self.training:
            return [fine]
        smooth = F.interpolate(coarse[:, None], scale_factor=_STRIDE, mode="bilinear", align_corners=False)[:, 0]
        return [_STRIDE * smooth, fine]

    def _unit(self, x: Tensor) -> Tensor:
        """The map with each group of channels at every pixel of mean square 1: correlations from -1 to 1."""
        grouped = torch.unflatten(at_least_float32(x), 1, (self.groups, -1))
        return (grouped * torch.rsqrt(grouped.square().mean(2, keepdim=True) + 1e-6)).flatten(1, 2)

    def _at(self, place: str, x: Tensor) -> Tensor:
        return self.attention[place](x) if place in self.attention else x


class _Hourglass(nn.Module):
    """Down to a quarter of the volume's extent and back; what is added on the way up is what went down."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down1 = nn.Sequential(conv_bn_3d(channels, 2 * channels, 3, 2, 1), nn.ReLU())
        self.down2 = nn.Sequential(
            conv_bn_3d(2 * channels, 4 * channels, 3, 2, 1),
            nn.ReLU(),
            conv_bn_3d(4 * channels, 4 * channels, 3, 1, 1),
            nn.ReLU(),
        )
        self.up2 = doubling_bn_3d(4 * channels, 2 * channels)
        self.up1 = doubling_bn_3d(2 * channels, channels)

    def forward(self, x: Tensor, bottom: nn.Module | None = None) -> Tensor:
        """The volume [B, C, D, H, W], each extent a multiple of 4; `bottom` acts on the smallest one."""
        half = self.down1(x)
        quarter = self.down2(half)
        if bottom is not None:
            quarter = bottom(quarter)
        return F.relu(self.up1(F.relu(self.up2(quarter) + half)) + x)
