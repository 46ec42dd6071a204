"""Convolution, batch norm and the residual block that PSMNet and GwcNet are made of, under their parameter names."""

from __future__ import annotations

import math

from torch import Tensor, nn

from visionattn.stereo.normed_layers import Chain, ConvNorm
from visionattn.stereo.shortcuts import DoublingConvolution, ScoreConvolution, image_layout


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> ConvNorm:
    """2-D convolution without bias, batch norm. A dilated convolution is padded by its dilation."""
    padding = dilation if dilation > 1 else padding
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return ConvNorm(conv, nn.BatchNorm2d(outputs))


def conv_bn_3d(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> ConvNorm:
    """3-D convolution without bias, batch norm."""
    conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
    return ConvNorm(conv, nn.BatchNorm3d(outputs))


def doubling_bn_3d(inputs: int, outputs: int) -> ConvNorm:
    """Transposed 3-D convolution to twice the size, batch norm."""
    return ConvNorm(DoublingConvolution(inputs, outputs), nn.BatchNorm3d(outputs))


def scores_3d() -> nn.Module:
    """From volumes of 32 channels to the logits of their disparities."""
    return Chain(conv_bn_3d(32, 32, 3, 1, 1), nn.ReLU(inplace=True), ScoreConvolution(32))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and what went in; no activation after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = Chain(conv_bn(inputs, outputs, 3, stride, 1, dilation), nn.ReLU(inplace=True))
        self.conv2 = conv_bn(outputs, outputs, 3, 1, 1, dilation)
        same = stride == 1 and inputs == outputs
        self.downsample = None if same else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        return out + (x if self.downsample is None else self.downsample(x))


class Trunk(nn.Module):
    """The residual network of both: maps of 64, 128 and 128 channels at a quarter of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.firstconv = Chain(
            conv_bn(3, 32, 3, 2, 1),
            nn.ReLU(inplace=True),
            conv_bn(32, 32, 3, 1, 1),
            nn.ReLU(inplace=True),
            conv_bn(32, 32, 3, 1, 1),
            nn.ReLU(inplace=True),
        )
        self.layer1 = _layer(32, 32, 3, stride=1, dilation=1)
        self.layer2 = _layer(32, 64, 16, stride=2, dilation=1)
        self.layer3 = _layer(64, 128, 3, stride=1, dilation=1)
        self.layer4 = _layer(128, 128, 3, stride=1, dilation=2)

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of layer2, layer3 and layer4, [B, 64 or 128, H / 4, W / 4]."""
        fine = self.layer2(self.layer1(self.firstconv(image_layout(image))))
        middle = self.layer3(fine)
        return fine, middle, self.layer4(middle)


def init_as_published(model: nn.Module) -> None:
    """Convolutions normal with deviation sqrt(2 / (kernel volume * output channels)); norms one and zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.normal_(module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))


def check_pair(left: Tensor, right: Tensor, divisor: int, smallest: int = 1) -> None:
    """Raises ValueError unless both are images [B, 3, H, W] of one size that the network takes."""
    if left.shape != right.shape or left.dim() != 4 or left.shape[1] != 3:
        raise ValueError(
            f"expected two images [B, 3, H, W] of one size, got {list(left.shape)} and {list(right.shape)}"
        )
    height, width = left.shape[2:]
    if height % divisor or width % divisor or min(height, width) < smallest:
        raise ValueError(
            f"the network takes sides that {divisor} divides, {smallest} and more, got {height} x {width}; pad the pair"
        )


def _layer(inputs: int, outputs: int, blocks: int, *, stride: int, dilation: int) -> nn.Module:
    first = ResidualBlock(inputs, outputs, stride, dilation)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, 1, dilation) for _ in range(blocks - 1)))


def disparity_planes(max_disparity: int, divisor: int) -> int:
    """Planes of a volume at a quarter of the resolution.

    Raises:
        ValueError: the divisor does not divide max_disparity.
    """
    if max_disparity < divisor or max_disparity % divisor:
        near = max(divisor, round(max_disparity / divisor) * divisor)
        raise ValueError(f"max_disparity={max_disparity} must be a multiple of {divisor}, such as {near}")
    return max_disparity // 4
