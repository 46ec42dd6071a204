"""Softmax attention (Vaswani et al., Attention Is All You Need, 2017, equation 1), multi-head.

Compared with: timm 1.0.31 `timm/layers/attention.py` (same parameters, same output),
NMesaC/pay-better-attention@bf1c585e (golden vectors `hosseini_sdpa_*`).
Differs: keys may be masked; a query without any real key answers 0.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from visionattn.attention.base import Claims, ContextQKVAttention
from visionattn.registry import ATTENTION
from visionattn.typing import Grid


@ATTENTION.register_module()
class SoftmaxAttention(ContextQKVAttention):
    """softmax(Q K^T / sqrt(d)) V through PyTorch's fused scaled_dot_product_attention."""

    claims = Claims(
        paper="Vaswani et al., NeurIPS 2017, arXiv 1706.03762",
        cost="N^2",
        permutation_equivariant=True,
        convex=True,
        softmax_limit={},
        causal=True,
    )

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        attn_mask = None if mask is None else mask[:, None, None, :]
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=attn_mask, dropout_p=self.attn_drop if self.training else 0.0
        )
