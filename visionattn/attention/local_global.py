"""Local and global linear heads side by side (lucidrains/linear-attention-transformer, after Shen et al., WACV 2021).

Compared with: lucidrains/linear-attention-transformer@24ecf20b `SelfAttention` (MIT), golden vectors `lat_*`; the local
heads with loops.
Differs: windows are tiles of a map, which need not divide it; a linear head's answer is not divided by sqrt(d), which
the reference does beside local heads that it does not shrink; masked values are left out (the reference overwrites the
caller's tensors). Not taken over: its causal form with several tokens a bucket, in which no token sees its own bucket
and those of the first see nothing; `visionattn.ops.causal_attention.causal_efficient_attention` is a causal form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visionattn.attention.base import Claims, ContextQKVAttention, SameGridMixer, check_extents
from visionattn.ops.block_attention import block_attention
from visionattn.ops.efficient_attention import efficient_attention
from visionattn.ops.neighborhood import tile_blocks
from visionattn.registry import ATTENTION
from visionattn.typing import Grid


@ATTENTION.register_module()
class LocalGlobalLinearAttention(ContextQKVAttention, SameGridMixer):
    """The first heads: softmax attention to the query's window and those around it. The others: efficient attention.

    Args:
        local_heads: how many are local; None: half of them.
        window: extents of a window, one per axis of the grid; a query sees its own and those that touch it.
        attn_drop: dropout of the local heads' weights; the others have none.
    Raises:
        TypeError: a window that is one number.
        ValueError: more local heads than heads, or below 0; a window below 1, or of another length than the grid.
    """

    claims = Claims(
        paper="Wang (lucidrains), 2020, linear-attention-transformer",
        cost="N",
        convex=True,
        softmax_limit={"local_heads": 4, "window": (5, 7)},
    )

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        local_heads: int | None = None,
        window: Sequence[int] = (7, 7),
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
        self.local_heads = num_heads // 2 if local_heads is None else local_heads
        if not 0 <= self.local_heads <= num_heads:
            raise ValueError(f"local_heads={local_heads} must be from 0 to num_heads={num_heads}")
        self.window = check_extents("window", window, self.grid)
        self.grid_dims = (len(self.window),)

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        local, heads = self.local_heads, []
        if local:
            windows = tile_blocks(q_grid, self.window, self.window, q.device)
            dropout = self.attn_drop if self.training else 0.0
            heads.append(block_attention(q[:, :local], k[:, :local], v[:, :local], [windows], mask, dropout))
        if local < self.num_heads:
            heads.append(efficient_attention(q[:, local:], k[:, local:], v[:, local:], mask))
        return torch.cat(heads, dim=1)
