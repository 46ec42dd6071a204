"""Lambda layers (Bello, LambdaNetworks, ICLR 2021, arXiv 2102.08602), local and global.

Compared with: lucidrains/lambda-networks@8116ff36 (MIT) and d-li14/lambda.pytorch@646de558 (no licence: numbers only),
golden vectors `lambda_*`.
Differs: the position kernel has no bias unless asked for (the references' convolution adds a constant to every lambda,
which is no embedding of positions); the global table is resized at other resolutions and need not be square; padded
tokens enter neither the softmax nor the statistics of the norms; one or three dimensions as well; another map of the
same grid may make the lambdas.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import Claims, SameGridMixer, check_heads, check_no_context_mask
from visionattn.attention.token_norm import normalized, token_norm
from visionattn.ops.lambdas import (
    apply_lambdas,
    content_lambda,
    global_position_lambdas,
    local_position_lambdas,
    resized_offsets,
)
from visionattn.registry import ATTENTION
from visionattn.typing import Grid, Tokens

_PAPER = "Bello, ICLR 2021, arXiv 2102.08602"


class LambdaMixer(SameGridMixer):
    """Lambdas made of the whole map and of positions, applied to each query; what the two forms share.

    With a context keys and values are the context's, queries those of x.

    Args:
        num_heads: queries of a token that share its lambda; divides dim, and a value is dim / num_heads wide.
        key_dim: K, width of a key and of each head's query.
        depth: U, the intra-depth: keys and values of a token.
        norm_groups: group norms of q and v, for batches too small for batch norms; None is a batch norm.
        frozen_norm: the batch norms keep a checkpoint's statistics, weight and bias.
    Raises:
        ValueError: a number is below 1, num_heads does not divide dim, or norm_groups a norm's width.
    """

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None,
        *,
        num_heads: int,
        key_dim: int,
        depth: int,
        norm_groups: int | None,
        frozen_norm: bool,
    ) -> None:
        super().__init__(dim, grid)
        check_heads(num_heads, dim, "dim")
        for name, number in (("key_dim", key_dim), ("depth", depth)):
            if number < 1:
                raise ValueError(f"{name}={number} must be 1 or more")
        self.num_heads, self.key_dim, self.depth = num_heads, key_dim, depth
        self.widths = [key_dim * num_heads, key_dim * depth, dim // num_heads * depth]
        self.qkv = nn.Linear(dim, sum(self.widths), bias=False)
        self.norm_q = token_norm(self.widths[0], norm_groups, frozen_norm)
        self.norm_v = token_norm(self.widths[2], norm_groups, frozen_norm)

    @abstractmethod
    def position_lambdas(self, v: Tensor) -> Tensor:
        """[B, N, K, E] of the values [B, U, *grid, E]."""

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def forward(  # type: ignore[override]  # positional order: the context comes before the masks
        self,
        x: Tokens,
        context: Tokens | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tokens:
        self.check_map(x, mask)
        real = None if mask is None else mask.flatten(1)
        if context is None:
            check_no_context_mask(self, context_mask)
            key_real = real
            q, k, v = self.qkv(x.flatten(1, -2)).split(self.widths, dim=-1)
        else:
            self.check_context(x, context, context_mask)
            key_real = None if context_mask is None else context_mask.flatten(1)
            q = F.linear(x.flatten(1, -2), self.qkv.weight[: self.widths[0]])
            kv = F.linear(context.flatten(1, -2), self.qkv.weight[self.widths[0] :])
            k, v = torch.split(kv, self.widths[1:], dim=-1)
        q, v = normalized(self.norm_q, q, real), normalized(self.norm_v, v, key_real)
        q = torch.unflatten(q, -1, (self.num_heads, -1))
        k, v = (torch.unflatten(t, -1, (self.depth, -1)).transpose(1, 2) for t in (k, v))
        return self.attend(q, k, v, tuple(x.shape[1:-1]), key_real).reshape(x.shape)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid, mask: Tensor | None = None) -> Tensor:
        """The lambdas of k and v, applied to q.

        Args:
            q: [B, N, heads, K].
            k: [B, U, M, K].
            v: [B, U, M, E].
            grid: of the queries and of the keys.
            mask: [B, M] bool, True where a key is real.
        Returns:
            [B, N, heads, E].
        """
        if mask is not None:
            v = v.masked_fill(~mask[:, None, :, None], 0.0)
        positional = self.position_lambdas(v.reshape(*v.shape[:2], *grid, v.shape[-1]))
        return apply_lambdas(q.to(positional.dtype), content_lambda(k, v, mask).to(positional.dtype), positional)


@ATTENTION.register_module()
class LambdaLayer(LambdaMixer):
    """The whole map's lambda and that of a neighbourhood, by the lambda convolution.

    Args:
        kernel_size: r, odd; may be larger than the map.
        kernel_bias: adds a learned key to every position's lambda, as public implementations do.
    """

    claims = Claims(paper=_PAPER, cost="N")

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 4,
        key_dim: int = 16,
        depth: int = 1,
        kernel_size: int = 23,
        kernel_bias: bool = False,
        norm_groups: int | None = None,
        frozen_norm: bool = False,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            depth=depth,
            norm_groups=norm_groups,
            frozen_norm=frozen_norm,
        )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd, such as {max(1, kernel_size) | 1}")
        dims = 2 if self.grid is None else len(self.grid)
        self.grid_dims = (dims,)
        bound = 1 / math.sqrt(depth * kernel_size**dims)
        self.kernel = nn.Parameter(torch.empty(key_dim, depth, *[kernel_size] * dims).uniform_(-bound, bound))
        self.kernel_bias = nn.Parameter(torch.zeros(key_dim)) if kernel_bias else None

    def position_lambdas(self, v: Tensor) -> Tensor:
        return local_position_lambdas(v, self.kernel, self.kernel_bias)


@ATTENTION.register_module()
class LambdaLayerGlobal(LambdaMixer):
    """The whole map's lambda, and for each position another by where everything lies to it: O(N^2) memory.

    Args:
        grid: where the table of offsets is learned; needed.
        table_std: the standard deviation that the table is drawn with; 1 is the paper's, whose networks have a norm
            behind the layer. At first an answer's is table_std * sqrt(key_dim * tokens): where no norm follows,
            table_std=0.01 suits a map of 24 x 24.
    Raises:
        ValueError: there is no grid, or table_std is not positive and finite.
    """

    claims = Claims(paper=_PAPER, cost="N^2")

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 4,
        key_dim: int = 16,
        depth: int = 1,
        norm_groups: int | None = None,
        frozen_norm: bool = False,
        table_std: float = 1.0,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            depth=depth,
            norm_groups=norm_groups,
            frozen_norm=frozen_norm,
        )
        if self.grid is None:
            raise ValueError("LambdaLayerGlobal learns every offset on the map: give it a grid, such as grid=(32, 32)")
        if not 0 < table_std < math.inf:
            raise ValueError(f"table_std={table_std} must be positive and finite; 1.0 is the paper's")
        self.grid_dims = (len(self.grid),)
        offsets = [2 * extent - 1 for extent in self.grid]
        self.table = nn.Parameter(torch.randn(key_dim, depth, *offsets) * table_std)

    def position_lambdas(self, v: Tensor) -> Tensor:
        return global_position_lambdas(v, resized_offsets(self.table, v.shape[2:-1]).to(v.dtype))
