"""LSH attention: hash, chunks and rounds in loops, golden vectors, padding that is as if it were not there."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor

from visionattn.attention.lsh import LSHAttention
from visionattn.ops import lsh_attention as ops
from visionattn.ops.lsh_attention import hash_buckets, lsh_attention, sorted_by_bucket

DIM = 6
MANY = 10**7
"""A size above any number of tokens: as many places of each would not fit into memory."""
OPTIONS: tuple[dict[str, Any], ...] = (
    {"num_heads": 1, "rounds": 1},
    {"num_heads": 2, "rounds": 3, "value_dim": 4},
    {"num_heads": 1, "rounds": 2, "across_buckets": False},
    {"num_heads": 2, "rounds": 3, "discount_repeats": True, "max_buckets": 2},
    {"num_heads": 1, "rounds": 3, "discount_repeats": True, "across_buckets": False},
)


def sorted_chunks(mixer: LSHAttention, qk: list[Tensor]) -> tuple[list[list[int]], list[list[int]]]:
    """The chunks of all rounds, one after the other, and the bucket of every token in every round."""
    size, chunks, labels = mixer.bucket_size, [], []
    _, rounds, columns = mixer.rotations.shape
    directions = min(columns, math.ceil(len(qk) / (2 * size)))
    for number in range(rounds):
        along = [[x.detach() @ mixer.rotations[:, number, column] for column in range(directions)] for x in qk]
        buckets = [max(range(2 * directions), key=lambda b, a=a: float((a + [-n for n in a])[b])) for a in along]
        order = sorted(range(len(qk)), key=lambda t, b=buckets: (b[t], t))
        chunks += [order[first : first + size] for first in range(0, len(order), size)]
        labels.append(buckets)
    return chunks, labels


def naive_head(mixer: LSHAttention, qk: list[Tensor], v: list[Tensor]) -> list[Tensor]:
    chunks, labels = sorted_chunks(mixer, qk)
    per_round = len(chunks) // len(labels)
    met: list[list[tuple[int, Tensor]]] = [[] for _ in qk]  # of each query: key, logit
    for number, chunk in enumerate(chunks):
        own_round, round_before = number // per_round, (number - 1) % len(chunks) // per_round
        seen = [(t, own_round) for t in chunk] + [(t, round_before) for t in chunks[number - 1]]
        for query in chunk:
            for key, of_round in seen:
                same = of_round == own_round and labels[own_round][query] == labels[own_round][key]
                if mixer.across_buckets or same:
                    logit = qk[query] @ qk[key] / qk[key].norm() / math.sqrt(len(qk[query]))
                    met[query].append((key, logit))
    out = []
    for query, pairs in enumerate(met):
        others = [(key, logit) for key, logit in pairs if key != query] or [(query, torch.zeros(()).double())]
        if mixer.discount_repeats:
            others = list(dict(others).items())
        weights = softmax([logit for _, logit in others])
        out.append(sum((w * v[key] for w, (key, _) in zip(weights, others, strict=True)), torch.zeros(()).double()))
    return out


def naive_attention(mixer: LSHAttention, parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Answers at padded positions are 0."""
    places = list(positions(tuple(x.shape[1:-1])))
    items = []
    for item in range(len(x)):
        real = [place for place in places if mask is None or mask[item][place]]
        qk, v = ([linear(parameters, name, x[item][place]) for place in real] for name in ("query_key", "value"))
        heads = [
            naive_head(mixer, *([t.chunk(mixer.num_heads)[head] for t in tokens] for tokens in (qk, v)))
            for head in range(mixer.num_heads)
        ]
        answers = {
            place: linear(parameters, "proj", torch.cat(parts))
            for place, parts in zip(real, zip(*heads, strict=True), strict=True)
        }
        items.append(torch.stack([answers.get(place, torch.zeros(DIM).double()) for place in places]))
    return torch.stack(items).reshape(x.shape)


class RealPart(torch.nn.Module):
    """A mechanism whose answers at padded positions are taken for 0: they mean nothing."""

    def __init__(self, mixer: LSHAttention) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.mixer(x, mask=mask)
        return out if mask is None else out * mask[..., None]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("grid", "size"), [((7,), 3), ((3, 3), 2), ((2, 2, 2), 5), ((4,), 9), ((2, 3), MANY)], ids=str)
def test_equals_loops(options: dict[str, Any], grid: tuple[int, ...], size: int) -> None:
    mixer = randomised(LSHAttention(DIM, bucket_size=size, **options))
    module = RealPart(mixer)

    def naive(parameters: Parameters, **inputs: Tensor) -> Tensor:
        return naive_attention(mixer, {k.removeprefix("mixer."): p for k, p in parameters.items()}, **inputs)

    assert_equals_naive(module, naive, {"x": tensor(2, *grid, DIM)})
    assert_equals_naive(module, naive, {"x": tensor(2, *grid, DIM, seed=1), "mask": random_mask(2, *grid)})


