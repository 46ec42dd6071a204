"""R-Transformer: a recurrent network over each position's neighbours, then attention (Wang et al., arXiv 1907.05572).

Compared with: DSE-MSU/R-transformer@3103cdfd (no licence: numbers only), golden vectors `rtransformer_*`.
Differs: a map has a network along each axis and in each direction, whose answers are added up (ours: the paper knows
sequences only, forwards); layer norms are torch's (the reference divides by the unbiased deviation plus 1e-6); the
block's residual and perceptron are the block's; lengths have no limit. Faults not taken over: fixed tables of 10000
windows and 3000 tokens on a GPU, and an output layer that nothing reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import Claims, QKVAttention, check_no_context
from visionattn.ops.local_recurrence import GRU, LSTM, RNN, Cell, Recurrence, local_recurrence
from visionattn.registry import ATTENTION
from visionattn.typing import Grid, Tokens

_PAPER = "Wang et al., 2019, arXiv 1907.05572"


class LocalRNN(nn.Module):
    """A cell with the parameter names and the start of torch.nn.GRU, LSTM or RNN."""

    def __init__(self, dim: int, cell: Cell) -> None:
        super().__init__()
        self.cell = cell
        bound = dim**-0.5
        self.weight_ih, self.weight_hh = (
            nn.Parameter(torch.empty(cell.gates * dim, dim).uniform_(-bound, bound)) for _ in range(2)
        )
        self.bias_ih, self.bias_hh = (
            nn.Parameter(torch.empty(cell.gates * dim).uniform_(-bound, bound)) for _ in range(2)
        )

    def forward(self, x: Tensor, window: int) -> Tensor:
        """[..., L, C] of [..., L, C]: `local_recurrence`."""
        tensors = Recurrence(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return local_recurrence(x, tensors, self.cell, window)


@ATTENTION.register_module()
class RTransformer(QKVAttention):
    """l + attention(norm2(x + l)), l the sum over rows, columns and directions of local GRUs that read norm1(x).

    Two branches of the paper's layer, the first of them added to the input of the second; the block adds x. Takes the
    raw map: its norms are inside.

    Args:
        grid: only its number of axes is read; a map has two if there is none.
        window: positions that a network reads, the last of them its own.
        causal: networks run forwards only, and in raster order a position sees those before it and itself.
        num_heads, key_dim, value_dim, qkv_bias, attn_drop, proj_drop: as `QKVAttention`.
    Raises:
        ValueError: window is below 1; as `QKVAttention`.
    """

    claims = Claims(paper=_PAPER, cost="N^2", convex=True, causal=True)

    cell: ClassVar[Cell] = GRU

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        window: int = 7,
        causal: bool = False,
        num_heads: int = 8,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            qkv_bias=qkv_bias,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
        )
        if window < 1:
            raise ValueError(f"window={window} must be 1 or more; with 1 a network reads its own position alone")
        axes = 2 if self.grid is None else len(self.grid)
        self.grid_dims = (axes,)
        self.window, self.causal = window, causal
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.forwards = nn.ModuleList(LocalRNN(dim, self.cell) for _ in range(axes))
        self.backwards = nn.ModuleList(LocalRNN(dim, self.cell) for _ in range(0 if causal else axes))

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def forward(self, x: Tokens, mask: Tensor | None = None, *, context: None = None) -> Tokens:
        check_no_context(self, context)
        self.check_map(x, mask)
        local = self.local(self.norm1(x), mask).to(x.dtype)
        return local + self._attend_map(self.norm2(x + local), None, mask)

    def local(self, x: Tokens, mask: Tensor | None = None) -> Tensor:
        """The sum of what the networks answer, [B, *grid, C]; a padded position is read as zeros."""
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)
        total = torch.zeros((), device=x.device)
        for axis, network in enumerate(self.forwards, 1):
            lines = x.movedim(axis, -2)
            total = total + network(lines, self.window).movedim(-2, axis)
        for axis, network in enumerate(self.backwards, 1):
            lines = x.movedim(axis, -2).flip(-2)
            total = total + network(lines, self.window).flip(-2).movedim(-2, axis)
        return total

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        seen = None if mask is None else mask[:, None, None, :]
        if self.causal:
            earlier = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
            seen = earlier if seen is None else seen & earlier
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, dropout_p=self.attn_drop if self.training else 0.0
        )


@ATTENTION.register_module()
class RTransformerLSTM(RTransformer):
    """`RTransformer` with LSTMs."""

    cell = LSTM


@ATTENTION.register_module()
class RTransformerRNN(RTransformer):
    """`RTransformer` with plain networks, tanh of a sum."""

    cell = RNN
