"""Fourier transformer (He et al., Findings of ACL 2023, arXiv 2305.15099): attention to low frequencies.

Compared with: LUMIA-Group/FourierTransformer@cba1dc22 (no licence: numbers only), golden vectors `fourier_*`; on maps
the equation, `derived_fourier2d_*`.
Differs: the paper shortens the whole sequence between two layers; here keys and values are shortened and every query
stays, so that a map of the same size comes out. The transform runs along every axis of the map, and is a product with
cosines: the reference's writes into the answer of an FFT in place. Padded tokens count as 0 before it, and where a
place of the smaller map covers padding alone, it is no key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor
from torch.nn import functional as F

from visionattn.attention.base import Claims, ContextQKVAttention
from visionattn.ops.cosine_transform import cells_with_real_tokens, low_passed
from visionattn.registry import ATTENTION
from visionattn.typing import Grid


@ATTENTION.register_module()
class FourierAttention(ContextQKVAttention):
    """Softmax attention to keys and values of which a discrete cosine transform keeps the low frequencies.

    Args:
        ratio: of the frequencies along each axis, kept; at least one is.
        keep_amplitude: a constant map keeps its keys and values, as in softmax attention with the same weights; False:
            they grow by sqrt(tokens / tokens left), as published.
    Raises:
        ValueError: ratio is not above 0 and at most 1.
    """

    claims = Claims(paper="He et al., Findings of ACL 2023, arXiv 2305.15099", cost="N^2", softmax_limit={"ratio": 1.0})

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        ratio: float = 0.5,
        keep_amplitude: bool = False,
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
        if not 0.0 < ratio <= 1.0:
            raise ValueError(f"ratio={ratio} is no share of the frequencies; use a number above 0, up to 1 (all)")
        self.ratio, self.keep_amplitude = ratio, keep_amplitude
        self._share = share_of(ratio)

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        size = [kept_frequencies(extent, self._share) for extent in kv_grid]
        cells = None
        if mask is not None:
            hidden = ~mask[:, None, :, None]
            k, v = k.masked_fill(hidden, 0.0), v.masked_fill(hidden, 0.0)
            cells = cells_with_real_tokens(mask.view(-1, *kv_grid), size).flatten(1)[:, None, None]
        k, v = (self._shortened(t, kv_grid, size) for t in (k, v))
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=cells, dropout_p=self.attn_drop if self.training else 0.0
        )

    def _shortened(self, tokens: Tensor, grid: Grid, size: Sequence[int]) -> Tensor:
        batch, heads, _, width = tokens.shape
        maps = tokens.reshape(batch * heads, *grid, width)
        return low_passed(maps, size, keep_amplitude=self.keep_amplitude).reshape(batch, heads, math.prod(size), width)


def share_of(ratio: float) -> tuple[int, int]:
    """The ratio as the fraction that was meant, numerator and denominator: 0.1 is 1 / 10."""
    share = max(Fraction(ratio).limit_denominator(10_000), Fraction(1, 10_000))
    return share.numerator, share.denominator


def kept_frequencies(extent: int, share: tuple[int, int]) -> int:
    """ceil(share * extent), at least 1: 1 / 10 of 30 is 3."""
    numerator, denominator = share  # as integers: dynamo knows no fractions
    return (extent * numerator + denominator - 1) // denominator
