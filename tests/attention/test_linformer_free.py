"""LinformerFree: loops over its equation; there is no reference to compare with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor

from visionattn.attention.linformer_free import LinformerFree

DIM = 6


def naive_attention(
    mixer: LinformerFree,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    key_width, value_width, rows = mixer.key_dim // mixer.num_heads, mixer.value_dim // mixer.num_heads, []
    for item in range(len(x)):
        places = [p for p in positions(tuple(source.shape[1:-1])) if source_mask is None or source_mask[item][p]]
        projected = [linear(parameters, "qkv", source[item][p])[mixer.key_dim :] for p in places]
        for place in positions(tuple(x.shape[1:-1])):
            query, answer = linear(parameters, "qkv", x[item][place])[: mixer.key_dim], []
            for head in range(mixer.num_heads):
                q = query[head * key_width : (head + 1) * key_width]
                first = mixer.key_dim + head * value_width
                table = []
                for channel in range(key_width):
                    keys = [t[head * key_width + channel] for t in projected]
                    sums = [
                        sum(k * t[first + e] for k, t in zip(keys, projected, strict=True)) / math.sqrt(len(projected))
                        for e in range(value_width)
                    ]
                    table.append(torch.stack(softmax(sums)))
                answer.append(sum(q[channel] * table[channel] for channel in range(key_width)))
            rows.append(linear(parameters, "proj", torch.cat(answer)))
    return torch.stack(rows).reshape(x.shape)


@pytest.mark.parametrize("options", [{"num_heads": 1}, {"num_heads": 2, "key_dim": 4, "value_dim": 8}], ids=str)
@pytest.mark.parametrize("grid", [(3,), (1, 2)], ids=str)
def test_equals_loops(options: dict[str, Any], grid: tuple[int, ...]) -> None:
    mixer = randomised(LinformerFree(DIM, **options))
    assert isinstance(mixer, LinformerFree)

    def check(**inputs: Tensor | None) -> None:
        assert_equals_naive(mixer, lambda parameters, **kwargs: naive_attention(mixer, parameters, **kwargs), inputs)

    other = tuple(n + 1 for n in grid)
    x, context = tensor(2, *grid, DIM), tensor(2, *other, DIM, seed=3)
    check(x=x)
    check(x=x, mask=random_mask(2, *grid))
    check(x=x, context=context, context_mask=random_mask(2, *other))


def test_it_says_that_it_is_experimental() -> None:
    assert "experimental" in LinformerFree.claims.paper
    assert (LinformerFree.__doc__ or "").startswith("Experimental")


def test_the_map_between_channels_does_not_grow_with_independent_tokens() -> None:
    """Of a hundred times as many tokens the softmax is as sharp as of the few."""
    mixer, spread = LinformerFree(DIM, num_heads=1), []
    for n in (100, 10000):
        k, v = torch.randn(2, 8, 1, n, 4, generator=torch.Generator().manual_seed(n))
        eye = torch.eye(4).expand(8, 1, 4, 4)
        spread.append(mixer.attend(eye, k, v, (4,), (n,)).log().std().item())
    assert spread[0] == pytest.approx(spread[1], rel=0.3)
