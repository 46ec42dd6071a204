"""PSMNet, stacked hourglass (Chang and Chen, Pyramid Stereo Matching Network, CVPR 2018, arXiv 1803.08669).

Compared with: JiaRenChang/PSMNet@87ac909 (MIT), golden vectors `psmnet_stackhourglass_*`; its checkpoints load by name
once "module." is cut off, which `visionattn.load_checkpoint` does.
Differs: attention may be inserted; batches of one; the last disparity is the best, in a list; `align_corners` is an
option (True for the checkpoints of 2018, False for that of 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.blocks.cross_view import CrossViewBlock
from visionattn.blocks.plugin import AttentionPlugin
from visionattn.registry import MODELS
from visionattn.stereo.backbone_features import BackboneFeatures
from visionattn.stereo.layers import (
    Trunk,
    check_pair,
    conv_bn,
    conv_bn_3d,
    disparity_planes,
    doubling_bn_3d,
    init_as_published,
    scores_3d,
)
from visionattn.stereo.normed_layers import Chain, ConvNorm, activations_remade
from visionattn.stereo.shortcuts import VolumeConvolution, full_disparity
from visionattn.typing import AttentionConfig

_PLACES = {"spp": 32, "cost": 32, "hourglass": 64}  # channels at each
_POOLS = (64, 32, 16, 8)


@MODELS.register_module()
class PSMNet(nn.Module):
    """Left and right image -> disparities of the left image in pixels, from three hourglasses.

    Where the stereo networks of the efficient-attention paper hold their module is not known; the places here are ours.
    What is inserted starts as the identity: a PSMNet checkpoint gives the same disparity before and after.

    Args:
        max_disparity: disparities below it are found; a multiple of 16.
        attention: what to insert where: "spp" (the features of each view, H / 4 x W / 4), "cost" (the cost volume,
            D / 4 x H / 4 x W / 4) or "hourglass" (the bottom of the first hourglass, a sixteenth of each axis). None
            leaves a place empty.
        align_corners: of every interpolation.
        backbone: as `create_backbone` takes it; it has a map of stride 4. With a feature pyramid behind, it takes the
            place of the published feature extractor. Its weights are `feature_extraction.body`.
        cross_view: a mechanism by which the features of each view look at the other; it must be able to look at
            another map. None is as published.
    Raises:
        KeyError, TypeError, ValueError: a place that there is not, attention as `build_attention`, a backbone as
            `create_backbone`.
    """

    divisor = 16
    """Of both sides of the images that it takes."""
    smallest = 256
    """Side: the widest pooling window, at a quarter of the resolution."""

    def __init__(
        self,
        max_disparity: int = 192,
        *,
        attention: Mapping[str, AttentionConfig | None] | None = None,
        align_corners: bool = False,
        backbone: str | Mapping[str, Any] | None = None,
        cross_view: AttentionConfig | None = None,
    ) -> None:
        super().__init__()
        self.max_disparity = max_disparity
        self.planes = disparity_planes(max_disparity, self.divisor)
        self.align_corners = align_corners
        self.feature_extraction: PyramidFeatures | BackboneMap
        if backbone is None:
            self.feature_extraction = PyramidFeatures(align_corners)
        else:
            self.feature_extraction = BackboneMap(backbone, 32, (4,))
            self.smallest = 32  # no pooling window is wider
        relu = nn.ReLU(inplace=True)
        first = ConvNorm(VolumeConvolution(0, 32, 32, self.planes), nn.BatchNorm3d(32))
        self.dres0 = Chain(first, relu, conv_bn_3d(32, 32, 3, 1, 1), relu)
        self.dres1 = Chain(conv_bn_3d(32, 32, 3, 1, 1), relu, conv_bn_3d(32, 32, 3, 1, 1))
        self.dres2, self.dres3, self.dres4 = (Hourglass(32) for _ in range(3))
        self.classif1, self.classif2, self.classif3 = (scores_3d() for _ in range(3))
        for name, part in self.named_children():
            if name != "feature_extraction" or backbone is None:  # a backbone starts as its authors have it
                init_as_published(part)
        wanted = dict(attention or {})
        unknown = sorted(set(wanted) - set(_PLACES))
        if unknown:
            raise KeyError(f"PSMNet has no place {unknown[0]!r} for attention; it has {', '.join(_PLACES)}")
        self.attention = nn.ModuleDict(
            {place: AttentionPlugin(_PLACES[place], cfg) for place, cfg in sorted(wanted.items()) if cfg is not None}
        )
        self.cross_view = None if cross_view is None else CrossViewBlock(_PLACES["spp"], cross_view)

    def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Disparities [B, H, W] in float32 at least: of all three hourglasses in training, of the last one in eval.

        Args:
            left, right: [B, 3, H, W] with ImageNet's mean and deviation; sides of `smallest` or more that 16 divides.
        Raises:
            ValueError: other shapes.
        """
        check_pair(left, right, self.divisor, self.smallest)
        with activations_remade(left):
            costs = self._costs(left, right)
        height, width = left.shape[2:]
        return [
            full_disparity(cost, self.max_disparity, height, width, align_corners=self.align_corners) for cost in costs
        ]

    def _costs(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Logits [B, 1, D, H, W], a quarter of the resolution: of every hourglass in training, of the last in eval."""
        left_map, right_map = (self._at("spp", self.feature_extraction(image)) for image in (left, right))
        if self.cross_view is not None:
            left_map, right_map = self.cross_view(left_map, right_map)
        start = self.dres0((None, left_map, right_map))
        start = self._at("cost", start + self.dres1(start))

        bottom = self.attention["hourglass"] if "hourglass" in self.attention else None  # noqa: SIM401  # no dict
        out1, pre, post = self.dres2(start, bottom=bottom, plus=start)
        out2, _, post = self.dres3(out1, pre, post, plus=start)
        out3, _, _ = self.dres4(out2, pre, post, plus=start)

        cost1 = self.classif1(out1)
        cost2 = self.classif2(out2) + cost1
        cost3 = self.classif3(out3) + cost2
        return [cost1, cost2, cost3] if self.training else [cost3]

    def _at(self, place: str, x: Tensor) -> Tensor:
        return self.attention[place](x) if place in self.attention else x


class PyramidFeatures(Trunk):
    """Spatial pyramid pooling on the trunk: image [B, 3, H, W] -> [B, 32, H / 4, W / 4]."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branch1, self.branch2, self.branch3, self.branch4 = (
            Chain(nn.AvgPool2d(size, size), conv_bn(128, 32, 1), nn.ReLU(inplace=True)) for size in _POOLS
        )
        self.lastconv = Chain(conv_bn(320, 128, 3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(128, 32, 1, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        fine, _, coarse = self.stages(image)
        pooled = [
            F.interpolate(branch(coarse), fine.shape[2:], mode="bilinear", align_corners=self.align_corners)
            for branch in (self.branch4, self.branch3, self.branch2, self.branch1)
        ]
        return self.lastconv(torch.cat([fine, coarse, *pooled], dim=1))


class BackboneMap(BackboneFeatures):
    """A backbone and a feature pyramid on it: image [B, 3, H, W] -> [B, 32, H / 4, W / 4]."""

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]  # the only map, not a list of one
        (feature,) = super().forward(image)
        return feature


class Hourglass(nn.Module):
    """Down to a quarter of the volume's extent and back, with sums of what earlier hourglasses found on the way."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide, relu = 2 * channels, nn.ReLU(inplace=True)
        self.conv1 = Chain(conv_bn_3d(channels, wide, 3, 2, 1), relu)
        self.conv2 = conv_bn_3d(wide, wide, 3, 1, 1)
        self.conv3 = Chain(conv_bn_3d(wide, wide, 3, 2, 1), relu)
        self.conv4 = Chain(conv_bn_3d(wide, wide, 3, 1, 1), relu)
        self.conv5 = doubling_bn_3d(wide, wide)
        self.conv6 = doubling_bn_3d(wide, channels)

    def forward(
        self,
        x: Tensor,
        pre: Tensor | None = None,
        post: Tensor | None = None,
        bottom: nn.Module | None = None,
        plus: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The volume [B, C, D, H, W], and what is handed on from half its extent on the way down and up.

        Args:
            x: [B, C, D, H, W], each extent a multiple of 4.
            pre: the first hourglass's way down, [B, 2 C, D / 2, H / 2, W / 2].
            post: the previous hourglass's way up, of the same shape.
            bottom: what acts on the smallest volume.
            plus: what the answer is added to, [B, C, D, H, W].
        """
        down = self.conv2(self.conv1(x), plus=post, relu=True)
        low = self.conv4(self.conv3(down))
        if bottom is not None:
            low = bottom(low)
        up = self.conv5(low, plus=down if pre is None else pre, relu=True)
        return self.conv6(up, plus=plus), down, up
