"""Performers (Choromanski et al., Rethinking Attention with Performers, ICLR 2021, algorithm 1 and appendix D).

Compared with: lucidrains/performer-pytorch@fc8b7844 (MIT), golden vectors `performer_*`; for the hyperbolic features
idiap/fast-transformers@2ad36b97 (MIT), golden vectors `favor_features_*`.
Differs: padded keys do not move the keys' common factor; features are redrawn between training steps, not inside a
forward pass, where a checkpointed block would see two of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from visionattn.attention.base import Claims, ContextQKVAttention
from visionattn.ops.feature_attention import (
    favor_attention,
    feature_attention,
    orthogonal_projection,
    relu_features,
)
from visionattn.ops.precision import at_least_float32, without_autocast
from visionattn.registry import ATTENTION
from visionattn.typing import Grid

_PAPER = "Choromanski et al., ICLR 2021, arXiv 2009.14794"


@ATTENTION.register_module()
class Performer(ContextQKVAttention):
    """FAVOR+: softmax attention estimated without bias by positive orthogonal random features.

    The features are a buffer, shared by the heads of a layer and saved with its weights. In training the engine's
    `RedrawFeaturesHook` draws them anew, the same in every process; other training loops call `redraw`.

    Args:
        num_features: R; D log D for heads of width D if None.
        redraw_interval: training steps between two draws; None keeps the first.
    """

    claims = Claims(paper=_PAPER, cost="N", permutation_equivariant=True, convex=True, causal=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        num_features: int | None = None,
        redraw_interval: int | None = 1000,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop,
        )
        self.head_dim = self.key_dim // num_heads
        self.num_features = (
            max(1, int(self.head_dim * math.log(self.head_dim))) if num_features is None else num_features
        )
        self.redraw_interval = redraw_interval
        for name, number in (("num_features", self.num_features), ("redraw_interval", redraw_interval)):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number} must be 1 or more")
        self.projection_matrix: Tensor
        self.register_buffer("projection_matrix", torch.empty(self.num_features, self.head_dim))
        # A seed of the global generator, as that of any other parameter at its start.
        self.redraw(torch.Generator().manual_seed(int(torch.randint(2**31, ()))))

    @torch.no_grad()
    def redraw(self, generator: torch.Generator) -> None:
        """New random features.

        Args:
            generator: of the CPU; with one seed every device and process draws the same.
        """
        self.projection_matrix.copy_(orthogonal_projection(self.num_features, self.head_dim, generator))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return favor_attention(q, k, v, self.projection_matrix, mask)


@ATTENTION.register_module()
class PerformerReLU(Performer):
    """The same with the features relu(W x) + 1e-3, which estimate no softmax: the paper's generalised attention."""

    claims = Claims(paper=_PAPER, cost="N", permutation_equivariant=True, convex=True)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        with without_autocast(q.device):
            q, k, values = (at_least_float32(t) for t in (q, k, v))
            projection = self.projection_matrix.to(q.dtype)
            queries, keys = relu_features(q, projection), relu_features(k, projection)
            return feature_attention(queries, keys, values, mask).to(v.dtype)
