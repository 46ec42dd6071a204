"""PSMNet as it was published, written plainly on the weights of ours: the volume filled by slices, the whole upsampled
cost held at once, PyTorch's convolutions in their usual memory order."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.stereo.psmnet import Hourglass, PSMNet


class PublishedPSMNet(nn.Module):
    """Holds the parameters of `ours` and nothing of its forward."""

    def __init__(self, ours: PSMNet) -> None:
        super().__init__()
        self.net = ours

    def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:
        net = self.net
        start = F.relu_(dres(net.dres0[0], self.volume(features(net, left), features(net, right))))
        start = F.relu_(dres(net.dres0[2], start))
        start = dres(net.dres1[2], F.relu_(dres(net.dres1[0], start))) + start
        out1, pre, post = hourglass(net.dres2, start, None, None)
        out1 = out1 + start
        out2, _, post = hourglass(net.dres3, out1, pre, post)
        out2 = out2 + start
        out3, _, _ = hourglass(net.dres4, out2, pre, post)
        out3 = out3 + start
        cost1 = scores(net.classif1, out1)
        cost2 = scores(net.classif2, out2) + cost1
        cost3 = scores(net.classif3, out3) + cost2
        costs = [cost1, cost2, cost3] if self.training else [cost3]
        return [self.regression(cost, left.shape[2:]) for cost in costs]

    def volume(self, left: Tensor, right: Tensor) -> Tensor:
        batch, channels, height, width = left.shape
        volume = left.new_zeros(batch, 2 * channels, self.net.planes, height, width)
        for disparity in range(self.net.planes):
            if disparity:
                volume[:, :channels, disparity, :, disparity:] = left[..., disparity:]
                volume[:, channels:, disparity, :, disparity:] = right[..., :-disparity]
            else:
                volume[:, :channels, 0] = left
                volume[:, channels:, 0] = right
        return volume.contiguous()

    def regression(self, cost: Tensor, size: torch.Size) -> Tensor:
        full = F.interpolate(cost, [self.net.max_disparity, *size], mode="trilinear", align_corners=False).squeeze(1)
        shares = F.softmax(full, dim=1)
        disparities = torch.arange(self.net.max_disparity, dtype=shares.dtype, device=shares.device)
        return torch.sum(shares * disparities.view(1, -1, 1, 1).repeat(len(shares), 1, *size), 1)


def features(net: PSMNet, image: Tensor) -> Tensor:
    trunk = net.feature_extraction
    fine = trunk.layer2(trunk.layer1(trunk.firstconv(image)))
    coarse = trunk.layer4(trunk.layer3(fine))
    branches = (trunk.branch4, trunk.branch3, trunk.branch2, trunk.branch1)
    pooled = [F.interpolate(b(coarse), fine.shape[2:], mode="bilinear", align_corners=False) for b in branches]
    return trunk.lastconv(torch.cat([fine, coarse, *pooled], 1))


def dres(layer: nn.Sequential, volume: Tensor) -> Tensor:
    conv, norm = layer
    return norm(F.conv3d(volume, conv.weight, padding=1))


def hourglass(net: Hourglass, x: Tensor, pre: Tensor | None, post: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    down = net.conv2(net.conv1(x))
    down = F.relu_(down if post is None else down + post)
    low = net.conv4(net.conv3(down))
    up = F.relu_(doubled(net.conv5, low) + (down if pre is None else pre))
    return doubled(net.conv6, up), down, up


def doubled(layer: nn.Sequential, volume: Tensor) -> Tensor:
    conv, norm = layer
    return norm(F.conv_transpose3d(volume, conv.weight, stride=2, padding=1, output_padding=1))


def scores(layer: nn.Sequential, volume: Tensor) -> Tensor:
    first, relu, last = layer
    return F.conv3d(relu(first(volume)), last.weight, padding=1)
