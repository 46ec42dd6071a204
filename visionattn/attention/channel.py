"""Attention between channels (Ilbert et al., SAMformer, ICML 2024, arXiv 2402.10198, section 4.1), on pooled maps.

Compared with: romilbert/samformer@71f10eaa (Apache-2.0), golden vectors `samformer_*`.
Differs: a channel is described by the map pooled to a fixed number of cells, where SAMformer takes a series of fixed
length, so that any map will do. There are no values' weights: SAMformer's mix positions, which commutes with mixing
channels, and would bind the mechanism to one length. Its reversible norm of series is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from visionattn.attention.base import Claims, TokenMixer, check_no_context, check_probabilities
from visionattn.ops.channel_attention import channel_attention
from visionattn.ops.pooled_keys import pooled_maps
from visionattn.registry import ATTENTION
from visionattn.typing import Tokens


@ATTENTION.register_module()
class ChannelAttention(TokenMixer):
    """softmax(Q K^T / sqrt(d)) over the channels, Q and K [C, d] linear in the pooled channels; mixes these alone.

    Args:
        grid: only its number of axes is read; a map has two if there is none.
        pool: cells along each axis of the map.
        key_dim: d; 16 is the paper's.
        proj_drop: dropout of the output.
    Raises:
        ValueError: pool or key_dim is below 1.
    """

    claims = Claims(paper="Ilbert et al., ICML 2024, arXiv 2402.10198", cost="N")

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        pool: int = 16,
        key_dim: int = 16,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid)
        for name, number in (("pool", pool), ("key_dim", key_dim)):
            if number < 1:
                raise ValueError(f"{name}={number} must be 1 or more")
        check_probabilities(proj_drop=proj_drop)
        axes = 2 if self.grid is None else len(self.grid)
        self.grid_dims = (axes,)
        self.cells = (pool,) * axes
        self.query, self.key = (nn.Linear(math.prod(self.cells), key_dim) for _ in range(2))
        self.proj_drop = nn.Dropout(proj_drop)

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def forward(self, x: Tokens, mask: Tensor | None = None, *, context: None = None) -> Tokens:
        check_no_context(self, context)
        self.check_map(x, mask)
        pooled, _ = pooled_maps(x.movedim(-1, 1), self.cells, mask)
        channels = pooled.flatten(2)  # [B, C, cells]
        out = channel_attention(self.query(channels), self.key(channels), x.flatten(1, -2))
        return self.proj_drop(out).reshape(x.shape)
