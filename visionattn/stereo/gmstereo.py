"""GMStereo (Xu et al., Unifying Flow, Stereo and Depth Estimation, TPAMI 2023, arXiv 2211.05783).

Compared with: autonomousvision/unimatch@943a990 (MIT), golden vectors `gmstereo_*`; its checkpoints load by name.
Differs: whether a layer attends its own or the other view is fixed by its place, where the official code compares the
views' numbers; pairs that lie in windows across a shift's seam are kept apart exactly, where it adds -100 to the logit;
whole positions are read, where it samples at them in float32; any mechanism, and any backbone, may be put in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.ops.convex_upsampling import convex_upsampling
from visionattn.ops.row_matching import global_row_disparity, local_row_disparity
from visionattn.ops.row_sampling import warp_by_disparity
from visionattn.ops.sine_position import sine_position
from visionattn.registry import MODELS
from visionattn.stereo.backbone_features import BackboneFeatures
from visionattn.stereo.gmstereo_features import GMStereoEncoder, Refinement
from visionattn.stereo.gmstereo_transformer import FeatureTransformer, Propagation
from visionattn.stereo.layers import check_pair
from visionattn.stereo.recurrent_layers import upsampling_mask
from visionattn.typing import AttentionConfig


@MODELS.register_module()
class GMStereo(nn.Module):
    """Left and right image -> disparities of the left image in pixels, found anywhere along the row.

    Both views' features pass a transformer together; a softmax over all positions of the row matches them at an eighth
    of the resolution; with two scales, the match is corrected nearby at a quarter.

    Args:
        splits: windows along each side in which a view attends itself, one entry per scale: (2,) is the published
            network with one scale, (2, 8) that with two.
        refinements: steps of recurrent refinement on local correlations; 0 is without, 3 is published.
        match_radius: of the match at the second scale, in its positions.
        propagation_radius: of the averaging at the second scale.
        channels: of the features.
        layers: of the transformer.
        expansion: of its perceptrons.
        self_attention: the mechanism by which a view attends itself, on its whole map; None is the published one.
        cross_attention: the mechanism by which it attends the other view; it must be able to look at another map. None
            is the published one: whole rows with one scale, windows of the rows with two.
        cross_rows: that mechanism sees one row at a time; False lets it see the whole map.
        features: a backbone that takes the place of the published encoder, as `create_backbone` takes it; it must have
            maps at stride 8, and at stride 4 for two scales.
    Raises:
        KeyError, TypeError, ValueError: an option that does not fit.
    """

    def __init__(
        self,
        splits: Sequence[int] = (2,),
        *,
        refinements: int = 0,
        match_radius: int = 4,
        propagation_radius: int = 1,
        channels: int = 128,
        layers: int = 6,
        expansion: int = 4,
        self_attention: AttentionConfig | None = None,
        cross_attention: AttentionConfig | None = None,
        cross_rows: bool = True,
        features: str | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(splits) not in (1, 2) or any(number < 1 for number in splits):
            raise ValueError(f"splits={tuple(splits)} must hold one or two numbers of windows, such as (2,) or (2, 8)")
        if refinements < 0:
            raise ValueError(f"refinements={refinements} must be 0 or more")
        self.splits = tuple(splits)
        self.refinements = refinements
        self.match_radius = match_radius
        self.propagation_radius = propagation_radius
        self.channels = channels
        self.strides = (8, 4)[: len(splits)]
        self.divisor = math.lcm(*(stride * number for stride, number in zip(self.strides, splits, strict=True)))
        """Of both sides of the images that it takes: windows are parts of the map, not numbers of positions."""
        self.smallest = self.divisor

        if features is None:
            self.backbone: nn.Module = GMStereoEncoder(channels, len(splits))
        else:
            self.backbone = BackboneFeatures(features, channels, self.strides)
        self.transformer = FeatureTransformer(channels, layers, expansion, self_attention, cross_attention, cross_rows)
        self.feature_flow_attn = Propagation(channels)
        if refinements:
            self.refine_proj = nn.Conv2d(channels, 256, 1)
            self.refine = Refinement(self.strides[-1])
        else:
            self.upsampler = upsampling_mask(channels + 2, self.strides[-1])

    def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Disparities [B, H, W] in float32 at least: of every stage in training, the last one in eval.

        Args:
            left, right: [B, 3, H, W] with ImageNet's mean and deviation; sides that `divisor` divides.
        Raises:
            ValueError: other shapes.
        """
        check_pair(left, right, self.divisor, self.smallest)
        outputs: list[Tensor] = []
        disparity: Tensor | None = None
        for scale, views in enumerate(self.backbone(torch.cat([left, right]))):
            left_map, right_map = views.chunk(2)
            features, matched = self._match(scale, left_map, right_map, disparity)
            disparity = self._propagate(scale, features, matched.detach())
            stages = [matched, disparity]
            if scale == len(self.splits) - 1 and not self.refinements:
                stages.pop()  # it is upsampled by weights that are learned
            if self.training:
                outputs += [_enlarged(stage, self.strides[scale]) for stage in stages]
        assert disparity is not None
        if self.refinements:
            return outputs + self._refine(features, left_map, right_map, disparity)
        flow = torch.stack([-disparity, torch.zeros_like(disparity)], dim=1)
        mask = self.upsampler(torch.cat([flow.to(features.dtype), features], dim=1))
        return [*outputs, convex_upsampling(disparity, mask, self.strides[-1])]

    def _match(self, scale: int, left: Tensor, right: Tensor, disparity: Tensor | None) -> tuple[Tensor, Tensor]:
        """The left features after the transformer, [B, C, h, w], and the disparity that they match at, [B, h, w]."""
        if disparity is not None:
            disparity = _enlarged(disparity, 2).detach()
            right = warp_by_disparity(right, disparity)
        splits = self.splits[scale]
        height, width = left.shape[2:]
        position = sine_position(height // splits, width // splits, self.channels, device=left.device).to(left.dtype)
        tokens = (view.movedim(1, -1) + position.repeat(splits, splits, 1) for view in (left, right))
        left, right = (
            view.movedim(-1, 1) for view in self.transformer(*tokens, splits, split_rows=len(self.splits) > 1)
        )
        if disparity is None:
            return left, global_row_disparity(left, right).clamp(min=0)
        return left, (disparity + local_row_disparity(left, right, self.match_radius)).clamp(min=0)

    def _propagate(self, scale: int, features: Tensor, disparity: Tensor) -> Tensor:
        tokens = features.movedim(1, -1)
        if scale == 0:
            return self.feature_flow_attn(tokens, disparity)
        return self.feature_flow_attn.around(tokens, disparity, self.propagation_radius)

    def _refine(self, features: Tensor, left: Tensor, right: Tensor, disparity: Tensor) -> list[Tensor]:
        """The disparity after every step in training, after the last one in eval, at full resolution."""
        projected = self.refine_proj(features)
        steps = []
        for step in range(self.refinements):
            disparity, hidden = self.refine(projected, left, right, disparity.detach())
            if self.training or step == self.refinements - 1:
                steps.append(self.refine.upsample(disparity, hidden))
        return steps


def _enlarged(disparity: Tensor, factor: int) -> Tensor:
    """Bilinear, corner to corner, in pixels of the finer grid."""
    size = [factor * extent for extent in disparity.shape[1:]]
    return factor * F.interpolate(disparity.unsqueeze(1), size, mode="bilinear", align_corners=True).squeeze(1)
