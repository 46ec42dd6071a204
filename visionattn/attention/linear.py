"""Linear attention (Katharopoulos et al., Transformers are RNNs, ICML 2020, equation 5).

Compared with: idiap/fast-transformers@2ad36b97 `LinearAttention` (MIT), golden vectors `linear_transformer_*`.
Differs: none; its causal form is `visionattn.ops.causal_attention.causal_linear_attention`.
"""

from __future__ import annotations

from torch import Tensor

from visionattn.attention.base import Claims, ContextQKVAttention
from visionattn.ops.feature_attention import linear_attention
from visionattn.registry import ATTENTION
from visionattn.typing import Grid


@ATTENTION.register_module()
class LinearAttention(ContextQKVAttention):
    """phi(Q) (phi(K)^T V) over phi(Q) sum phi(K), phi = elu + 1.

    The weights of a query sum to 1 but for the 1e-6 that the published form adds to their sum.
    """

    claims = Claims(
        paper="Katharopoulos et al., ICML 2020, arXiv 2006.16236",
        cost="N",
        permutation_equivariant=True,
        convex=True,
        causal=True,
    )

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return linear_attention(q, k, v, mask)
