"""Long-short attention: loops over the paper's equations, tokens beside the map, golden vectors of both references."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from visionattn.attention.long_short import LongShortAttention
from visionattn.ops.block_attention import Blocks, Source, all_pairs, joint_attention
from visionattn.ops.long_short import dynamic_projection
from visionattn.ops.neighborhood import tile_blocks

DIM = 6
Place = tuple[int, ...]
OPTIONS: tuple[dict[str, Any], ...] = (
    {"num_heads": 1, "rank": 2},
    {"num_heads": 2, "rank": 3, "relative_position_bias": True},
    {"num_heads": 2, "rank": 0, "relative_position_bias": True, "qkv_bias": False},
    {"num_heads": 3, "rank": 2, "window": None},
)


def normalised(parameters: Parameters, name: str, token: Tensor) -> Tensor:
    centred = token - token.mean()
    scaled = centred / (centred.square().mean() + 1e-5).sqrt()
    return scaled * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]


def in_window(mixer: LongShortAttention, query: Place, key: Place) -> bool:
    """Whether the key lies in the query's window or no further from it than half a window, at least one position."""
    inside = []
    for i, j, length in zip(query, key, mixer.window or (), strict=True):
        first, around = i // length * length, max(length // 2, 1)
        inside.append(first - around <= j < first + length + around)
    return all(inside)


