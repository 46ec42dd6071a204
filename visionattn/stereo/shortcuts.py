"""Exact shortcuts of the volume networks, and the rule that chooses them.

- The first convolution over a concatenation volume makes no volume (`ops/concatenation_convolution.py`).
- Group-wise correlation is written in place, channels last (`ops/group_correlation.py`).
- Upsampled costs become disparities in tiles (`ops/tiled_soft_argmax.py`).
- On the CPU volumes are channels last in memory, and so is what the convolutions behind make of them, the transposed
  ones too (`ops/doubling_convolution.py`); that to a single channel is a matrix product (`ops/score_convolution.py`).

Where a kernel serves (`ops/kernels/dispatch.py`), it does the first three instead, also in half precision, under
autocast and in `torch.compile`.

Each form has the parameters of the plain one, its values and its gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visionattn.attention.shortcut import is_ordinary, kernels_allowed, runs_eagerly
from visionattn.ops.concatenation_convolution import concatenation_convolution, concatenation_parts
from visionattn.ops.cost_volume import check_groups, concatenation_volume, group_correlation_volume
from visionattn.ops.disparity_regression import upsampled_soft_argmax
from visionattn.ops.doubling_convolution import doubling_convolution
from visionattn.ops.group_correlation import walked_group_correlation
from visionattn.ops.kernels.assembled_convolution import assembled_convolution_op, takes_assembly
from visionattn.ops.kernels.group_correlation import group_correlation_op, takes_correlation
from visionattn.ops.kernels.upsampled_soft_argmax import takes_regression, upsampled_soft_argmax_op
from visionattn.ops.score_convolution import score_convolution
from visionattn.ops.tiled_soft_argmax import tiled_soft_argmax


def shortens(x: Tensor) -> bool:
    """Whether the shortcuts are taken for this map.

    All of these must hold:
    - the environment does not say VISIONATTN_KERNELS=off;
    - x is float32 or float64;
    - eager mode: no autocast, torch.compile, export, tracing, torch.func transform or forward-mode derivative.
    """
    return x.dtype in (torch.float32, torch.float64) and runs_eagerly() and kernels_allowed() and is_ordinary(x)


class VolumeConvolution(nn.Conv3d):
    """A 3x3x3 convolution without bias over other costs, if any, and the concatenation volume of two maps.

    Args:
        costs: channels of what is laid before the concatenation volume.
        channels: of each map.
        outputs: channels of the answer.
        disparities: planes of the volume.
    """

    def __init__(self, costs: int, channels: int, outputs: int, disparities: int) -> None:
        super().__init__(costs + 2 * channels, outputs, 3, padding=1, bias=False)
        self.costs = costs
        self.disparities = disparities

    def forward(self, parts: tuple[Tensor | None, Tensor, Tensor]) -> Tensor:  # type: ignore[override]  # not the volume
        """[B, outputs, D, H, W] of (other costs [B, costs, D, H, W] or None, left [B, channels, H, W], right)."""
        costs, left, right = parts
        kernel = self.disparities > 2 and takes_assembly((left, right), self.out_channels, self.disparities)
        if not (kernel or shortens(left)) or self.disparities < 3:
            volume = concatenation_volume(left, right, self.disparities)
            return super().forward(volume if costs is None else torch.cat([costs, volume], dim=1))
        of_costs, of_maps = self.weight.split([self.costs, self.in_channels - self.costs], dim=1)
        if kernel:
            left, right = (t.contiguous(memory_format=torch.channels_last) for t in (left, right))
            out = assembled_convolution_op(*concatenation_parts(left, right, of_maps, self.disparities))
        else:
            out = concatenation_convolution(left, right, of_maps, self.disparities)
        return out if costs is None else out + nn.functional.conv3d(costs, of_costs, padding=1)


class DoublingConvolution(nn.ConvTranspose3d):
    """The 3x3x3 convolution without bias to twice the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # never of another size than twice that of x
        """[B, outputs, 2 D, 2 H, 2 W] of x [B, inputs, D, H, W]."""
        if x.is_cpu and shortens(x):
            return doubling_convolution(x, self.weight)
        return super().forward(x)


class ScoreConvolution(nn.Conv3d):
    """The 3x3x3 convolution without bias to one channel."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, D, H, W] of x [B, inputs, D, H, W]."""
        return score_convolution(x, self.weight) if x.is_cpu and shortens(x) else super().forward(x)


def image_layout(image: Tensor) -> Tensor:
    """The image, channels last in memory on the CPU where `shortens` allows it."""
    return image.contiguous(memory_format=torch.channels_last) if image.is_cpu and shortens(image) else image


def correlation_volume(left: Tensor, right: Tensor, disparities: int, groups: int) -> Tensor:
    """`group_correlation_volume`, by a kernel where one serves, walked where `shortens` allows it."""
    check_groups(left, right, disparities, groups)
    if takes_correlation(left, right, disparities, groups):
        return group_correlation_op(left, right, disparities, groups)
    if not shortens(left):
        return group_correlation_volume(left, right, disparities, groups)
    return walked_group_correlation(left, right, disparities, groups)


def full_disparity(costs: Tensor, max_disparity: int, height: int, width: int, *, align_corners: bool) -> Tensor:
    """`upsampled_soft_argmax` of costs [B, 1, D, H, W], by a kernel where one serves, in tiles as `shortens` allows."""
    logits = costs.squeeze(1)
    if takes_regression(logits, max_disparity, height, width):
        return upsampled_soft_argmax_op(logits, max_disparity, height, width, align_corners)[0]
    regress = tiled_soft_argmax if shortens(costs) else upsampled_soft_argmax
    return regress(logits, max_disparity, height, width, align_corners=align_corners)
