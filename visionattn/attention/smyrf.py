"""SMYRF (Daras et al., SMYRF: Efficient Attention using Asymmetric Clustering, NeurIPS 2020, arXiv 2010.05315).

Compared with: giannisdaras/smyrf@bbbc82e0 (GPL-3.0: numbers only), golden vectors `smyrf_*`.
Differs: any numbers of queries and keys (the reference wants equally many full clusters of each), masked ones left out
of hash and clusters; the hash is drawn once, from a seed, and not anew in every forward pass, eval too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visionattn.attention.base import (
    Claims,
    ContextQKVAttention,
    check_no_context_mask,
    split_heads,
)
from visionattn.ops.smyrf_attention import smyrf_attention
from visionattn.registry import ATTENTION
from visionattn.typing import Grid, Tokens


@ATTENTION.register_module()
class SMYRF(ContextQKVAttention):
    """Softmax attention inside balanced clusters of queries and keys whose products are large; no weights of its own.

    It takes the weights of softmax attention as they are, and is that attention where one cluster holds all tokens.

    Args:
        cluster_size: tokens of a cluster, at most.
        rounds: hashes; more find more of what softmax attention would see.
        seed: of the hash, which is not saved: a model has the same one wherever it is built.
    Raises:
        ValueError: cluster_size or rounds is below 1.
    """

    claims = Claims(
        paper="Daras et al., NeurIPS 2020, arXiv 2010.05315",
        cost="N",
        permutation_equivariant=True,
        convex=True,
        softmax_limit={"cluster_size": 64},
    )

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        cluster_size: int = 64,
        rounds: int = 4,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        seed: int = 0,
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
        for name, number in (("cluster_size", cluster_size), ("rounds", rounds)):
            if number < 1:
                raise ValueError(f"{name}={number} must be 1 or more")
        self.cluster_size = cluster_size
        self.lines: Tensor
        generator = torch.Generator().manual_seed(seed)
        lines = torch.randn(self.key_dim // num_heads + 2, rounds, generator=generator, device="cpu")
        self.register_buffer("lines", lines, persistent=False)

    def forward(  # type: ignore[override]  # positional order: the context comes before the masks
        self,
        x: Tokens,
        context: Tokens | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tokens:
        self.check_map(x, mask)
        if context is None:
            check_no_context_mask(self, context_mask)
            source, key_mask = x, mask
        else:
            self.check_context(x, context, context_mask)
            source, key_mask = context, context_mask
        # Not by the base class: padded queries would take places in clusters, and it has no mask for them.
        projected = self._project_two(x.flatten(1, -2), source.flatten(1, -2))
        q, k, v = (split_heads(t, self.num_heads) for t in projected)
        query_real, key_real = (None if real is None else real.flatten(1) for real in (mask, key_mask))
        q_grid, kv_grid = tuple(x.shape[1:-1]), tuple(source.shape[1:-1])
        out = self.attend(q, k, v, q_grid, kv_grid, key_real, query_mask=query_real)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2))).reshape(x.shape)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_grid: Grid,
        kv_grid: Grid,
        mask: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> Tensor:
        """As in every mechanism; query_mask [B, N] bool, True where a query is real and takes a place in a cluster."""
        return smyrf_attention(q, k, v, self.lines, self.cluster_size, mask, query_mask)