def test_more_rounds_come_nearer_to_attention_of_all_to_all() -> None:
    qk, v = tensor(2, 2, 96, 8, seed=1), tensor(2, 2, 96, 3, seed=2)
    keys = qk / qk.norm(dim=-1, keepdim=True)
    logits = (4 * qk @ keys.mT / 8**0.5).masked_fill(torch.eye(96, dtype=torch.bool), -5e4)
    wanted = logits.softmax(-1) @ v
    errors = []
    for rounds in (1, 16):
        mixer = LSHAttention(16, num_heads=2, bucket_size=8, rounds=rounds, discount_repeats=True).double()
        errors.append((mixer.attend(4 * qk, v) - wanted).abs().mean())
    assert errors[1] < errors[0] / 2


def test_a_seed_is_a_hash() -> None:
    first, again, other = (LSHAttention(DIM, num_heads=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.rotations, again.rotations)
    assert not torch.equal(first.rotations, other.rotations)
    assert "rotations" not in first.state_dict()


def published_meetings(room: Tensor, room_before: Tensor, own: Tensor, seen: Tensor) -> Tensor:
    """The reference's count: it does not see that the first chunk of a round meets the last of the round before.

    Such pairs are counted 0 times, and 20.7, that is -log(1e-9), is added to their logits.
    """
    last = room.shape[-1] - 1
    of_queries, of_those_before, of_keys = (
        t.transpose(2, 3).flatten(0, 1)[torch.arange(len(own))[:, None, None], index[:, 0].clamp(max=last)][:, None]
        for t, index in ((room, own), (room_before, own), (room, seen))
    )
    met = (of_queries[..., :, None, :] == of_keys[..., None, :, :]) | (
        of_those_before[..., :, None, :] == of_keys[..., None, :, :]
    )
    return met.sum(-1).double() + 1e-9


@pytest.mark.parametrize("case", golden("attention", "reformer"))
def test_golden(case: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, kwargs = case.leaves("in"), case.kwargs
    qk, v = (inputs[name][:, None] for name in ("qk", "v"))
    if case.row["cls"] == "FullQKAttention":
        out = lsh_attention(
            qk, v, torch.ones(qk.shape[-1], 1, 1).double(), qk.shape[2], causal=kwargs.get("causal", False)
        )
    else:
        rotations, buckets = case.group("buffer")["rotations"][0], case.group("buffer")["buckets"]
        found = hash_buckets(qk, rotations)
        offsets = 2 * rotations.shape[-1] * torch.arange(rotations.shape[1])[:, None]
        assert torch.equal((found + offsets)[:, 0].flatten(1), buckets)
        if not kwargs.get("allow_duplicate_attention", True):
            monkeypatch.setattr(ops, "_meetings", published_meetings)
        out = lsh_attention(
            qk,
            v,
            rotations,
            kwargs.get("bucket_size", 64),
            causal=kwargs.get("causal", False),
            across_buckets=kwargs.get("attend_across_buckets", True),
            discount_repeats=not kwargs.get("allow_duplicate_attention", True),
        )
    assert_golden(case, out[:, 0], inputs, {}, tol=1e-10)


def test_tokens_of_one_bucket_keep_their_order() -> None:
    order = sorted_by_bucket(torch.tensor([[2, 0, 2, 1, 0, 0]]))
    assert order.tolist() == [[1, 4, 5, 3, 0, 2]]


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="bucket_size=0 must be 1 or more"):
        LSHAttention(DIM, num_heads=2, bucket_size=0)
    with pytest.raises(ValueError, match="rounds=0 must be 1 or more"):
        LSHAttention(DIM, num_heads=2, rounds=0)
    with pytest.raises(ValueError, match=r"max_buckets=7 must be even.*use 256"):
        LSHAttention(DIM, num_heads=2, max_buckets=7)
    with pytest.raises(ValueError, match=r"num_heads=4 does not divide dim=6; use 1, 2, 3 or 6"):
        LSHAttention(DIM, num_heads=4)
    with pytest.raises(ValueError, match=r"num_heads=2 does not divide value_dim=5"):
        LSHAttention(DIM, num_heads=2, value_dim=5)
    with pytest.raises(ValueError, match=r"proj_drop=2.0 is no probability"):
        LSHAttention(DIM, num_heads=2, proj_drop=2.0)
    with pytest.raises(TypeError, match="rounds='4' is no whole number"):
        LSHAttention(DIM, num_heads=2, rounds="4")  # type: ignore[arg-type]
