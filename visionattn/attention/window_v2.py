"""Swin V2's window attention (Liu et al., Swin Transformer V2, CVPR 2022, section 3.2 and 3.3, equations 2 to 4).

Scaled cosine attention, and a relative position bias that a small network reads from log-spaced coordinates, so that
weights of one window serve another.

Compared with: microsoft/Swin-Transformer@f82860bf (MIT) `swin_transformer_v2.py`, golden vectors
`swin2_window_attn_*` and `swin2_block_*`; timm 1.0.31 `SwinTransformerV2Block`; torchvision `ShiftedWindowAttentionV2`.
Differs: as `WindowAttention`; the norms of q and k, and the bias, are computed in float32 at least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import Claims
from visionattn.attention.window import WindowAttention
from visionattn.ops.precision import at_least_float32, without_autocast
from visionattn.ops.relative_position import log_spaced_offsets
from visionattn.registry import ATTENTION
from visionattn.typing import Grid

_LARGEST_LOGIT_SCALE = math.log(100.0)


@ATTENTION.register_module()
class WindowAttentionV2(WindowAttention):
    """softmax(cos(Q, K) * scale + bias) V inside windows, with a learned scale per head of at most 100.

    Args:
        window, shift, mask_padding, shift_covered_axes, shift_before_padding: as `WindowAttention`.
        pretrained_window: window in which the weights were trained, where it is another one than `window`: the
            coordinates are told in its units.
        num_heads, key_dim, value_dim, attn_drop, proj_drop: as `QKVAttention`.
        qkv_bias: a bias on q and v; k has none.
        hidden: width of the network that makes the bias.
    Raises:
        TypeError, ValueError: as `WindowAttention`; ValueError for a pretrained_window that does not fit `window`.
    """

    claims = Claims(paper="Liu et al., CVPR 2022, arXiv 2111.09883", cost="N", convex=True)

    log_spaced_offsets: Tensor

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        window: Sequence[int] = (7, 7),
        shift: Sequence[int] = (0, 0),
        pretrained_window: Sequence[int] | None = None,
        num_heads: int = 8,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        mask_padding: bool = True,
        shift_covered_axes: bool = False,
        shift_before_padding: bool = False,
        hidden: int = 512,
    ) -> None:
        super().__init__(
            dim,
            grid,
            window=window,
            shift=shift,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            qkv_bias=False,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
            relative_position_bias=False,
            mask_padding=mask_padding,
            shift_covered_axes=shift_covered_axes,
            shift_before_padding=shift_before_padding,
        )
        self.pretrained_window = _checked(pretrained_window, self.window)
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10.0)))
        self.q_bias = nn.Parameter(torch.zeros(self.key_dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(self.value_dim)) if qkv_bias else None
        first, last = nn.Linear(len(self.window), hidden), nn.Linear(hidden, num_heads, bias=False)
        nn.init.trunc_normal_(first.weight, std=0.02)
        nn.init.zeros_(first.bias)
        nn.init.trunc_normal_(last.weight, std=0.02)
        self.cpb_mlp = nn.Sequential(first, nn.ReLU(), last)
        offsets = log_spaced_offsets(self.window, self.pretrained_window)
        self.register_buffer("log_spaced_offsets", offsets, persistent=False)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return super().attend(self._scaled(q), _unit(k), v, q_grid, kv_grid, mask)

    def _project(self, tokens: Tensor) -> Tensor:
        bias = self._joined_bias()
        return self.qkv(tokens) if bias is None else F.linear(tokens, self.qkv.weight, bias)

    def _joined_bias(self) -> Tensor | None:
        if self.q_bias is None or self.v_bias is None:
            return None
        return torch.cat([self.q_bias, self.q_bias.new_zeros(self.key_dim), self.v_bias])

    def _padding(self) -> tuple[Tensor | None, ...]:
        if self.mask_padding or self.q_bias is None or self.v_bias is None:
            return None, None, None
        q = self._scaled(self.q_bias.view(self.num_heads, 1, -1))[:, 0]
        return q, None, self.v_bias.view(self.num_heads, -1)

    def _scaled(self, q: Tensor) -> Tensor:
        """q / |q| times the scale of the logits, times what the operator divides by: [..., heads, N, D]."""
        scale = self._cosine_scale()[:, None, None] * math.sqrt(q.shape[-1])
        return (F.normalize(at_least_float32(q), dim=-1) * scale).to(q.dtype)

    def _cosine_scale(self) -> Tensor:
        return at_least_float32(self.logit_scale).clamp(max=_LARGEST_LOGIT_SCALE).exp().flatten()

    def _is_published(self) -> bool:
        return type(self) is WindowAttentionV2

    def _bias_sources(self) -> list[nn.Parameter]:
        return list(self.cpb_mlp.parameters())

    def _bias_table(self) -> Tensor:
        offsets = self.log_spaced_offsets.to(next(self.cpb_mlp.parameters()).dtype)
        with without_autocast(offsets.device):
            return 16 * self.cpb_mlp(offsets).sigmoid()


def _unit(t: Tensor) -> Tensor:
    """t / |t|, a vector of zeros where t is one."""
    return F.normalize(at_least_float32(t), dim=-1).to(t.dtype)


def _checked(pretrained_window: Sequence[int] | None, window: Grid) -> Grid | None:
    if pretrained_window is None:
        return None
    if not isinstance(pretrained_window, Sequence):
        raise TypeError(f"pretrained_window={pretrained_window!r} must hold one integer per axis, as window={window}")
    trained = tuple(pretrained_window)
    if len(trained) != len(window) or any(not isinstance(n, int) or n < 1 for n in trained):
        raise ValueError(f"pretrained_window={trained} must hold one integer of 1 or more per axis, as window={window}")
    return trained
