"""Combiner: loops over the paper's factorisation, golden vectors, the causal form, and which pairs are counted how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor

from visionattn.attention.base import QKVAttention
from visionattn.attention.combiner import Combiner, CombinerAxial
from visionattn.ops.combiner import causal_combiner_attention, combiner_attention
from visionattn.ops.neighborhood import tile_blocks

DIM = 4
Place = tuple[int, ...]


def spans_of(mixer: QKVAttention, query: Place, places: Sequence[Place]) -> tuple[list[Place], list[list[Place]], bool]:
    """What the query sees directly, the spans that it sees summaries of, and whether these are means."""
    if isinstance(mixer, CombinerAxial):
        row, column = query
        direct = [p for p in places if p[0] == row or p[1] == column]
        others = sorted({p[1] for p in places} - {column})
        above = [[p for p in places if p[1] == number and p[0] < row] for number in others]
        below = [[p for p in places if p[1] == number and p[0] > row] for number in others]
        return direct, above + below, True
    assert isinstance(mixer, Combiner)

    def segment(place: Place) -> Place:
        if mixer.segment is None:
            return place[:-1]
        return tuple(i // n for i, n in zip(place, mixer.segment, strict=True))

    numbers = sorted({segment(p) for p in places})
    if mixer.count_own_once:
        numbers = [number for number in numbers if number != segment(query)]
    spans = [[p for p in places if segment(p) == number] for number in numbers]
    return [p for p in places if segment(p) == segment(query)], spans, mixer.mean_summaries


def pooled(tokens: list[Tensor], mean: bool) -> Tensor:
    if mean:
        return sum(tokens, torch.zeros_like(tokens[0])) / len(tokens)
    return torch.stack([max(numbers) for numbers in zip(*tokens, strict=True)])


def naive_attention(mixer: QKVAttention, parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
    places, rows = list(positions(tuple(x.shape[1:-1]))), []
    key_width, value_width = mixer.key_dim // mixer.num_heads, mixer.value_dim // mixer.num_heads
    for item in range(len(x)):
        real = [p for p in places if mask is None or bool(mask[item][p])]
        projected = {p: linear(parameters, "qkv", x[item][p]) for p in places}
        for query in places:
            heads = []
            for head in range(mixer.num_heads):
                first = (head * key_width, mixer.key_dim + head * key_width, 2 * mixer.key_dim + head * value_width)
                widths = (key_width, key_width, value_width)
                q, k, v = (
                    {p: token[start : start + width] for p, token in projected.items()}
                    for start, width in zip(first, widths, strict=True)
                )
                direct, spans, mean = spans_of(mixer, query, real)
                logits = [q[query] @ k[p] / math.sqrt(key_width) for p in direct]
                values = [v[p] for p in direct]
                for span in filter(None, spans):
                    span_query, span_key = pooled([q[p] for p in span], mean), pooled([k[p] for p in span], mean)
                    shares = softmax([span_query @ k[p] / math.sqrt(key_width) for p in span])
                    logits.append(q[query] @ span_key / math.sqrt(key_width))
                    values.append(sum(share * v[p] for share, p in zip(shares, span, strict=True)))
                nothing = torch.zeros(value_width, dtype=torch.float64)
                heads.append(sum((w * value for w, value in zip(softmax(logits), values, strict=True)), nothing))
            rows.append(linear(parameters, "proj", torch.cat(heads)))
    return torch.stack(rows).reshape(x.shape)


def check(mixer: QKVAttention, grid: Place) -> None:
    def naive(parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return naive_attention(mixer, parameters, x, mask)

    assert_equals_naive(mixer, naive, {"x": tensor(2, *grid, DIM)})
    mask = random_mask(2, *grid)
    mask[1, -1] = False  # a segment, or the rest of a column, without a real token
    assert_equals_naive(mixer, naive, {"x": tensor(2, *grid, DIM), "mask": mask})


@pytest.mark.parametrize(
    "options",
    [
        {"num_heads": 2},
        {"num_heads": 1, "mean_summaries": True},
        {"num_heads": 2, "count_own_once": True, "key_dim": 2, "value_dim": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("grid", "segment"), [((7,), (3,)), ((3, 2), None), ((3, 4), (2, 3)), ((2, 1, 3), None)], ids=str
)
def test_segments_equal_loops(options: dict[str, Any], grid: Place, segment: Place | None) -> None:
    mixer = randomised(Combiner(DIM, grid, segment=segment, **options))
    assert isinstance(mixer, Combiner)
    check(mixer, grid)


@pytest.mark.parametrize("grid", [(1, 3), (3, 1), (3, 3)], ids=str)
def test_axial_equals_loops(grid: Place) -> None:
    mixer = randomised(CombinerAxial(DIM, num_heads=2, value_dim=6))
    assert isinstance(mixer, CombinerAxial)
    check(mixer, grid)


@pytest.mark.parametrize("axial", [False, True])
def test_equal_queries_and_keys_share_out_the_weight_by_spans(axial: bool) -> None:
    """What is seen directly weighs as much as a summary, whose tokens share that: every token is counted once."""
    mixer = CombinerAxial(DIM, num_heads=1) if axial else Combiner(DIM, num_heads=1, count_own_once=True)
    values = torch.eye(12, dtype=torch.float64)[None, None]
    same = torch.zeros(1, 1, 12, 4, dtype=torch.float64)
    weights = mixer.attend(same, same, values, (3, 4), (3, 4))[0, 0]
    row, column = torch.arange(12) // 4, torch.arange(12) % 4
    own_row, own_column = row[:, None] == row, column[:, None] == column
    if axial:
        # directly 6; of 3 other columns in an outer row one span of 2, in the middle row two of 1
        middle = (row == 1)[:, None]
        shares = torch.where(own_row | own_column, 1.0, torch.where(middle, 1.0, 0.5)) / torch.where(middle, 12, 9)
    else:
        shares = torch.where(own_row, 1.0, 0.25) / 6
    torch.testing.assert_close(weights, shares.double())


@pytest.mark.parametrize("mean_summaries", [False, True])
@pytest.mark.parametrize("segment", [1, 4, 30])
def test_causal_form_equals_cut_off_sequences(segment: int, mean_summaries: bool) -> None:
    """The last token of a sequence that ends with it: the form that looks both ways, its own segment counted once."""
    q, k, v = (tensor(2, 2, 11, width, seed=width) for width in (3, 3, 2))
    k = k.roll(1, -1)
    leaves = [t.requires_grad_() for t in (q, k.detach(), v)]
    last = []
    for n in range(1, 12):
        cut = [t[:, :, :n] for t in leaves]
        pairs = tile_blocks((n,), (segment,), (0,))
        answer = combiner_attention(*cut, pairs, mean_summaries=mean_summaries, count_own_once=True)
        last.append(answer[:, :, -1:])
    out, wanted = causal_combiner_attention(*leaves, segment, mean_summaries=mean_summaries), torch.cat(last, dim=2)
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
    weights = tensor(*out.shape, seed=9)
    grads, expected = (torch.autograd.grad((t * weights).sum(), leaves) for t in (out, wanted))
    torch.testing.assert_close(grads, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("place", [1, 4, 10])
def test_causal_form_lets_nothing_of_a_later_token_through(place: int) -> None:
    q, k, v = (tensor(2, 2, 11, 3, seed=seed) for seed in range(3))
    before = causal_combiner_attention(q, k, v, 4)
    for changed in (q, k, v):
        changed[:, :, place:] *= -3
    after = causal_combiner_attention(q, k, v, 4)
    torch.testing.assert_close(after[:, :, :place], before[:, :, :place], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(after[:, :, place:], before[:, :, place:])


@pytest.mark.parametrize("case", golden("attention", "derived_combiner"))
def test_golden(case: Golden) -> None:
    """[B, N, heads, d], queries already divided by sqrt(d); the published form counts the own segment twice."""
    segment, mean = case.kwargs["segment"], {"max": False, "mean": True}[case.kwargs["summary"]]
    inputs = case.leaves("in")
    q, k, v = (inputs[name].transpose(1, 2) for name in "qkv")
    q = q * math.sqrt(q.shape[-1])
    if case.kwargs["causal"]:
        out = causal_combiner_attention(q, k, v, segment, mean_summaries=mean)
    else:
        out = combiner_attention(q, k, v, tile_blocks((q.shape[2],), (segment,), (0,)), mean_summaries=mean)
    assert_golden(case, out.transpose(1, 2), inputs, {}, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"segment=7 must hold one integer per axis of the grid: \(7, 7\)"):
        Combiner(DIM, num_heads=2, segment=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"segment=\(0, 2\) must hold one integer of 1 or more per axis"):
        Combiner(DIM, num_heads=2, segment=(0, 2))
    with pytest.raises(ValueError, match=r"segment=\(4, 4\) has 2 entries, the grid \(16,\) has 1 axes"):
        Combiner(DIM, (16,), num_heads=2, segment=(4, 4))
    with pytest.raises(ValueError, match="segment=0 must be 1 or more; about the root"):
        causal_combiner_attention(*torch.zeros(3, 1, 1, 5, 2), 0)
    with pytest.raises(ValueError, match=r"CombinerAxial expects x of shape \[B, H, W, 4\]"):
        CombinerAxial(DIM, num_heads=2)(torch.zeros(2, 5, DIM))
