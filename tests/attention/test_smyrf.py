"""SMYRF: hash, clusters and rounds in loops, golden vectors, balanced clusters of whatever is real."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor, nn

from visionattn.attention.smyrf import SMYRF
from visionattn.attention.softmax import SoftmaxAttention
from visionattn.ops.smyrf_attention import places_on_lines, smyrf_attention

DIM = 6
MANY = 10**7
"""A size above any number of tokens: as many places of each would not fit into memory."""
OPTIONS: tuple[dict[str, Any], ...] = (
    {"num_heads": 1, "rounds": 1},
    {"num_heads": 2, "rounds": 3, "value_dim": 4},
    {"num_heads": 3, "rounds": 2, "key_dim": 3, "seed": 4},
)


def naive_head(q: list[Tensor], k: list[Tensor], v: list[Tensor], lines: Tensor, size: int) -> list[Tensor]:
    clusters = math.ceil(max(len(q), len(k)) / size)
    total = max(float(t.detach() @ t.detach()) for t in q) + max(float(t.detach() @ t.detach()) for t in k)
    met: list[list[int]] = [[] for _ in q]  # the keys of each query, as often as they are met
    for line in lines.T:
        queries = sorted(range(len(q)), key=lambda i, line=line: place_of(q[i], total, line[:-2], line[-1]))
        keys = sorted(range(len(k)), key=lambda j, line=line: place_of(k[j], total, line[:-2], line[-2]))
        for number in range(clusters):
            (first, end), (first_key, end_key) = (
                (number * len(t) // clusters, (number + 1) * len(t) // clusters) for t in (q, k)
            )
            for query in queries[first:end]:
                met[query] += keys[first_key : max(end_key, first_key + 1)]  # a cluster has a key at least
    out = []
    for query, keys in zip(q, met, strict=True):
        weights = softmax([query @ k[key] / math.sqrt(len(query)) for key in keys])
        out.append(sum((w * v[key] for w, key in zip(weights, keys, strict=True)), torch.zeros(()).double()))
    return out


def place_of(token: Tensor, total: float, line: Tensor, extra: Tensor) -> float:
    token = token.detach()
    return float(token @ line) + math.sqrt(max(0.0, total - float(token @ token))) * float(extra)


def naive_attention(
    mixer: SMYRF,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    """Answers at padded positions are 0."""
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    widths, items = [mixer.key_dim, mixer.key_dim, mixer.value_dim], []
    for item in range(len(x)):
        of_x, of_source = (
            {
                place: linear(parameters, "qkv", tokens[item][place]).split(widths)
                for place in positions(tuple(tokens.shape[1:-1]))
                if real is None or real[item][place]
            }
            for tokens, real in ((x, mask), (source, source_mask))
        )
        heads = []
        for head in range(mixer.num_heads):
            q = [parts[0].chunk(mixer.num_heads)[head] for parts in of_x.values()]
            k, v = ([parts[n].chunk(mixer.num_heads)[head] for parts in of_source.values()] for n in (1, 2))
            heads.append(naive_head(q, k, v, mixer.lines, mixer.cluster_size))
        answers = {
            place: linear(parameters, "proj", torch.cat(parts))
            for place, parts in zip(of_x, zip(*heads, strict=True), strict=True)
        }
        items.append(torch.stack([answers.get(p, torch.zeros(DIM).double()) for p in positions(tuple(x.shape[1:-1]))]))
    return torch.stack(items).reshape(x.shape)


class RealPart(nn.Module):
    """A mechanism whose answers at padded positions are taken for 0: they mean nothing."""

    def __init__(self, mixer: SMYRF) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        out: Tensor = self.mixer(x, context, mask, context_mask)
        return out if mask is None else out * mask[..., None]


def check(mixer: SMYRF, **inputs: Tensor | None) -> None:
    def naive(parameters: Parameters, **kwargs: Tensor) -> Tensor:
        return naive_attention(mixer, {k.removeprefix("mixer."): p for k, p in parameters.items()}, **kwargs)

    assert_equals_naive(RealPart(mixer), naive, inputs)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("grid", "size"), [((7,), 3), ((3, 4), 2), ((2, 3, 2), 5), ((4,), 9), ((2, 3), MANY)], ids=str)
def test_equals_loops(options: dict[str, Any], grid: tuple[int, ...], size: int) -> None:
    mixer = randomised(SMYRF(DIM, cluster_size=size, **options))
    check(mixer, x=tensor(2, *grid, DIM))
    check(mixer, x=tensor(2, *grid, DIM, seed=1), mask=random_mask(2, *grid))


@pytest.mark.parametrize("size", [3, 10, MANY])
@pytest.mark.parametrize(("queries", "keys"), [(9, 4), (3, 11), (12, 2), (8, 8)])
def test_equals_loops_across_maps(queries: int, keys: int, size: int) -> None:
    mixer = randomised(SMYRF(DIM, num_heads=2, cluster_size=size, rounds=2))
    x, context = tensor(2, queries, DIM), tensor(2, keys, DIM, seed=3)
    check(mixer, x=x, context=context)
    check(mixer, x=x, context=context, mask=random_mask(2, queries), context_mask=random_mask(2, keys, seed=2))


@pytest.mark.parametrize(("queries", "keys"), [(600, 2), (2, 600)])
def test_a_side_takes_no_more_places_than_it_has_tokens(queries: int, keys: int) -> None:
    """What autograd keeps of a large map that looks at a small one: never both as large as the large one."""
    largest = 0

    def note(t: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, t.untyped_storage().nbytes() // t.element_size())
        return t

    q, k, v = (tensor(1, 1, n, 4, seed=n).requires_grad_() for n in (queries, keys, keys))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        smyrf_attention(q, k, v, tensor(6, 3), MANY)
    assert 0 < largest <= 3 * 600 * 4  # rounds, tokens, channels


def test_products_order_distances() -> None:
    """Over many lines: the nearer F(q) and G(k), the larger q . k."""
    q, k = tensor(1, 1, 1, 5), tensor(1, 1, 40, 5, seed=1)
    real = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 40, dtype=torch.bool)
    of_query, of_keys = places_on_lines(q, k, tensor(7, 5_000, seed=2), *real)
    apart = (of_query - of_keys)[0, 0].square().mean(0)
    total = q.square().sum() + k.square().sum(-1).max()
    torch.testing.assert_close(apart, (2 * total - 2 * (q @ k.mT))[0, 0, 0], rtol=0.12, atol=0)


def test_weights_of_softmax_attention_give_nearly_its_answers() -> None:
    """Nearer with more rounds, and the same with one cluster."""
    pretrained, x = randomised(SoftmaxAttention(DIM, num_heads=2)), 6 * tensor(1, 96, DIM, seed=1)
    wanted, errors = pretrained(x), []
    for rounds in (1, 32):
        mixer = SMYRF(DIM, num_heads=2, cluster_size=12, rounds=rounds).double()
        mixer.load_state_dict(pretrained.state_dict())
        errors.append((mixer(x) - wanted).abs().mean() / wanted.abs().mean())
    assert errors[1] < 0.6 * errors[0]
    whole = SMYRF(DIM, num_heads=2, cluster_size=96).double()
    whole.load_state_dict(pretrained.state_dict())
    torch.testing.assert_close(whole(x), wanted)


def test_tokens_that_are_alike_are_all_answered() -> None:
    """A map of one colour: all lie at one place of every line."""
    pretrained = randomised(SoftmaxAttention(DIM, num_heads=2))
    mixer = SMYRF(DIM, num_heads=2, cluster_size=4).double()
    mixer.load_state_dict(pretrained.state_dict())
    x = tensor(1, 1, 1, DIM).expand(1, 3, 5, DIM)
    torch.testing.assert_close(mixer(x), pretrained(x))


def test_a_seed_is_a_hash() -> None:
    first, again, other = (SMYRF(DIM, num_heads=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.lines, again.lines)
    assert not torch.equal(first.lines, other.lines)
    assert "lines" not in first.state_dict()


def test_a_scale_multiplies_the_logits_and_not_the_hash() -> None:
    q, k, v = (tensor(2, 2, 9, 4, seed=seed) for seed in range(3))
    lines = tensor(6, 2, seed=3)
    torch.testing.assert_close(smyrf_attention(q, k, v, lines, 3), smyrf_attention(q, k, v, lines, 3, scale=0.5))
    out = smyrf_attention(q, k, v, lines, 3, scale=40.0)
    for item, head in ((0, 0), (1, 1)):
        queries, keys = (t[item, head] for t in (q, k))
        total = sum(float(t.square().sum(-1).max()) for t in (queries, keys))
        wanted = torch.zeros(9, dtype=torch.float64)
        for number in range(9):
            met = []
            for line in lines.T:
                order = sorted(range(9), key=lambda i, line=line: place_of(queries[i], total, line[:-2], line[-1]))
                key_order = sorted(range(9), key=lambda j, line=line: place_of(keys[j], total, line[:-2], line[-2]))
                first = order.index(number) // 3 * 3
                met += key_order[first : first + 3]
            shares = softmax([40.0 * queries[number] @ keys[key] for key in met])
            wanted[number] = sum(share * v[item, head, key, 0] for share, key in zip(shares, met, strict=True))
        torch.testing.assert_close(out[item, head, :, 0], wanted)


def test_queries_without_any_key_answer_zero() -> None:
    q, k, v = (tensor(1, 1, 5, 4, seed=seed) for seed in range(3))
    out = smyrf_attention(q, k, v, tensor(6, 2), 2, torch.zeros(1, 5, dtype=torch.bool))
    assert torch.equal(out, torch.zeros_like(out))


@pytest.mark.parametrize("case", golden("attention", "smyrf"))
def test_golden(case: Golden) -> None:
    inputs, kwargs, buffers = case.leaves("in"), case.kwargs, case.group("buffer")
    q, k, v = (inputs[name][:, None] for name in "qkv")
    # One size cuts the longer side; the clusters of the other follow, as the reference's do where its sizes agree.
    clusters = q.shape[2] // kwargs["q_cluster_size"]
    assert clusters == k.shape[2] // kwargs["k_cluster_size"]
    size = max(kwargs["q_cluster_size"], kwargs["k_cluster_size"])
    real = (torch.ones(1, t.shape[2], dtype=torch.bool) for t in (q, k))
    for name, found in zip("qk", places_on_lines(q, k, buffers["alpha"], *real), strict=True):
        assert torch.equal(found[:, 0].argsort(dim=-1).transpose(0, 1), buffers[f"{name}_positions"])
    out = smyrf_attention(q, k, v, buffers["alpha"], size, scale=1 / kwargs.get("norm_factor", 1))
    assert_golden(case, out[:, 0], inputs, {}, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="cluster_size=0 must be 1 or more"):
        SMYRF(DIM, num_heads=2, cluster_size=0)
    with pytest.raises(ValueError, match="rounds=0 must be 1 or more"):
        SMYRF(DIM, num_heads=2, rounds=0)
    with pytest.raises(TypeError, match=r"cluster_size=2\.5 is no whole number"):
        SMYRF(DIM, num_heads=2, cluster_size=2.5)  # type: ignore[arg-type]
