"""RAFT-Stereo (Lipson et al., Multilevel Recurrent Field Transforms for Stereo Matching, 3DV 2021, arXiv 2109.07547).

Compared with: princeton-vl/RAFT-Stereo@6068c1a (MIT), golden vectors `raftstereo_*`; its checkpoints load by name once
"module." is cut off, which `visionattn.load_checkpoint` does.
Differs: images come normalised; a disparity comes out, not a flow; the correlation is PyTorch's own in both forms, and
the vertical flow, which is zero, takes no part in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from visionattn.blocks.cross_view import CrossViewBlock
from visionattn.ops.convex_upsampling import convex_upsampling
from visionattn.ops.precision import at_least_float32
from visionattn.ops.row_sampling import left_behind
from visionattn.registry import MODELS
from visionattn.stereo.layers import check_pair
from visionattn.stereo.raft_stereo_layers import (
    WIDTH,
    Context,
    ContextEncoder,
    FeatureEncoder,
    UpdateBlock,
    shared_features,
)
from visionattn.stereo.row_lookup import LeanRowLookup, StoredRowLookup
from visionattn.typing import AttentionConfig


@MODELS.register_module()
class RAFTStereo(nn.Module):
    """Left and right image -> disparities of the left image in pixels, each step correcting the last one.

    The defaults are the published network; the realtime one is
    `RAFTStereo(downsample=3, scales=2, shared_backbone=True, slow_fast=True, iterations=7)`.

    Args:
        iterations: steps in eval.
        training_iterations: steps in training; as many as in eval if None.
        downsample: the features are at 1 / 2 ** downsample of the resolution.
        scales: of recurrent states, each at half the resolution of the one before; 1 to 3.
        levels: of the correlation pyramid.
        radius: of the window that is read at every level.
        shared_backbone: features to match come from the context encoder's map.
        slow_fast: coarse states take more steps than fine ones.
        stored_correlation: keeps the correlation of whole rows for all steps; False makes it at every step, for less
            memory and the same numbers.
        norm_eval: batch norms keep their running statistics while training, as published.
        cross_view: a mechanism by which the features of each view look at the other before they are matched, which
            starts as the identity; it must be able to look at another map. None is as published.
    Raises:
        KeyError, TypeError, ValueError: an option that does not fit.
    """

    def __init__(
        self,
        iterations: int = 32,
        *,
        training_iterations: int | None = None,
        downsample: int = 2,
        scales: int = 3,
        levels: int = 4,
        radius: int = 4,
        shared_backbone: bool = False,
        slow_fast: bool = False,
        stored_correlation: bool = True,
        norm_eval: bool = True,
        cross_view: AttentionConfig | None = None,
    ) -> None:
        super().__init__()
        self.iterations = iterations
        self.training_iterations = iterations if training_iterations is None else training_iterations
        for name, value, most in (
            ("iterations", iterations, None),
            ("training_iterations", self.training_iterations, None),
            ("downsample", downsample, 3),
            ("scales", scales, 3),
            ("levels", levels, None),
        ):
            if value < 1 or (most is not None and value > most):
                raise ValueError(f"{name}={value} must be 1 {'or more' if most is None else f'to {most}'}")
        self.factor = 2**downsample
        self.scales = scales
        self.levels = levels
        self.radius = radius
        self.slow_fast = slow_fast
        self.stored_correlation = stored_correlation
        self.norm_eval = norm_eval
        self.divisor = max(32, self.factor * 2 ** (scales - 1))
        """Of both sides of the images that it takes."""
        self.smallest = max(self.divisor, self.factor * 2 ** (levels - 1))
        """Side: the coarsest level of the correlation has one column."""

        strides = (1 + (downsample > 2), 1, 1 + (downsample > 1), 2)
        self.cnet = ContextEncoder(strides)
        self.update_block = UpdateBlock(levels * (2 * radius + 1), scales, self.factor)
        self.context_zqr_convs = nn.ModuleList(nn.Conv2d(WIDTH, 3 * WIDTH, 3, padding=1) for _ in range(scales))
        if shared_backbone:
            self.conv2 = shared_features()
        else:
            self.fnet = FeatureEncoder(strides)
        self.shared_backbone = shared_backbone
        self.cross_view = None if cross_view is None else CrossViewBlock(256, cross_view)
        self.train()

    def train(self, mode: bool = True) -> RAFTStereo:
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Disparities [B, H, W] in float32 at least: after every step in training, after the last one in eval.

        Args:
            left, right: [B, 3, H, W], from -1 to 1; sides that `divisor` divides.
        Raises:
            ValueError: other shapes.
        """
        check_pair(left, right, self.divisor, self.smallest)
        encoded = self.cnet.encode(torch.cat([left, right]) if self.shared_backbone else left)
        if self.shared_backbone:
            left_map, right_map = self.conv2(encoded).chunk(2)
            encoded = encoded.chunk(2)[0]
        else:
            left_map, right_map = self.fnet(torch.cat([left, right])).chunk(2)
        if self.cross_view is not None:
            left_map, right_map = self.cross_view(left_map, right_map)
        lookup = self._lookup(left_map, right_map)

        states, contexts = self.cnet.scales(encoded, self.scales)
        gates = [
            cast("Context", conv(context).chunk(3, dim=1))
            for conv, context in zip(self.context_zqr_convs, contexts, strict=True)
        ]
        batch, _, height, width = left_map.shape
        disparity = at_least_float32(left_map.new_zeros(batch, height, width))
        outputs = []
        last = (self.training_iterations if self.training else self.iterations) - 1
        for step in range(last + 1):
            disparity = disparity.detach()
            correlation = lookup(left_behind(disparity))
            if self.slow_fast and self.scales == 3:
                states = self.update_block.coarse(states, gates, finest=2)
            if self.slow_fast and self.scales > 1:
                states = self.update_block.coarse(states, gates)
            flow = torch.stack([-disparity, torch.zeros_like(disparity)], dim=1)
            states, change = self.update_block(states, gates, correlation, flow)
            disparity = disparity - change[:, 0]
            if self.training or step == last:
                mask = self.update_block.upsampling(states[0])
                outputs.append(convex_upsampling(disparity, mask, self.factor))
        return outputs

    def _lookup(self, left: Tensor, right: Tensor) -> Callable[[Tensor], Tensor]:
        make = StoredRowLookup if self.stored_correlation else LeanRowLookup
        return make(left, right, self.levels, self.radius)
