"""Experimental: linear attention without a projected length, after Verma, Revisiting Linformer with a modified
self-attention with linear complexity, 2021, arXiv 2101.10277.

Compared with: nothing but its own equation in loops. Only the paper's abstract could be had, no equations and no code:
linear time and memory, without Linformer's length k. This is a form that does as much; no parity with the paper is
claimed.
"""

from __future__ import annotations

from torch import Tensor

from visionattn.attention.base import Claims, ContextQKVAttention
from visionattn.ops.channel_map import channel_map_attention
from visionattn.registry import ATTENTION
from visionattn.typing import Grid


@ATTENTION.register_module()
class LinformerFree(ContextQKVAttention):
    """Experimental: Q softmax(K^T V / sqrt(M)), the softmax over the channels of a map between channels.

    The sum over M tokens is divided by sqrt(M): sums of independent tokens then do not grow with the map, sums of what
    they have in common do, and with them how sharp the softmax is.
    """

    claims = Claims(paper="after Verma, 2021, arXiv 2101.10277 (experimental)", cost="N", permutation_equivariant=True)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return channel_map_attention(q, k, v, mask)
