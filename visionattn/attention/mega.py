"""Mega: a moving average, and one head of gated attention behind it (Ma et al., ICLR 2023, arXiv 2209.10655).

Compared with: facebookresearch/mega@aeaa4b44 (MIT), golden vectors `mega_ema_*` and `mega_gated_attn_*` (its alpha and
delta have exchanged names); lucidrains/Mega-pytorch@dc765fd5 (MIT), `mega_lucid_*`, whose average is another one: its
heads share one decay, and there is no direct path.
Differs: the layer's residual is the block's, so that u * (h' - x) is answered; a map is averaged along one axis after
the other, each in both directions (ours: the paper knows sequences only); chunks are windows of the map; the learned
bias is resized at other resolutions, where the reference has a largest length; a decay of 0 gives no nan; a query that
sees no real key answers 0, where the reference lets it see padding.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import Claims, TokenMixer, check_no_context, check_probabilities
from visionattn.ops.laplace_attention import laplace_attention
from visionattn.ops.moving_average import ema_kernel, moving_average
from visionattn.ops.precision import at_least_float32, without_autocast
from visionattn.ops.rotary_bias import rotary_bias
from visionattn.ops.token_mixing import resized_on_grid
from visionattn.ops.window import (
    hidden_pairs,
    merge,
    partition,
    relative_position_index,
    window_attention,
    window_bias,
    window_layout,
)
from visionattn.registry import ATTENTION
from visionattn.typing import Grid, Tokens

_PAPER = "Ma et al., ICLR 2023, arXiv 2209.10655"


class MovingAverage(nn.Module):
    """silu(average of x + omega * x): equation 2 along every axis of a map, one after the other, in both directions.

    Args:
        dim: channels C, each with averages of its own.
        axes: of the map.
        averages: h, exponentials that a kernel is the sum of.
    """

    def __init__(self, dim: int, axes: int, averages: int) -> None:
        super().__init__()
        shape = (axes, 2, dim, averages)  # 2: past and future
        self.delta, self.alpha = (nn.Parameter(torch.randn(shape) * 0.2) for _ in range(2))
        signs = torch.tensor([1.0, -1.0]).repeat(averages)[:averages]
        self.beta = nn.Parameter(signs + torch.randn(shape) * 0.02)
        self.gamma = nn.Parameter(torch.randn(shape))
        self.omega = nn.Parameter(torch.randn(dim))

    def forward(self, x: Tokens, mask: Tensor | None = None) -> Tokens:
        averaged = x if mask is None else x.masked_fill(~mask[..., None], 0.0)
        share = at_least_float32(self.alpha).sigmoid()
        decay = 1 - share * at_least_float32(self.delta).sigmoid()
        weights = share * self.beta * self.gamma * self.gamma.shape[-1] ** -0.5
        for axis in range(len(self.alpha)):
            past, future = ema_kernel(weights[axis], decay[axis], x.shape[axis + 1])
            averaged = moving_average(averaged, past, future, axis + 1)
        return F.silu(averaged + at_least_float32(x) * self.omega).to(x.dtype)


class GatedAveraging(TokenMixer):
    """u * (silu(W_h x' + U_h (r * attended)) - x), x' the moving average of norm(x): what both forms share.

    u and r are gates made of x'; queries and keys are one projection of x' with two gains and offsets; values come from
    norm(x). Takes the raw map: its norm is inside.

    Args:
        grid: where the bias of offsets is learned; needed unless there are chunks or the bias is `rotary`.
        key_dim: z, width of queries and keys; even if `rotary`.
        value_dim: v, width of the values; 2 * dim if None.
        averages: h, exponentials in the kernel of a channel, for each axis and direction.
        chunk: attention runs inside windows of so many tokens along each axis; None: over the whole map.
        rotary: the bias of offsets is made of two vectors for each axis, for any resolution.
        proj_drop: dropout of h'.
    Raises:
        ValueError: no grid where one is needed, or a number that cannot be.
    """

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        key_dim: int = 64,
        value_dim: int | None = None,
        averages: int = 16,
        chunk: int | None = None,
        rotary: bool = False,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid)
        value_dim = 2 * dim if value_dim is None else value_dim
        name = type(self).__name__
        for option, number in (("key_dim", key_dim), ("value_dim", value_dim), ("averages", averages)):
            if number < 1:
                raise ValueError(f"{option}={number} must be 1 or more")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk={chunk} must be 1 or more, or None for attention over the whole map")
        if rotary and key_dim % 2:
            raise ValueError(f"key_dim={key_dim} must be even where the bias is rotary, such as {key_dim + 1}")
        if self.grid is None and chunk is None and not rotary:
            raise ValueError(
                f"{name} learns a bias for every offset of two positions: give it a grid, such as grid=(32, 32), or "
                "chunk=16, or rotary=True, which need none"
            )
        check_probabilities(proj_drop=proj_drop)
        axes = 2 if self.grid is None else len(self.grid)
        self.grid_dims = (axes,)
        self.chunk = chunk
        self.widths = [dim, key_dim, value_dim, dim]  # u, z, r and h before the attended values
        self.norm = nn.LayerNorm(dim)
        self.average = MovingAverage(dim, axes, averages)
        self.value = nn.Linear(dim, value_dim)
        self.gates = nn.Linear(dim, sum(self.widths))
        self.attended = nn.Linear(value_dim, dim)
        self.scale, self.shift = nn.Parameter(torch.randn(2, key_dim) * 0.02), nn.Parameter(torch.zeros(2, key_dim))
        self.turned: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if rotary:
            self.turned = nn.Parameter(torch.randn(2, axes, key_dim) * 0.02)  # for queries and keys
        else:
            extents = (self.grid or ()) if chunk is None else (chunk,) * axes
            self.bias = nn.Parameter(torch.randn([2 * extent - 1 for extent in extents]) * 0.02)
        self.proj_drop = nn.Dropout(proj_drop)
        for layer in (self.value, self.gates, self.attended):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def forward(self, x: Tokens, mask: Tensor | None = None, *, context: None = None) -> Tokens:
        check_no_context(self, context)
        self.check_map(x, mask)
        normed = self.norm(x)
        values = F.silu(self.value(normed)).flatten(1, -2)
        update, z, reset, hidden = torch.split(self.gates(self.average(normed, mask)), self.widths, dim=-1)
        z, reset = F.silu(z).flatten(1, -2), F.silu(reset)
        q, k = (z * scale + shift for scale, shift in zip(self.scale, self.shift, strict=True))
        real = None if mask is None else mask.flatten(1)
        seen = self.attend(q[:, None], k[:, None], values[:, None], tuple(x.shape[1:-1]), real)
        gathered = self.attended(seen[:, 0].reshape(reset.shape) * reset)
        return update.sigmoid() * (self.proj_drop(F.silu(hidden + gathered)) - x)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid, mask: Tensor | None = None) -> Tensor:
        """The attended values [B, heads, N, E] of q, k [B, heads, N, D] and v; mask [B, N] bool, True = real."""
        chunk: Grid = grid if self.chunk is None else tuple(min(self.chunk, extent) for extent in grid)
        layout = window_layout(grid, chunk, (0,) * len(grid), q.shape[1], device=q.device)
        hidden = hidden_pairs(layout, mask)
        bias = self.offset_bias(chunk).to(q.dtype)
        q, k, v = (partition(t, layout) for t in (q, k, v.to(q.dtype)))
        return merge(self.weigh(q, k, v, bias, hidden), layout)

    @abstractmethod
    def weigh(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, hidden: Tensor | None) -> Tensor:
        """Attention in each chunk, [B, W, heads, T, E].

        Args:
            q, k: [B, W, heads, T, D].
            v: [B, W, heads, T, E].
            bias: [T, T], of query and key.
            hidden: [1 or B, W, 1, T] bool, True where a key must not be seen.
        """

    def offset_bias(self, extents: Grid) -> Tensor:
        """The bias of every (query, key) of a chunk, [T, T], in float32 at least."""
        with without_autocast(self.scale.device):
            if self.turned is not None:
                query, key = at_least_float32(self.turned)
                return rotary_bias(query, key, extents)
            assert self.bias is not None
            table = at_least_float32(self.bias)
            if self.chunk is None:
                table = resized_on_grid(table[None], [2 * extent - 1 for extent in extents])[0]
            else:  # a map smaller than a chunk has the offsets in the middle
                for axis, extent in enumerate(extents):
                    table = table.narrow(axis, self.chunk - extent, 2 * extent - 1)
            index = relative_position_index(extents).to(table.device)
            # The official table counts from query to key, the index from key to query.
            return table.flatten().index_select(0, index.mT.flatten()).view(index.shape)


@ATTENTION.register_module()
class Mega(GatedAveraging):
    """Gated attention with softmax weights: softmax(Q K^T / sqrt(z) + bias) V."""

    claims = Claims(paper=_PAPER, cost="N^2", convex=True)

    def weigh(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, hidden: Tensor | None) -> Tensor:
        out = window_attention(q, k, v, window_bias(bias[None], hidden))
        if hidden is None:
            return out
        return out.masked_fill(hidden.all(dim=-1)[:, :, None, :, None], 0.0)


@ATTENTION.register_module()
class MegaLaplace(GatedAveraging):
    """Gated attention with laplace(Q K^T / M + bias) V, M the number of real keys."""

    claims = Claims(paper=_PAPER, cost="N^2")

    def weigh(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, hidden: Tensor | None) -> Tensor:
        return laplace_attention(q, k, v, bias, None if hidden is None else hidden[:, :, None])
