"""RAFT-Stereo's context encoder and recurrent update, under the official parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.stereo.recurrent_layers import FlowHead, MotionEncoder, gated_update, upsampling_mask
from visionattn.stereo.residual_encoder import NormedBlock, ResidualEncoder, init_encoder, two_blocks

WIDTH = 128
"""Channels of every hidden state and context."""

Context = tuple[Tensor, Tensor, Tensor]
"""What a scale's GRU adds to its update gate, reset gate and candidate."""


class ContextEncoder(ResidualEncoder):
    """Image -> for each scale, finest first, the hidden state to start from and the context.

    All three scales have their weights, as in the official checkpoints, whether or not they are used.

    Args:
        strides: of the first convolution and of three layers; two more layers of stride 2 follow.
    """

    def __init__(self, strides: tuple[int, int, int, int]) -> None:
        super().__init__(nn.BatchNorm2d, strides)
        self.layer4 = two_blocks(WIDTH, WIDTH, nn.BatchNorm2d, stride=2)
        self.layer5 = two_blocks(WIDTH, WIDTH, nn.BatchNorm2d, stride=2)
        self.outputs08 = nn.ModuleList(_with_block() for _ in range(2))
        self.outputs16 = nn.ModuleList(_with_block() for _ in range(2))
        self.outputs32 = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2))
        init_encoder(self)

    def scales(self, encoded: Tensor, number: int) -> tuple[list[Tensor], list[Tensor]]:
        """Hidden states and contexts of the first `number` scales, from the output of `encode`."""
        maps = [encoded]
        for layer in (self.layer4, self.layer5)[: number - 1]:
            maps.append(layer(maps[-1]))
        heads = (self.outputs08, self.outputs16, self.outputs32)
        pairs = [(head[0](x).tanh(), head[1](x).relu()) for head, x in zip(heads, maps, strict=False)]
        return [hidden for hidden, _ in pairs], [context for _, context in pairs]


class FeatureEncoder(ResidualEncoder):
    """Image -> features to match, [B, 256, H / s, W / s]."""

    def __init__(self, strides: tuple[int, int, int, int]) -> None:
        super().__init__(nn.InstanceNorm2d, strides)
        self.conv2 = nn.Conv2d(WIDTH, 256, 1)
        init_encoder(self)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv2(self.encode(image))


def shared_features() -> nn.Sequential:
    """The context encoder's map -> features to match, where both views go through that encoder."""
    return nn.Sequential(NormedBlock(WIDTH, WIDTH, nn.InstanceNorm2d), nn.Conv2d(WIDTH, 256, 3, padding=1))


class UpdateBlock(nn.Module):
    """GRUs at up to three scales, which hand on their states to their neighbours, and what is read off the finest.

    Args:
        correlation: channels of the correlation that comes in.
        scales: how many are used.
        factor: of the convex upsampling.
    """

    def __init__(self, correlation: int, scales: int, factor: int) -> None:
        super().__init__()
        self.scales = scales
        self.encoder = MotionEncoder(correlation, 2, correlation_widths=(64, 64), flow_widths=(64, 64))
        self.gru08 = ConvGRU(WIDTH, 128 + WIDTH * (scales > 1))
        self.gru16 = ConvGRU(WIDTH, WIDTH * (1 + (scales > 2)))
        self.gru32 = ConvGRU(WIDTH, WIDTH)
        self.flow_head = FlowHead(WIDTH, 256, 2)
        self.mask = upsampling_mask(WIDTH, factor)

    def coarse(self, states: list[Tensor], contexts: list[Context], finest: int = 1) -> list[Tensor]:
        """The states after a step of the scales from the coarsest to `finest`; the others stay."""
        states = list(states)
        if self.scales > 2:
            states[2] = self.gru32(states[2], contexts[2], _halved(states[1]))
        if self.scales > 1 and finest < 2:
            near = [_halved(states[0])] if self.scales == 2 else [_halved(states[0]), _resized(states[2], states[1])]
            states[1] = self.gru16(states[1], contexts[1], *near)
        return states

    def forward(
        self, states: list[Tensor], contexts: list[Context], correlation: Tensor, flow: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """The states after a step of all scales, and the step of the flow, [B, 2, H, W]."""
        states = self.coarse(states, contexts)
        near = [self.encoder(flow, correlation)]
        if self.scales > 1:
            near.append(_resized(states[1], states[0]))
        states[0] = self.gru08(states[0], contexts[0], *near)
        return states, self.flow_head(states[0])

    def upsampling(self, state: Tensor) -> Tensor:
        """Logits of `convex_upsampling`; the quarter balances the gradients, as published."""
        return 0.25 * self.mask(state)


class ConvGRU(nn.Module):
    """A GRU of 3 x 3 convolutions whose context is added to its gates."""

    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        self.convz, self.convr, self.convq = (nn.Conv2d(hidden + inputs, hidden, 3, padding=1) for _ in range(3))

    def forward(self, hidden: Tensor, context: Context, *x: Tensor) -> Tensor:
        return gated_update(hidden, torch.cat(x, dim=1), self.convz, self.convr, self.convq, context)


def _with_block() -> nn.Sequential:
    return nn.Sequential(NormedBlock(WIDTH, WIDTH, nn.BatchNorm2d), nn.Conv2d(WIDTH, WIDTH, 3, padding=1))


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=2, padding=1)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)
