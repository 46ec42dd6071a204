"""Reformer's LSH attention (Kitaev et al., ICLR 2020, arXiv 2001.04451, section 2).

Compared with: lucidrains/reformer-pytorch@66a19b6c (MIT), golden vectors `reformer_*`.
Differs: any number of tokens (the reference wants multiples of two buckets), masked ones left out of hash and chunks;
the hash is drawn once, from a seed, and not anew in every forward pass, eval too; of a long sequence it has at most
`max_buckets`, so that its cost does not grow with the square of the length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionattn.attention.base import (
    Claims,
    TokenMixer,
    check_heads,
    check_no_context,
    check_probabilities,
    split_heads,
)
from visionattn.ops.lsh_attention import lsh_attention
from visionattn.registry import ATTENTION
from visionattn.typing import Tokens


@ATTENTION.register_module()
class LSHAttention(TokenMixer):
    """Softmax attention to the tokens of the same and of nearby buckets; queries are keys, of length 1.

    A token sees itself only where it sees nothing else.

    Args:
        bucket_size: tokens that a bucket has on average, and a chunk, which sees itself and the chunk before.
        rounds: hashes; more find more of what softmax attention would see.
        max_buckets: of a hash; beyond max_buckets * bucket_size tokens a bucket fills several chunks.
        across_buckets: what lies in the same chunks is seen whatever its bucket.
        discount_repeats: a token that is met in several rounds counts once.
        seed: of the hash, which is not saved: a model has the same one wherever it is built.
    Raises:
        ValueError: a number is below 1, max_buckets is odd, or num_heads does not divide a width.
    """

    claims = Claims(paper="Kitaev et al., ICLR 2020, arXiv 2001.04451", cost="N", convex=True, causal=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        bucket_size: int = 64,
        rounds: int = 4,
        max_buckets: int = 256,
        across_buckets: bool = True,
        discount_repeats: bool = False,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, grid)
        for name, number in (("bucket_size", bucket_size), ("rounds", rounds)):
            if number < 1:
                raise ValueError(f"{name}={number} must be 1 or more")
        if max_buckets < 2 or max_buckets % 2:
            raise ValueError(f"max_buckets={max_buckets} must be even: half of them lie opposite to the rest; use 256")
        check_probabilities(proj_drop=proj_drop)
        key_width, value_width = dim if key_dim is None else key_dim, dim if value_dim is None else value_dim
        check_heads(num_heads, key_width, "dim" if key_dim is None else "key_dim")
        check_heads(num_heads, value_width, "value_dim")
        self.num_heads, self.bucket_size = num_heads, bucket_size
        self.across_buckets, self.discount_repeats = across_buckets, discount_repeats
        self.query_key = nn.Linear(dim, key_width, bias=qkv_bias)
        self.value = nn.Linear(dim, value_width, bias=qkv_bias)
        self.proj = nn.Linear(value_width, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.rotations: Tensor
        generator = torch.Generator().manual_seed(seed)
        rotations = torch.randn(key_width // num_heads, rounds, max_buckets // 2, generator=generator, device="cpu")
        self.register_buffer("rotations", rotations, persistent=False)

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def forward(self, x: Tokens, mask: Tensor | None = None, *, context: None = None) -> Tokens:
        check_no_context(self, context)
        self.check_map(x, mask)
        tokens = x.flatten(1, -2)
        qk, v = (split_heads(t, self.num_heads) for t in (self.query_key(tokens), self.value(tokens)))
        out = self.attend(qk, v, None if mask is None else mask.flatten(1))
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2))).reshape(x.shape)

    def attend(self, qk: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attended values [B, heads, N, E] of qk [B, heads, N, D] and v; mask [B, N] bool, True = real."""
        return lsh_attention(
            qk,
            v,
            self.rotations,
            self.bucket_size,
            mask,
            across_buckets=self.across_buckets,
            discount_repeats=self.discount_repeats,
        )
