"""Causal forms: a mechanism's layer around the function that lets a token see itself and those before it alone.

The functions are those of `ops`; projections and output stay the mechanism's own, so that rows of the bench compare. A
mechanism with an option `causal` needs no line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from visionattn.attention.aft import AFTFull, AFTSimple
from visionattn.attention.base import TokenMixer
from visionattn.attention.combiner import Combiner
from visionattn.attention.efficient import EfficientAttention
from visionattn.attention.linear import LinearAttention
from visionattn.attention.lsh import LSHAttention
from visionattn.attention.neighborhood import LocalAttention
from visionattn.attention.performer import Performer
from visionattn.attention.softmax import SoftmaxAttention
from visionattn.ops.aft import causal_aft_simple
from visionattn.ops.causal_aft import causal_aft_full
from visionattn.ops.causal_attention import causal_efficient_attention, causal_linear_attention, causal_performer
from visionattn.ops.combiner import causal_combiner_attention
from visionattn.ops.lsh_attention import causal_lsh_attention
from visionattn.ops.neighborhood import causal_ngram_attention
from visionattn.ops.token_mixing import resized_on_grid

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes q, k and v [B, heads, N, d]."""


def make_causal(mixer: TokenMixer) -> bool:
    """Puts the causal function in the place of what the mixer does between its projections; False if there is none."""
    if type(mixer) is AFTSimple:
        vars(mixer)["gather"] = _gather
        return True
    if type(mixer) is AFTFull:
        vars(mixer)["gather"] = _gather_biased(mixer)
        return True
    if type(mixer) is LSHAttention:
        vars(mixer)["attend"] = _lsh(mixer)
        return True
    make = _ATTEND.get(type(mixer))
    if make is None:
        return False
    attend = make(mixer)
    # An instance's own `attend` is what every mechanism runs; exact shortcuts, which go around it, look for it first.
    vars(mixer)["attend"] = lambda q, k, v, q_grid, kv_grid, mask=None: attend(q, k, v)
    return True


def _gather(k: Tensor, v: Tensor, grid: Any, mask: Tensor | None) -> Tensor:
    return causal_aft_simple(k.flatten(1, -2), v.flatten(1, -2)).view(v.shape)


def _gather_biased(mixer: AFTFull) -> Callable[[Tensor, Tensor, Any, Tensor | None], Tensor]:
    def gather(k: Tensor, v: Tensor, grid: Any, mask: Tensor | None) -> Tensor:
        factors = (resized_on_grid(t.to(k.dtype), grid).flatten(1) for t in (mixer.row_bias, mixer.column_bias))
        return causal_aft_full(k.flatten(1, -2), v.flatten(1, -2), *factors).view(v.shape)

    return gather


def _lsh(mixer: LSHAttention) -> Callable[..., Tensor]:
    """As many buckets as the layer uses for so many tokens."""

    def attend(qk: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        directions = -(-qk.shape[2] // (2 * mixer.bucket_size))
        return causal_lsh_attention(qk, v, mixer.rotations[..., :directions], mixer.bucket_size)

    return attend


def _softmax(mixer: Any) -> Attend:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _efficient(mixer: Any) -> Attend:
    return lambda q, k, v: causal_efficient_attention(q, k, v, temperature=mixer.temperature)


def _performer(mixer: Any) -> Attend:
    return lambda q, k, v: causal_performer(q, k, v, mixer.projection_matrix)


def _combiner(mixer: Any) -> Attend:
    """Segments as long as the rows of the map, as without a causal order."""
    return lambda q, k, v: causal_combiner_attention(q, k, v, mixer.grid[-1], mean_summaries=mixer.mean_summaries)


def _ngram(mixer: Any) -> Attend:
    """As many tokens as the neighbourhood on the map has."""
    return lambda q, k, v: causal_ngram_attention(q, k, v, (2 * mixer.radius + 1) ** 2)


_ATTEND: dict[type[TokenMixer], Callable[[Any], Attend]] = {
    SoftmaxAttention: _softmax,
    EfficientAttention: _efficient,
    LinearAttention: lambda mixer: causal_linear_attention,
    Performer: _performer,
    LocalAttention: _ngram,
    Combiner: _combiner,
}
