"""Double attention (Chen et al., A^2-Nets, NeurIPS 2018, equations 3 to 6): gather by B, distribute by V.

Compared with: gjylt/DoubleAttentionNet@0408c3dc (no licence: numbers only), golden vectors `a2_*`.
Differs: the residual and a batch norm behind the projection are the block's. A common copy of this mechanism calls
softmax without a dimension, which normalises over the batch; here B sums to 1 over positions, V over channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from visionattn.attention.base import Claims, ContextQKVAttention
from visionattn.ops.efficient_attention import efficient_attention
from visionattn.registry import ATTENTION
from visionattn.typing import Grid


@ATTENTION.register_module()
class DoubleAttention(ContextQKVAttention):
    """A B^T V with A the features, B softmax over positions, V softmax over channels.

    Efficient attention under other names: its queries are V, its keys B, its values A. The draft of that paper, as
    factorised attention, calls them C, B and V.

    Args:
        num_heads: 1 is the paper's form.
        key_dim: c_n, of B and V; the paper's dim // 4 if None.
        value_dim: c_m, of A; dim // 4 if None.
    """

    claims = Claims(
        paper="Chen et al., NeurIPS 2018, arXiv 1810.11579", cost="N", permutation_equivariant=True, convex=True
    )

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 1,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        quarter = max(1, dim // 4) if isinstance(dim, int) else None
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=quarter if key_dim is None else key_dim,
            value_dim=quarter if value_dim is None else value_dim,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop,
        )

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return efficient_attention(q, k, v, mask)
