"""gMLP: a perceptron whose gate mixes positions (Liu et al., Pay Attention to MLPs, NeurIPS 2021, arXiv 2105.08050).

Compared with: lucidrains/g-mlp-pytorch@970966c1 (MIT), golden vectors `gmlp_block*` and `gmlp_sgu*`; timm 1.0.31
`mlp_mixer.SpatialGatingBlock`, `gmlp_timm_block`.
Differs: the norm before and the residual around it are the block's; the gate is learned on a grid and resized at other
resolutions; padded tokens gate nothing. Not taken over: the reference's "circulant" matrix, which is a triangular
Toeplitz matrix (nothing above the diagonal, causal or not).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import Claims, TokenMixer, check_no_context, check_probabilities
from visionattn.ops.spatial_gating import resized_gate, spatial_gate
from visionattn.registry import ATTENTION
from visionattn.typing import Tokens


@ATTENTION.register_module()
class GMLP(TokenMixer):
    """fc2(u * (W norm(v) + b)), u and v the halves of gelu(fc1(x)): a whole layer, perceptron included.

    Args:
        grid: where W and b are learned; needed.
        hidden_dim: width of fc1; 4 * dim if None.
        num_heads: matrices W, each for its share of v's channels.
        attention_dim: width of the tiny attention of aMLP (one head, 64 in the paper) that is added to the gate; None
            is gMLP.
    Raises:
        ValueError: there is no grid, num_heads does not divide half of hidden_dim, or a width is below 1.
    """

    claims = Claims(paper="Liu et al., NeurIPS 2021, arXiv 2105.08050", cost="N^2")

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        hidden_dim: int | None = None,
        num_heads: int = 1,
        attention_dim: int | None = None,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid)
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        if self.grid is None:
            raise ValueError("GMLP learns a weight for every pair of positions: give it a grid, such as grid=(32, 32)")
        if num_heads < 1 or hidden_dim < 2 or hidden_dim % (2 * num_heads):
            raise ValueError(
                f"hidden_dim={hidden_dim} must be a multiple of 2 * num_heads={2 * num_heads}: half of it is gated by "
                "the other half, head by head"
            )
        if attention_dim is not None and attention_dim < 1:
            raise ValueError(f"attention_dim={attention_dim} must be 1 or more, or None for no attention")
        check_probabilities(proj_drop=proj_drop)
        self.grid_dims = (len(self.grid),)
        half = hidden_dim // 2
        self.fc1, self.fc2 = nn.Linear(dim, hidden_dim), nn.Linear(half, dim)
        self.norm = nn.LayerNorm(half)
        self.mixing = nn.Parameter(torch.empty(num_heads, *self.grid, *self.grid))
        self.mixing_bias = nn.Parameter(torch.ones(num_heads, *self.grid))  # with W near 0 a gate that lets all through
        bound = 1e-3 / self.mixing_bias[0].numel()
        nn.init.uniform_(self.mixing, -bound, bound)
        self.attention_qkv = None if attention_dim is None else nn.Linear(dim, 3 * attention_dim, bias=False)
        self.attention_proj = None if attention_dim is None else nn.Linear(attention_dim, half)
        self.proj_drop = nn.Dropout(proj_drop)

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def forward(self, x: Tokens, mask: Tensor | None = None, *, context: None = None) -> Tokens:
        check_no_context(self, context)
        self.check_map(x, mask)
        tokens, real = x.flatten(1, -2), None if mask is None else mask.flatten(1)
        mixing, bias = resized_gate(self.mixing, self.mixing_bias, x.shape[1:-1])
        values, gate = F.gelu(self.fc1(tokens)).chunk(2, dim=-1)
        gated = spatial_gate(values, self.norm(gate), mixing, bias, real, self._attended(tokens, real))
        return self.proj_drop(self.fc2(gated)).reshape(x.shape)

    def _attended(self, tokens: Tensor, mask: Tensor | None) -> Tensor | None:
        """What the tiny attention adds to the gate, [B, N, half]."""
        if self.attention_qkv is None or self.attention_proj is None:
            return None
        q, k, v = self.attention_qkv(tokens).chunk(3, dim=-1)
        keys = None if mask is None else mask[:, None, :]
        attended: Tensor = self.attention_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=keys))
        return attended
