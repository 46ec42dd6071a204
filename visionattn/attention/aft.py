"""Attention-free transformers (Zhai et al., arXiv 2105.14103): full, simple, local and convolutional.

Compared with: rish-16/aft-pytorch@9a896966 (MIT), golden vectors `aft_*`; idiap/fast-transformers@2ad36b97 (MIT),
`aft_simple_idiap*`; the equations, `derived_aft_*`.
Differs: the largest key is taken off before the exponential (the references overflow at 88); pairwise biases are
factors on the grid, resized at other resolutions. Faults not taken over: rish-16's local form makes a new parameter in
every forward pass, idiap's full form multiplies by w instead of adding it and its causal simple form never renormalises
earlier keys; no public convolutional form is right. The local and the convolutional form may gather from another map of
the same grid, by the same equation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import (
    Claims,
    ContextMixer,
    SameGridMixer,
    TokenMixer,
    check_heads,
    check_no_context_mask,
    check_probabilities,
    refuse_loose_queries,
)
from visionattn.ops.aft import aft_conv, aft_full, aft_local, aft_simple
from visionattn.ops.precision import at_least_float32, without_autocast
from visionattn.ops.token_mixing import resized_on_grid
from visionattn.registry import ATTENTION
from visionattn.typing import Tokens

_PAPER = "Zhai et al., 2021, arXiv 2105.14103"


class GatedGathering(ContextMixer):
    """proj(sigmoid(q) * gathered): what the four forms share.

    Args:
        hidden_dim: width of q, k and v; dim if None.
        key_width: of k; hidden_dim if None.
    """

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None,
        *,
        hidden_dim: int | None,
        qkv_bias: bool,
        proj_drop: float,
        key_width: int | None = None,
    ) -> None:
        super().__init__(dim, grid)
        self.hidden_dim = dim if hidden_dim is None else hidden_dim
        if self.hidden_dim < 1:
            raise ValueError(f"hidden_dim={hidden_dim} must be 1 or more")
        check_probabilities(proj_drop=proj_drop)
        self.widths = [self.hidden_dim, key_width or self.hidden_dim, self.hidden_dim]
        self.qkv = nn.Linear(dim, sum(self.widths), bias=qkv_bias)
        self.proj = nn.Linear(self.hidden_dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    @abstractmethod
    def gather(self, k: Tensor, v: Tensor, grid: Sequence[int], mask: Tensor | None) -> Tensor:
        """What queries on the grid gather, [B, *grid or ones, D], of maps k and v, in float32 at least."""

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
            return self._mixed(x, x, mask)
        self.check_context(x, context, context_mask)
        return self._mixed(x, context, context_mask)

    def _mixed(self, x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        q_width, k_width, _ = self.widths
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(x, weight[:q_width], None if bias is None else bias[:q_width])
        kv = F.linear(source, weight[q_width:], None if bias is None else bias[q_width:])
        with without_autocast(x.device):
            k, v = at_least_float32(kv[..., :k_width]), at_least_float32(kv[..., k_width:])
            gated = self.attend(q, k, v, mask).to(kv.dtype)
        return self.proj_drop(self.proj(gated))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """sigmoid(q) * what the queries gather, [B, *grid, D] of maps q, k and v; mask that of the keys."""
        return at_least_float32(q).sigmoid() * self.gather(k, v, q.shape[1:-1], mask)


@ATTENTION.register_module()
class AFTSimple(GatedGathering):
    """One gathered vector for all queries, softmax over positions of K by channel; the queries gate it."""

    claims = Claims(paper=_PAPER, cost="N", permutation_equivariant=True, causal=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        hidden_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid, hidden_dim=hidden_dim, qkv_bias=qkv_bias, proj_drop=proj_drop)

    def gather(self, k: Tensor, v: Tensor, grid: Sequence[int], mask: Tensor | None) -> Tensor:
        gathered = aft_simple(k.flatten(1, -2), v.flatten(1, -2), None if mask is None else mask.flatten(1))
        return gathered.view(len(k), *[1] * len(grid), gathered.shape[-1])


@ATTENTION.register_module()
class AFTFull(GatedGathering):
    """A bias for every pair of positions, the product of two factors learned on `grid`.

    Args:
        bias_dim: width of the factors; 128 is the paper's.
    Raises:
        ValueError: there is no grid.
    """

    claims = Claims(paper=_PAPER, cost="N^2", causal=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        hidden_dim: int | None = None,
        bias_dim: int = 128,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid, hidden_dim=hidden_dim, qkv_bias=qkv_bias, proj_drop=proj_drop)
        self.row_bias, self.column_bias = _factors(self, bias_dim)

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def check_loose_queries(self) -> None:
        refuse_loose_queries(self)

    def gather(self, k: Tensor, v: Tensor, grid: Sequence[int], mask: Tensor | None) -> Tensor:
        rows, columns = _resized(self.row_bias, grid, k), _resized(self.column_bias, k.shape[1:-1], k)
        bias = rows.flatten(1).mT @ columns.flatten(1)
        gathered = aft_full(k.flatten(1, -2), v.flatten(1, -2), bias, None if mask is None else mask.flatten(1))
        return gathered.view(len(k), *grid, gathered.shape[-1])


@ATTENTION.register_module()
class AFTLocal(GatedGathering, SameGridMixer):
    """As AFTFull with the bias kept where the Chebyshev distance is below `window`; all positions are gathered.

    Args:
        window: s; positions nearer than that have a bias.
        bias_dim: width of the factors.
    Raises:
        ValueError: there is no grid, or window is below 1.
    """

    claims = Claims(paper=_PAPER, cost="N")

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        window: int = 4,
        hidden_dim: int | None = None,
        bias_dim: int = 128,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid, hidden_dim=hidden_dim, qkv_bias=qkv_bias, proj_drop=proj_drop)
        if window < 1:
            raise ValueError(f"window={window} must be 1 or more")
        self.window = window
        self.row_bias, self.column_bias = _factors(self, bias_dim)

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def gather(self, k: Tensor, v: Tensor, grid: Sequence[int], mask: Tensor | None) -> Tensor:
        return aft_local(k, v, _resized(self.row_bias, grid, k), _resized(self.column_bias, grid, k), self.window, mask)


@ATTENTION.register_module()
class AFTConv(GatedGathering, SameGridMixer):
    """The bias a kernel over relative positions, one for each head; all positions are gathered.

    Args:
        num_heads: kernels; divides hidden_dim.
        kernel_size: odd.
        key_per_head: one key channel for all of a head, as in the paper; False: one for each channel.
        reparametrize: the kernel is gamma (w - mean) / std + beta, gamma and beta 0 at the start: then it is AFTSimple.
    Raises:
        ValueError: num_heads does not divide hidden_dim, or kernel_size is even.
    """

    claims = Claims(paper=_PAPER, cost="N")

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 4,
        kernel_size: int = 11,
        hidden_dim: int | None = None,
        key_per_head: bool = True,
        reparametrize: bool = True,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(
            dim,
            grid,
            hidden_dim=hidden_dim,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop,
            key_width=num_heads if key_per_head else None,
        )
        check_heads(num_heads, self.hidden_dim, "dim" if hidden_dim is None else "hidden_dim")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd, such as {max(1, kernel_size) | 1}")
        dims = 2 if self.grid is None else len(self.grid)
        self.grid_dims = (dims,)
        self.kernel = nn.Parameter(torch.randn(num_heads, *[kernel_size] * dims) * 0.01)
        self.gain = nn.Parameter(torch.zeros(num_heads)) if reparametrize else None
        self.offset = nn.Parameter(torch.zeros(num_heads)) if reparametrize else None

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def gather(self, k: Tensor, v: Tensor, grid: Sequence[int], mask: Tensor | None) -> Tensor:
        return aft_conv(k, v, self.bias().to(k.dtype), mask)

    def bias(self) -> Tensor:
        """The kernel in use, [heads, s, ..]."""
        if self.gain is None or self.offset is None:
            return self.kernel
        flat = self.kernel.flatten(1)
        std, mean = torch.std_mean(flat, dim=1, keepdim=True, correction=0)
        return (self.gain[:, None] * (flat - mean) / (std + 1e-5) + self.offset[:, None]).view_as(self.kernel)


def _factors(mixer: TokenMixer, width: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Two [width, *grid], N(0, 0.01); the mixer takes grids of as many dimensions."""
    name = type(mixer).__name__
    if mixer.grid is None:
        raise ValueError(f"{name} learns a bias for every position: give it a grid, such as grid=(32, 32)")
    if width < 1:
        raise ValueError(f"bias_dim={width} must be 1 or more; 128 is the paper's")
    mixer.grid_dims = (len(mixer.grid),)
    return tuple(nn.Parameter(torch.randn(width, *mixer.grid) * 0.01) for _ in range(2))  # type: ignore[return-value]


def _resized(factor: Tensor, grid: Sequence[int], like: Tensor) -> Tensor:
    """A factor [F, *grid] at another resolution, in the dtype of like."""
    return resized_on_grid(factor.to(like.dtype), grid)