def offset_row(mixer: LongShortAttention, query: Place, key: Place) -> int:
    row = 0
    for i, j, length in zip(query, key, mixer.window or (), strict=True):
        reach = length + max(length // 2, 1) - 1
        row = row * (2 * reach + 1) + i - j + reach
    return row


def naive_long_short(
    mixer: LongShortAttention,
    parameters: Parameters,
    x: Tensor,
    tokens: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """All positions' answers [B, N, C], after those of the tokens if there are any."""
    rows = [
        naive_image(
            mixer, parameters, x[item], None if tokens is None else tokens[item], None if mask is None else mask[item]
        )
        for item in range(len(x))
    ]
    return torch.stack(rows) if tokens is not None else torch.stack(rows).reshape(x.shape)


def naive_image(
    mixer: LongShortAttention, parameters: Parameters, x: Tensor, tokens: Tensor | None, mask: Tensor | None
) -> Tensor:
    places = list(positions(tuple(x.shape[:-1])))
    real = [p for p in places if mask is None or bool(mask[p])]
    width, heads = DIM // mixer.num_heads, range(mixer.num_heads)

    def projected(token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = linear(parameters, "qkv", token).chunk(3)
        return q, normalised(parameters, "token_norm", k), normalised(parameters, "token_norm", v)

    of_place = {p: projected(x[p]) for p in places}
    of_token = [projected(token) for token in ([] if tokens is None else tokens)]
    sums: list[tuple[Tensor, Tensor]] = []
    if real:
        scores = {p: linear(parameters, "dynamic_projection", x[p]) for p in real} if mixer.rank else {}
        for number in range(mixer.rank):
            shares = [softmax([scores[p][head * mixer.rank + number] for p in real]) for head in heads]
            summed = []
            for which in (1, 2):
                parts = [
                    sum(
                        s * of_place[p][which][head * width : (head + 1) * width]
                        for s, p in zip(shares[head], real, strict=True)
                    )
                    for head in heads
                ]
                summed.append(normalised(parameters, "sum_norm", torch.cat(parts)))
            sums.append((summed[0], summed[1]))
    merged, of_tokens = [], []
    for query in places:
        parts = []
        for head in heads:
            own = slice(head * width, (head + 1) * width)
            q, logits, values = of_place[query][0][own], [], []
            for key in real if mixer.window is not None else []:
                if in_window(mixer, query, key):
                    bias = 0.0
                    if "relative_position_bias_table" in parameters:
                        bias = parameters["relative_position_bias_table"][offset_row(mixer, query, key), head]
                    logits.append(q @ of_place[key][1][own] / math.sqrt(width) + bias)
                    values.append(of_place[key][2][own])
            for k, v in [*sums, *[(k, v) for _, k, v in of_token]]:
                logits.append(q @ k[own] / math.sqrt(width))
                values.append(v[own])
            nothing = torch.zeros(width, dtype=torch.float64)
            parts.append(sum((w * v for w, v in zip(softmax(logits), values, strict=True)), nothing))
        merged.append(torch.cat(parts))
    answers = [merged[places.index(p)] for p in real]
    for q, _, _ in of_token:
        parts = []
        for head in heads:
            own = slice(head * width, (head + 1) * width)
            logits = [q[own] @ k[own] / math.sqrt(width) for k in [*[k for _, k, _ in of_token], *answers]]
            values = [v[own] for v in [*[v for _, _, v in of_token], *answers]]
            parts.append(sum(w * v for w, v in zip(softmax(logits), values, strict=True)))
        of_tokens.append(torch.cat(parts))
    return torch.stack([linear(parameters, "proj", token) for token in [*of_tokens, *merged]])


def made(grid: Place, **options: Any) -> LongShortAttention:
    mixer = randomised(LongShortAttention(DIM, grid, **{"window": (3, 2, 2)[: len(grid)], **options}))
    assert isinstance(mixer, LongShortAttention)
    return mixer


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("grid", [(7,), (4, 3), (2, 1, 3)], ids=str)
def test_equals_loops(options: dict[str, Any], grid: Place) -> None:
    mixer = made(grid, **options)

    def naive(parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return naive_long_short(mixer, parameters, x, mask=mask)

    assert_equals_naive(mixer, naive, {"x": tensor(2, *grid, DIM)})
    assert_equals_naive(mixer, naive, {"x": tensor(2, *grid, DIM), "mask": random_mask(2, *grid)})


class Beside(nn.Module):
    """The answers of tokens and map in one sequence."""

    def __init__(self, mixer: LongShortAttention) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        answer, seen = self.mixer.forward_with_tokens(x, tokens, mask)
        assert answer.shape == x.shape
        return torch.cat([seen, answer.flatten(1, -2)], dim=1)


@pytest.mark.parametrize(("options", "number"), zip(OPTIONS, (1, 2, 1, 2), strict=True), ids=str)
def test_tokens_beside_the_map_equal_loops(options: dict[str, Any], number: int) -> None:
    mixer = made((4, 2), **options)

    def naive(parameters: Parameters, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        bare = {name.removeprefix("mixer."): parameter for name, parameter in parameters.items()}
        return naive_long_short(mixer, bare, x, tokens, mask)

    inputs = {"x": tensor(2, 4, 2, DIM), "tokens": tensor(2, number, DIM, seed=3)}
    assert_equals_naive(Beside(mixer), naive, inputs)
    assert_equals_naive(Beside(mixer), naive, inputs | {"mask": random_mask(2, 4, 2, seed=2)})


def test_without_a_real_token_nothing_is_seen() -> None:
    mixer = made((3, 4), num_heads=2, rank=2)
    out = mixer(tensor(1, 3, 4, DIM), torch.zeros(1, 3, 4, dtype=torch.bool))
    torch.testing.assert_close(out, mixer.proj.bias.expand_as(out))


def test_every_offset_has_its_own_row() -> None:
    mixer = LongShortAttention(DIM, num_heads=1, window=(4, 3), relative_position_bias=True)
    assert mixer.offset_index is not None
    assert mixer.relative_position_bias_table is not None
    pairs: dict[int, set[Place]] = {}
    keys = list(itertools.product(range(-2, 6), range(-1, 4)))
    for query, row in zip(positions((4, 3)), mixer.offset_index.tolist(), strict=True):
        for key, number in zip(keys, row, strict=True):
            pairs.setdefault(number, set()).add((query[0] - key[0], query[1] - key[1]))
    assert all(len(offsets) == 1 for offsets in pairs.values())
    assert sorted(pairs) == list(range(len(mixer.relative_position_bias_table)))


def published_offset_index(window: int) -> Tensor:
    """The reference's: rows of 2 p + w offsets where there are 2 (w + p) - 1, so that several share a bias."""
    around = window // 2
    offsets = torch.arange(window)[:, None] - torch.arange(-around, window + around) + around + window - 1
    index = offsets[:, None, :, None] * (2 * around + window) + offsets[None, :, None, :]
    return index.flatten(0, 1).flatten(1)


@pytest.mark.parametrize("case", golden("attention", "transformer_ls_vision"))
def test_golden(case: Golden) -> None:
    defaults = {"num_heads": 8, "w": 2, "dp_rank": 2, "nglo": 1, "qkv_bias": False, "qk_scale": None, "rpe": False}
    sizes = defaults | case.kwargs
    inputs, params = case.leaves("in"), case.leaves("param")
    names = {
        "to_dynamic_projection": "dynamic_projection",
        "dual_ln_full": "token_norm",
        "dual_ln_dp": "sum_norm",
        "qkv": "qkv",
        "proj": "proj",
    }
    if not sizes["dp_rank"]:
        del names["dual_ln_dp"]  # the reference keeps a norm that nothing goes through
    mixer = LongShortAttention(
        case.args[0],
        num_heads=sizes["num_heads"],
        window=(sizes["w"],) * 2 if sizes["w"] else None,
        rank=sizes["dp_rank"],
        qkv_bias=sizes["qkv_bias"],
        relative_position_bias=sizes["rpe"],
    ).double()
    state = {
        f"{names[key.split('.')[0]]}.{key.split('.')[1]}": t for key, t in params.items() if key.split(".")[0] in names
    }
    if sizes["rpe"]:
        index = case.group("buffer").get("relative_position_index", published_offset_index(sizes["w"]))
        state["offset_index"] = index.view(sizes["w"] ** 2, -1)
        state["relative_position_bias_table"] = params["local_relative_position_bias_table"]
    if sizes["qk_scale"] is not None:
        factor = torch.ones(3, case.args[0], dtype=torch.float64)
        factor[0] = sizes["qk_scale"] * math.sqrt(case.args[0] / sizes["num_heads"])  # queries alone have no norm
        for key in ("qkv.weight", "qkv.bias")[: 1 + sizes["qkv_bias"]]:
            state[key] = (state[key].movedim(0, -1) * factor.flatten()).movedim(-1, 0)
    first = sizes["nglo"]
    x = inputs["x"][:, first:].unflatten(1, (sizes["nx"], sizes["ny"]))
    if first:
        beside = {f"mixer.{key}": t for key, t in state.items()}
        out = functional_call(Beside(mixer), beside, (x, inputs["x"][:, :first]), strict=True)
    else:
        out = functional_call(mixer, state, (x,), strict=True).flatten(1, 2)
    assert_golden(case, out, inputs, params, tol=1e-10)


@pytest.mark.parametrize("case", golden("attention", "transformer_ls_1d"))
def test_golden_of_sequences(case: Golden) -> None:
    """The other reference: keys are values, norms and projection one head's; windows reach a whole window further."""
    sizes = {"heads": 8, "window_size": 128, "causal": True, "segment_size": 16, "r": 1} | case.kwargs
    heads, window, causal = sizes["heads"], sizes["window_size"], sizes["causal"]
    inputs, params = case.leaves("in"), case.leaves("param")
    q, kv = (
        (inputs["x"] @ params[f"{name}.weight"].mT).unflatten(-1, (heads, -1)).transpose(1, 2)
        for name in ("to_q", "to_kv")
    )

    def norm(name: str, t: Tensor) -> Tensor:
        return F.layer_norm(t, t.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])

    scores, n = kv @ params["to_dynamic_proj.weight"].mT, kv.shape[2]
    near, token = norm("local_norm", kv), torch.arange(n)
    pairs = tile_blocks((n,), (window,), (window,))
    if causal:
        segment = sizes["segment_size"]
        cut = [dynamic_projection(s, t) for s, t in zip(scores.split(segment, 2), kv.split(segment, 2), strict=True)]
        sums = norm("global_norm", torch.cat(cut, dim=2))
        ends = (torch.arange(n // segment) * segment + segment - 1).repeat_interleave(sizes["r"])
        sees = token[:, None] >= ends
        earlier = pairs.keys[:, None, :] <= pairs.queries[:, :, None]
        pairs = Blocks(pairs.queries, pairs.keys, pairs.seen & earlier, pairs.slots)
    else:
        sums = norm("global_norm", dynamic_projection(scores, kv))
        sees = torch.ones(n, sums.shape[2], dtype=torch.bool)
    out = joint_attention(q, [Source(pairs, near, near), Source(all_pairs(sees), sums, sums)])
    out = F.linear(out.transpose(1, 2).flatten(2), params["to_out.weight"], params["to_out.bias"])
    assert_golden(case, out, inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"window=7 must hold one integer per axis of the grid: \(7, 7\)"):
        LongShortAttention(DIM, num_heads=2, window=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"window=\(0, 2\) must hold one integer of 1 or more per axis"):
        LongShortAttention(DIM, num_heads=2, window=(0, 2))
    with pytest.raises(
        ValueError, match=r"window=\(7, 7\) has 2 entries, the grid \(4,\) has 1 axes; give one per axis"
    ):
        LongShortAttention(DIM, (4,), num_heads=2)
    with pytest.raises(ValueError, match="rank=-1 must be 0 or more; 0 leaves the windows alone"):
        LongShortAttention(DIM, num_heads=2, rank=-1)
    with pytest.raises(ValueError, match=r"window=None leaves sums .* but rank=0 .*give a window such as \(7, 7\)"):
        LongShortAttention(DIM, num_heads=2, window=None, rank=0)
    with pytest.raises(ValueError, match=r"window=None leaves sums.* relative_position_bias=True"):
        LongShortAttention(DIM, num_heads=2, window=None, relative_position_bias=True)
    with pytest.raises(ValueError, match="num_heads=4 does not divide dim=6; use 1, 2, 3 or 6"):
        LongShortAttention(DIM, num_heads=4)
    with pytest.raises(ValueError, match="attn_drop=2 is no probability"):
        LongShortAttention(DIM, num_heads=2, attn_drop=2)
    mixer = LongShortAttention(DIM, num_heads=2, window=(2, 2))
    with pytest.raises(ValueError, match=r"tokens of shape \[2, P, 6\] beside the map, P 1 or more, got \[2, 0, 6\]"):
        mixer.forward_with_tokens(torch.zeros(2, 3, 3, DIM), torch.zeros(2, 0, DIM))
    with pytest.raises(ValueError, match=r"LongShortAttention expects x of shape \[B, H, W, 6\]"):
        mixer(torch.zeros(2, 9, DIM))
