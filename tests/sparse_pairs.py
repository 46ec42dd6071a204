"""Attention over given pairs of tokens, in loops; and which pairs a mechanism sees."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, softmax, tensor
from torch import Tensor

from visionattn.attention.base import QKVAttention

Place = tuple[int, ...]
Sees = Callable[[Place, Place, Place], bool]
"""Whether the query at the first place sees the key at the second, on the grid."""


def assert_sees(mixer: QKVAttention, sees: Sees, x: Tensor, mask: Tensor | None = None) -> None:
    """The mixer is softmax attention over those pairs: output and every gradient."""

    def naive(parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return _loops(mixer, sees, parameters, x, x, mask)

    assert_equals_naive(mixer, naive, {"x": x, "mask": mask})


def assert_sees_context(mixer: QKVAttention, sees: Sees, grid: Place) -> None:
    """Queries from one map, keys and values from those pairs' places of another, some of them padded."""

    def naive(parameters: Parameters, x: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        return _loops(mixer, sees, parameters, x, context, context_mask)

    maps = {"x": tensor(2, *grid, mixer.dim), "context": tensor(2, *grid, mixer.dim, seed=1)}
    assert_equals_naive(mixer, naive, maps)
    assert_equals_naive(mixer, naive, {**maps, "context_mask": random_mask(2, *grid)})


def seen_pairs(mixer: QKVAttention, grid: Place) -> Tensor:
    """[N, N] bool: the weights of attend that are not 0."""
    n = math.prod(grid)
    values = torch.eye(n, dtype=torch.float64)[None, None]
    q, k = torch.zeros(2, 1, 1, n, 1, dtype=torch.float64)
    return mixer.attend(q, k, values, grid, grid)[0, 0] > 0


def dense_pairs(sees: Sees, grid: Place) -> Tensor:
    """[N, N] bool by the definition."""
    places = list(positions(grid))
    return torch.tensor([[sees(query, key, grid) for key in places] for query in places])


def _loops(
    mixer: QKVAttention, sees: Sees, parameters: Parameters, x: Tensor, source: Tensor, mask: Tensor | None
) -> Tensor:
    grid, rows = tuple(x.shape[1:-1]), []
    key_width, value_width = mixer.key_dim // mixer.num_heads, mixer.value_dim // mixer.num_heads
    for item in range(len(x)):
        queries = {place: linear(parameters, "qkv", x[item][place]) for place in positions(grid)}
        projected = {place: linear(parameters, "qkv", source[item][place]) for place in positions(grid)}
        for query in positions(grid):
            keys = [
                key for key in positions(grid) if sees(query, key, grid) and (mask is None or bool(mask[item][key]))
            ]
            heads = []
            for head in range(mixer.num_heads):
                q = queries[query][head * key_width : (head + 1) * key_width]
                first = mixer.key_dim + head * key_width
                logits = [q @ projected[key][first : first + key_width] / math.sqrt(key_width) for key in keys]
                first = 2 * mixer.key_dim + head * value_width
                values = [projected[key][first : first + value_width] for key in keys]
                nothing = torch.zeros(value_width, dtype=torch.float64)
                heads.append(sum((w * v for w, v in zip(softmax(logits), values, strict=True)), nothing))
            rows.append(linear(parameters, "proj", torch.cat(heads)))
    return torch.stack(rows).reshape(x.shape)
