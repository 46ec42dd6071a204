"""GwcNet (Guo et al., Group-wise Correlation Stereo Network, CVPR 2019, arXiv 1903.04025).

Compared with: xy-guo/GwcNet@0987074 (MIT), golden vectors `gwcnet-g_*`, `gwcnet-gc_*`; its checkpoints load by name
once "module." is cut off, which `visionattn.load_checkpoint` does.
Differs: the last disparity is the best, in a list; `align_corners` is an option (the code says nothing, which meant
True until PyTorch 0.4 and means False since).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.registry import MODELS
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
from visionattn.stereo.shortcuts import VolumeConvolution, correlation_volume, full_disparity


@MODELS.register_module()
class GwcNet(nn.Module):
    """Left and right image -> disparities of the left image in pixels: a volume of correlations by groups of channels.

    Args:
        max_disparity: disparities below it are found; a multiple of 16.
        groups: of the 320 channels that are correlated.
        concat_channels: of either view, laid beside the correlations: 0 is GwcNet-G, 12 is GwcNet-GC.
        align_corners: of the interpolation of the costs.
    Raises:
        ValueError: max_disparity is no multiple of 16.
    """

    divisor = 16
    """Of both sides of the images that it takes."""
    smallest = 16
    """Side."""

    def __init__(
        self,
        max_disparity: int = 192,
        *,
        groups: int = 40,
        concat_channels: int = 0,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.max_disparity = max_disparity
        self.planes = disparity_planes(max_disparity, self.divisor)
        self.groups = groups
        self.align_corners = align_corners
        self.feature_extraction = GroupFeatures(concat_channels)
        relu = nn.ReLU(inplace=True)
        first = (
            ConvNorm(VolumeConvolution(groups, concat_channels, 32, self.planes), nn.BatchNorm3d(32))
            if concat_channels
            else conv_bn_3d(groups, 32, 3, 1, 1)
        )
        self.dres0 = Chain(first, relu, conv_bn_3d(32, 32, 3, 1, 1), relu)
        self.dres1 = Chain(conv_bn_3d(32, 32, 3, 1, 1), relu, conv_bn_3d(32, 32, 3, 1, 1))
        self.dres2, self.dres3, self.dres4 = (RedirectedHourglass(32) for _ in range(3))
        self.classif0, self.classif1, self.classif2, self.classif3 = (scores_3d() for _ in range(4))
        init_as_published(self)

    def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Disparities [B, H, W] in float32 at least: before and behind each hourglass in training, the last in eval.

        Args:
            left, right: [B, 3, H, W] with ImageNet's mean and deviation; sides that 16 divides.
        Raises:
            ValueError: other shapes.
        """
        check_pair(left, right, self.divisor, self.smallest)
        with activations_remade(left):
            logits = self._logits(left, right)
        height, width = left.shape[2:]
        return [
            full_disparity(volume, self.max_disparity, height, width, align_corners=self.align_corners)
            for volume in logits
        ]

    def _logits(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """[B, 1, D, H, W] at a quarter of the resolution: before and behind each hourglass, or behind the last."""
        (left_groups, left_map), (right_groups, right_map) = map(self.feature_extraction, (left, right))
        costs = correlation_volume(left_groups, right_groups, self.planes, self.groups)
        start = self.dres0(costs if left_map is None else (costs, left_map, right_map))
        start = start + self.dres1(start)
        out1 = self.dres2(start)
        out2 = self.dres3(out1)
        out3 = self.dres4(out2)
        if not self.training:
            return [self.classif3(out3)]
        return [self.classif0(start), self.classif1(out1), self.classif2(out2), self.classif3(out3)]


class GroupFeatures(Trunk):
    """Image [B, 3, H, W] -> the map [B, 320, H / 4, W / 4] to correlate, and one to concatenate or None."""

    def __init__(self, concat_channels: int) -> None:
        super().__init__()
        if concat_channels:
            self.lastconv = Chain(
                conv_bn(320, 128, 3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(128, concat_channels, 1, bias=False)
            )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        groups = torch.cat(self.stages(image), dim=1)
        return groups, self.lastconv(groups) if hasattr(self, "lastconv") else None


class RedirectedHourglass(nn.Module):
    """Down to a quarter of the volume's extent and back, with a 1x1x1 convolution beside each half."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide, widest, relu = 2 * channels, 4 * channels, nn.ReLU(inplace=True)
        self.conv1 = Chain(conv_bn_3d(channels, wide, 3, 2, 1), relu)
        self.conv2 = Chain(conv_bn_3d(wide, wide, 3, 1, 1), relu)
        self.conv3 = Chain(conv_bn_3d(wide, widest, 3, 2, 1), relu)
        self.conv4 = Chain(conv_bn_3d(widest, widest, 3, 1, 1), relu)
        self.conv5 = doubling_bn_3d(widest, wide)
        self.conv6 = doubling_bn_3d(wide, channels)
        self.redir1 = conv_bn_3d(channels, channels, 1)
        self.redir2 = conv_bn_3d(wide, wide, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The volume [B, C, D, H, W], each extent a multiple of 4."""
        down = self.conv2(self.conv1(x))
        low = self.conv4(self.conv3(down))
        up = F.relu(self.conv5(low) + self.redir2(down))
        return F.relu(self.conv6(up) + self.redir1(x))
