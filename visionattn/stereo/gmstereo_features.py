"""GMStereo's feature extractor and its recurrent refinement, under the official parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.ops.convex_upsampling import convex_upsampling
from visionattn.ops.correlation_windows import local_correlation
from visionattn.stereo.recurrent_layers import FlowHead, MotionEncoder, gated_update, upsampling_mask
from visionattn.stereo.residual_encoder import ResidualEncoder, init_encoder

_HIDDEN = 128
_RADIUS = 4


class GMStereoEncoder(ResidualEncoder):
    """Image -> maps at H / 8, and at H / 4 if there are two scales, coarsest first; one convolution makes both."""

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__(nn.InstanceNorm2d, (2, 1, 2, 2 if scales == 1 else 1), bias=False)
        self.conv2 = nn.Conv2d(128, channels, 1)
        init_encoder(self)
        self.trident_conv = TridentConv(channels) if scales == 2 else None

    def forward(self, image: Tensor) -> list[Tensor]:
        out = self.conv2(self.encode(image))
        return [out] if self.trident_conv is None else self.trident_conv(out)


class TridentConv(nn.Module):
    """One 3 x 3 convolution, once with stride 2 and once without."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.conv2d(x, self.weight, stride=stride, padding=1) for stride in (2, 1)]


class Refinement(nn.Module):
    """A step of RAFT on a 9 x 9 window of correlations around the last disparity.

    Args:
        factor: of the convex upsampling.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.encoder = MotionEncoder((2 * _RADIUS + 1) ** 2, 1, correlation_widths=(256, 192), flow_widths=(128, 64))
        self.gru = SeparableGRU(_HIDDEN, _HIDDEN + 128)
        self.flow_head = FlowHead(_HIDDEN, 256, 1)
        self.mask = upsampling_mask(_HIDDEN, factor)

    def forward(self, projected: Tensor, left: Tensor, right: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor]:
        """The disparity one step on, [B, h, w], and the hidden state that led there, [B, 128, h, w].

        Args:
            projected: [B, 256, h, w]: the hidden state to start from, and the context.
            left, right: features before the transformer, [B, C, h, w].
            disparity: [B, h, w].
        """
        hidden, context = projected.chunk(2, dim=1)
        correlation = local_correlation(left, right, disparity, _RADIUS)
        motion = self.encoder(disparity.unsqueeze(1), correlation)
        hidden = self.gru(hidden.tanh(), torch.cat([context.relu(), motion], dim=1))
        return (disparity + self.flow_head(hidden).squeeze(1)).clamp(min=0), hidden

    def upsample(self, disparity: Tensor, hidden: Tensor) -> Tensor:
        """The disparity at full resolution, [B, H, W]."""
        return convex_upsampling(disparity, self.mask(hidden), self.factor)


class SeparableGRU(nn.Module):
    """A convolutional GRU along the rows, then one along the columns."""

    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        self.convz1, self.convr1, self.convq1 = (
            nn.Conv2d(hidden + inputs, hidden, (1, 5), padding=(0, 2)) for _ in range(3)
        )
        self.convz2, self.convr2, self.convq2 = (
            nn.Conv2d(hidden + inputs, hidden, (5, 1), padding=(2, 0)) for _ in range(3)
        )

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        hidden = gated_update(hidden, x, self.convz1, self.convr1, self.convq1)
        return gated_update(hidden, x, self.convz2, self.convr2, self.convq2)
