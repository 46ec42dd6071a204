"""The residual encoder of RAFT, which GMStereo and RAFT-Stereo share, under its parameter names."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""nn.InstanceNorm2d or nn.BatchNorm2d: channels -> norm."""


class NormedBlock(nn.Module):
    """Two 3 x 3 convolutions, each with norm and ReLU, and what went in; a ReLU after the sum.

    The shortcut's norm has two names, `norm3` and `downsample.1`, because the published checkpoints have both.
    """

    def __init__(self, inputs: int, outputs: int, norm: Norm, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        self.relu = nn.ReLU(inplace=True)
        self.norm1, self.norm2 = norm(outputs), norm(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.norm3 = norm(outputs)
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), self.norm3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.relu(self.norm2(self.conv2(out)))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResidualEncoder(nn.Module):
    """Image [B, 3, H, W] -> [B, 128, H / s, W / s] through three layers of two blocks.

    Args:
        norm: of every convolution.
        strides: of the first convolution and of the three layers; s is their product.
        bias: of the convolutions that a norm follows, but for the shortcuts', which always have one.
    """

    def __init__(self, norm: Norm, strides: tuple[int, int, int, int], *, bias: bool = True) -> None:
        super().__init__()
        first, second, third, fourth = strides
        self.norm1 = norm(64)
        self.conv1 = nn.Conv2d(3, 64, 7, first, 3, bias=bias)
        self.relu1 = nn.ReLU(inplace=True)
        self.layer1 = two_blocks(64, 64, norm, stride=second, bias=bias)
        self.layer2 = two_blocks(64, 96, norm, stride=third, bias=bias)
        self.layer3 = two_blocks(96, 128, norm, stride=fourth, bias=bias)

    def encode(self, image: Tensor) -> Tensor:
        """The output of layer3."""
        out = self.relu1(self.norm1(self.conv1(image)))
        return self.layer3(self.layer2(self.layer1(out)))


def two_blocks(inputs: int, outputs: int, norm: Norm, *, stride: int, bias: bool = True) -> nn.Sequential:
    """A layer of the encoder; the first block has the stride."""
    first = NormedBlock(inputs, outputs, norm, stride=stride, bias=bias)
    return nn.Sequential(first, NormedBlock(outputs, outputs, norm, bias=bias))


def init_encoder(model: nn.Module) -> None:
    """Convolutions by He's rule over their outputs, as published; norms start as they are made."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
