"""What recurrent refinement is made of in RAFT (Teed and Deng, ECCV 2020) and its kin, under its parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MotionEncoder(nn.Module):
    """Correlation and flow of the last step -> [B, outputs, H, W], of which the last channels are the flow itself.

    Args:
        correlation: channels of the correlation that comes in.
        flow: channels of the flow: 1 for a disparity, 2 where its vertical part is kept as zeros.
        correlation_widths, flow_widths: of the two convolutions on each.
        outputs: channels that come out.
    """

    def __init__(
        self,
        correlation: int,
        flow: int,
        *,
        correlation_widths: tuple[int, int],
        flow_widths: tuple[int, int],
        outputs: int = 128,
    ) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(correlation, correlation_widths[0], 1)
        self.convc2 = nn.Conv2d(correlation_widths[0], correlation_widths[1], 3, padding=1)
        self.convf1 = nn.Conv2d(flow, flow_widths[0], 7, padding=3)
        self.convf2 = nn.Conv2d(flow_widths[0], flow_widths[1], 3, padding=1)
        self.conv = nn.Conv2d(correlation_widths[1] + flow_widths[1], outputs - flow, 3, padding=1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        seen = F.relu(self.convc2(F.relu(self.convc1(correlation))))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow))))
        both = F.relu(self.conv(torch.cat([seen, moved], dim=1)))
        return torch.cat([both, flow.to(both.dtype)], dim=1)


class FlowHead(nn.Module):
    """Hidden state -> the step to take, [B, outputs, H, W]."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(x)))


def upsampling_mask(inputs: int, factor: int) -> nn.Sequential:
    """Hidden state -> logits of `convex_upsampling`, [B, 9 * factor ** 2, H, W]."""
    return nn.Sequential(nn.Conv2d(inputs, 256, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(256, 9 * factor**2, 1))


def gated_update(
    hidden: Tensor,
    x: Tensor,
    update: nn.Module,
    reset: nn.Module,
    candidate: nn.Module,
    context: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """One step of a convolutional GRU.

    Args:
        hidden: [B, C, H, W].
        x: [B, inputs, H, W].
        update, reset, candidate: convolutions of C + inputs channels to C.
        context: [B, C, H, W] each, added to what the three convolutions give.
    """
    both = torch.cat([hidden, x], dim=1)
    z, r = update(both), reset(both)
    if context is not None:
        z, r = z + context[0], r + context[1]
    q = candidate(torch.cat([r.sigmoid() * hidden, x], dim=1))
    if context is not None:
        q = q + context[2]
    return torch.lerp(hidden, q.tanh(), z.sigmoid())
