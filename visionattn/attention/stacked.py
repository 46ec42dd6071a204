"""Stacked attention (Yang et al., Stacked Attention Networks, CVPR 2016, arXiv 1511.02274, equations 15 to 22).

Compared with: the equations, golden vectors `derived_san_*`; no official code could be run.
Differs: the query is the mean of the map instead of a question, and the paper's classifier of the last query a linear
layer whose answer every position gets; the scores have no bias, which their softmax would take away.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from visionattn.attention.base import (
    Claims,
    ContextMixer,
    check_no_context_mask,
    check_probabilities,
)
from visionattn.ops.additive_attention import additive_attention, mean_token
from visionattn.registry import ATTENTION
from visionattn.typing import Tokens


class AttentionHop(nn.Module):
    """u + sum_m p_m v_m with p = softmax(W_P tanh(W_I v + W_Q u + b_A)): one look of a query at a map."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.image = nn.Linear(dim, hidden_dim, bias=False)
        self.query = nn.Linear(dim, hidden_dim)
        self.score = nn.Linear(hidden_dim, 1, bias=False)

    def forward(self, query: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The refined query [B, C] of the query [B, C] and tokens [B, M, C]; mask [B, M] bool, True = real."""
        seen = additive_attention(self.query(query), self.image(tokens), self.score.weight[0], tokens, mask)
        return query + seen


@ATTENTION.register_module()
class StackedAttention(ContextMixer):
    """The mean of x looks at the map again and again; every position gets the last answer, which the block adds.

    Args:
        hops: looks; each adds what it sees to the query of the next.
        hidden_dim: width in which query and map are compared; dim if None.
    Raises:
        ValueError: hops or hidden_dim is below 1.
    """

    claims = Claims(paper="Yang et al., CVPR 2016, arXiv 1511.02274", cost="N", permutation_equivariant=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        hops: int = 2,
        hidden_dim: int | None = None,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid)
        hidden_dim = dim if hidden_dim is None else hidden_dim
        for name, number in (("hops", hops), ("hidden_dim", hidden_dim)):
            if number < 1:
                raise ValueError(f"{name}={number} must be 1 or more")
        check_probabilities(proj_drop=proj_drop)
        self.hops = nn.ModuleList(AttentionHop(dim, hidden_dim) for _ in range(hops))
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(  # type: ignore[override]  # positional order: the context comes before the masks
        self,
        x: Tokens,
        context: Tokens | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tokens:
        self.check_map(x, mask)
        source, source_mask = x, mask
        if context is None:
            check_no_context_mask(self, context_mask)
        else:
            self.check_context(x, context, context_mask)
            source, source_mask = context, context_mask
        tokens, real = source.flatten(1, -2), None if source_mask is None else source_mask.flatten(1)
        query = mean_token(x.flatten(1, -2), None if mask is None else mask.flatten(1)).to(x.dtype)
        for hop in self.hops:
            query = hop(query, tokens, real)
        answer: Tensor = self.proj_drop(self.proj(query))
        # A map of its own, not a view of one token: what comes after may write into it.
        return answer.view(len(x), *[1] * (x.dim() - 2), x.shape[-1]).expand_as(x).contiguous()
