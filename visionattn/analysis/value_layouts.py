"""How mechanisms lay out queries, keys and values for their hook `attend`, brought to one form: [B, heads, N, width].

Most have it already. The AFT family has maps whose channels do not mix: each is a head of width 1. Lambda layers have
values that all heads share, and several to a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visionattn.attention.aft import GatedGathering
from visionattn.attention.base import TokenMixer
from visionattn.attention.lambda_layer import LambdaMixer

Attend = Callable[[Tensor], Tensor]

_NAMES = (("q", "k", "v"), ("theta", "phi", "g"), ("qk", "qk", "v"))  # as the mechanisms' papers have them


@dataclass(frozen=True)
class Layout:
    """What a hook was given.

    Attributes:
        queries: [B, (heads,) N, D].
        keys: [B, (heads,) M, D].
        values: [B, (heads,) M, E].
        attend: other values [B, (heads,) M, any width] -> [B, (heads,) N, that width].
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    attend: Attend


def argument_names(taken: Mapping[str, object]) -> tuple[str, str, str] | None:
    """What a hook that takes these arguments calls queries, keys and values; None where it does not take all three."""
    return next((names for names in _NAMES if taken.keys() >= set(names)), None)


def layout(mixer: TokenMixer, hook: Callable[..., Tensor], given: Mapping[str, Any]) -> Layout:
    """What the mixer's hook was given, in one form.

    Args:
        hook: the mixer's `attend`.
        given: its arguments by name; `argument_names` knows them.
    """
    if isinstance(mixer, GatedGathering):
        return _by_channel(hook, given)
    if isinstance(mixer, LambdaMixer):
        return _shared_by_heads(hook, given)
    names = argument_names(given)
    assert names is not None
    q, k, v = (given[name] for name in names)
    return Layout(q, k, v, lambda values: hook(**{**given, names[2]: values}))


def _by_channel(hook: Callable[..., Tensor], given: Mapping[str, Any]) -> Layout:
    """Of maps q, k and v [B, *grid, D]: D heads of width 1. A key that channels share is repeated for each."""
    q, k, v, mask = given["q"], given["k"], given["v"], given.get("mask")
    heads = [t.flatten(1, -2).mT[..., None] for t in (q, k.repeat_interleave(v.shape[-1] // k.shape[-1], dim=-1), v)]

    def attend(values: Tensor) -> Tensor:
        batch, channels, _, width = values.shape
        maps = values.permute(0, 3, 2, 1).reshape(batch * width, *v.shape[1:])  # one map for each column of the values
        repeated = (None if t is None else t.repeat_interleave(width, dim=0) for t in (q, k, mask))
        many_q, many_k, many_mask = repeated
        answered = hook(q=many_q, k=many_k, v=maps, mask=many_mask)
        return answered.reshape(batch, width, -1, channels).permute(0, 3, 2, 1)

    return Layout(heads[0], heads[1], heads[2], attend)


def _shared_by_heads(hook: Callable[..., Tensor], given: Mapping[str, Any]) -> Layout:
    """Of q [B, N, heads, K], k [B, U, M, K] and v [B, U, M, E]: keys u * M + m, the same for every head."""
    q, k, v = given["q"], given["k"], given["v"]
    heads = q.shape[2]

    def for_all_heads(t: Tensor) -> Tensor:
        return t.flatten(1, 2)[:, None].expand(-1, heads, -1, -1)

    def attend(values: Tensor) -> Tensor:
        answers = []
        for head in range(heads):
            own = values[:, head].reshape(*v.shape[:-1], values.shape[-1])
            answers.append(hook(**{**given, "q": q[:, :, head : head + 1], "v": own}))
        return torch.cat(answers, dim=2).transpose(1, 2)

    return Layout(q.transpose(1, 2), for_all_heads(k), for_all_heads(v), attend)
