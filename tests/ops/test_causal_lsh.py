"""Causal LSH attention: bucket by bucket in loops, and no word from the future."""

from __future__ import annotations

import math

import pytest
import torch
from naive import softmax, tensor
from torch import Tensor

from visionattn.ops.lsh_attention import causal_lsh_attention, lsh_attention

SIZE = 3
ROTATIONS = tensor(4, 2, 3, seed=7)
LENGTH = 31


def inputs(length: int = LENGTH) -> tuple[Tensor, Tensor]:
    return tensor(1, 2, length, 4), tensor(1, 2, length, 3, seed=1)


def naive(qk: Tensor, v: Tensor, size: int) -> Tensor:
    """One head, [N, D] and [N, E], token by token."""
    members: list[list[list[int]]] = [[[] for _ in range(6)] for _ in range(2)]  # of every round and bucket, so far
    out = []
    for token, query in enumerate(qk):
        met = []
        for number, buckets in enumerate(members):
            along = [float(query.detach() @ ROTATIONS[:, number, column]) for column in range(3)]
            along += [-number for number in along]
            bucket = buckets[along.index(max(along))]
            own = len(bucket) // size
            met += [key for rank, key in enumerate(bucket) if rank // size >= own - 1]
            bucket.append(token)
        if not met:
            out.append(v[token])
            continue
        weights = softmax([query @ qk[key] / qk[key].norm() / math.sqrt(len(query)) for key in met])
        out.append(sum((w * v[key] for w, key in zip(weights, met, strict=True)), torch.zeros(()).double()))
    return torch.stack(out)


@pytest.mark.parametrize("size", [SIZE, LENGTH + 1, 10**7])  # so many places would not fit into memory
def test_equals_loops(size: int) -> None:
    leaves = [t.requires_grad_() for t in inputs()]
    out = causal_lsh_attention(*leaves, ROTATIONS, size)
    heads = [naive(qk, v, size) for qk, v in zip(*(t.flatten(0, 1) for t in leaves), strict=True)]
    wanted = torch.stack(heads).view_as(out)
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
    w = tensor(*out.shape, seed=5)
    grads, expected = (torch.autograd.grad((t * w).sum(), leaves) for t in (out, wanted))
    torch.testing.assert_close(grads, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("place", [1, 20, 30])
def test_a_later_token_changes_nothing_before_it(place: int) -> None:
    qk, v = inputs()
    before = causal_lsh_attention(qk, v, ROTATIONS, SIZE)
    for changed in (qk, v):
        changed[:, :, place:] *= -3
    after = causal_lsh_attention(qk, v, ROTATIONS, SIZE)
    torch.testing.assert_close(after[:, :, :place], before[:, :, :place], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(after[:, :, place:], before[:, :, place:])
    cut = causal_lsh_attention(qk[:, :, :place], v[:, :, :place], ROTATIONS, SIZE)
    torch.testing.assert_close(cut, before[:, :, :place], rtol=1e-12, atol=1e-12)


def test_the_published_form_lets_later_tokens_move_its_chunks() -> None:
    """Why there is another: the causal mask hides what later tokens hold, and not where they push earlier ones."""
    qk, v = inputs()
    before = lsh_attention(qk, v, ROTATIONS, SIZE, causal=True)
    qk[:, :, 20:] *= -3
    after = lsh_attention(qk, v, ROTATIONS, SIZE, causal=True)
    assert not torch.allclose(after[:, :, :20], before[:, :, :20])
    v[:, :, 20:] *= 100
    moved = lsh_attention(qk, v, ROTATIONS, SIZE, causal=True)
    torch.testing.assert_close(moved[:, :, :20], after[:, :, :20], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 300])
def test_all_in_one_bucket(length: int) -> None:
    """Chunks of one bucket do not reach round from the last to the first."""
    qk = tensor(1, 1, 1, 4).expand(1, 1, length, 4)
    v = torch.eye(length, dtype=torch.float64)[None, None]
    weights = causal_lsh_attention(qk, v, ROTATIONS, SIZE)[0, 0]
    assert torch.equal(weights, weights.tril())
    torch.testing.assert_close(weights.sum(-1), torch.ones(length, dtype=torch.float64))
    reach = weights.count_nonzero(dim=-1)
    assert reach.max() <= 2 * SIZE - 1
