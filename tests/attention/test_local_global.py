"""Local and linear heads: loops over both, and golden vectors of the linear ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call

from visionattn.attention.base import QKVAttention
from visionattn.attention.efficient import EfficientAttention
from visionattn.attention.local_global import LocalGlobalLinearAttention
from visionattn.ops.causal_attention import causal_feature_attention
from visionattn.ops.feature_attention import feature_attention

DIM = 8
Place = tuple[int, ...]


def naive_attention(
    mixer: LocalGlobalLinearAttention,
    parameters: Parameters,
    x: Tensor,
    mask: Tensor | None = None,
    context: Tensor | None = None,
) -> Tensor:
    """The mask is that of the keys."""
    places, rows = list(positions(tuple(x.shape[1:-1]))), []
    key_width, value_width = mixer.key_dim // mixer.num_heads, mixer.value_dim // mixer.num_heads
    for item in range(len(x)):
        real = [p for p in places if mask is None or bool(mask[item][p])]
        projected = {p: linear(parameters, "qkv", (x if context is None else context)[item][p]) for p in places}
        asking = {p: linear(parameters, "qkv", x[item][p]) for p in places}
        merged: dict[Place, list[Tensor]] = {p: [] for p in places}
        for head in range(mixer.num_heads):
            q = {p: token[head * key_width : (head + 1) * key_width] for p, token in asking.items()}
            first = mixer.key_dim + head * key_width
            k = {p: token[first : first + key_width] for p, token in projected.items()}
            first = 2 * mixer.key_dim + head * value_width
            v = {p: token[first : first + value_width] for p, token in projected.items()}
            nothing = torch.zeros(value_width, dtype=torch.float64)
            found = []  # for every key channel what its own distribution over the map finds
            for channel in range(key_width):
                shares = softmax([k[p][channel] for p in real])
                found.append(sum((share * v[p] for share, p in zip(shares, real, strict=True)), nothing))
            for query in places:
                if head < mixer.local_heads:
                    keys = [p for p in real if touches(mixer, query, p)]
                    weights, values = (
                        softmax([q[query] @ k[p] / math.sqrt(key_width) for p in keys]),
                        [v[p] for p in keys],
                    )
                else:
                    weights, values = softmax(list(q[query])), found
                merged[query].append(sum((w * value for w, value in zip(weights, values, strict=True)), nothing))
        rows += [linear(parameters, "proj", torch.cat(merged[p])) for p in places]
    return torch.stack(rows).reshape(x.shape)


def touches(mixer: LocalGlobalLinearAttention, query: Place, key: Place) -> bool:
    """Whether their windows are the same or next to each other."""
    return all(abs(i // n - j // n) <= 1 for i, j, n in zip(query, key, mixer.window, strict=True))


@pytest.mark.parametrize(
    "options",
    [{"num_heads": 2}, {"num_heads": 4, "local_heads": 1, "key_dim": 4, "value_dim": 12, "qkv_bias": False}],
    ids=str,
)
@pytest.mark.parametrize(("grid", "window"), [((9,), (2,)), ((4, 3), (1, 2)), ((1, 4, 2), (1, 1, 3))], ids=str)
def test_equals_loops(options: dict[str, Any], grid: Place, window: Place) -> None:
    mixer = randomised(LocalGlobalLinearAttention(DIM, grid, window=window, **options))

    def naive(parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return naive_attention(mixer, parameters, x, mask)

    assert_equals_naive(mixer, naive, {"x": tensor(2, *grid, DIM)})
    assert_equals_naive(mixer, naive, {"x": tensor(2, *grid, DIM), "mask": random_mask(2, *grid)})


@pytest.mark.parametrize(("grid", "window"), [((9,), (2,)), ((4, 3), (1, 2)), ((1, 4, 2), (1, 1, 3))], ids=str)
def test_another_map_of_the_same_grid_equals_loops(grid: Place, window: Place) -> None:
    mixer = randomised(LocalGlobalLinearAttention(DIM, grid, window=window, num_heads=2, value_dim=6))

    def naive(parameters: Parameters, x: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        return naive_attention(mixer, parameters, x, context_mask, context)

    maps = {"x": tensor(2, *grid, DIM), "context": tensor(2, *grid, DIM, seed=1)}
    assert_equals_naive(mixer, naive, maps)
    assert_equals_naive(mixer, naive, {**maps, "context_mask": random_mask(2, *grid)})


def test_without_local_heads_it_is_efficient_attention() -> None:
    mixer = LocalGlobalLinearAttention(DIM, num_heads=4, local_heads=0, window=(2, 2)).double()
    other = EfficientAttention(DIM, num_heads=4).double()
    other.load_state_dict(mixer.state_dict())
    x, mask = tensor(2, 5, 3, DIM), random_mask(2, 5, 3)
    torch.testing.assert_close(mixer(x, mask=mask), other(x, mask=mask), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", golden("attention", "lat", lambda row: not row["kwargs"].get("causal", False)))
def test_golden(case: Golden) -> None:
    """The reference divides the answers of its linear heads by sqrt(d): proj's columns take that over here."""
    heads, local = case.kwargs["heads"], case.kwargs.get("n_local_attn_heads", 0)
    window = case.kwargs.get("local_attn_window_size", 128)
    dim, inputs, params = case.args[0], case.leaves("in"), case.leaves("param")
    width = len(params["to_q.weight"]) // heads
    scale = torch.ones(heads, width, dtype=torch.float64)
    scale[local:] = width**-0.5
    state = {
        "qkv.weight": torch.cat([params[f"to_{name}.weight"] for name in "qkv"]),
        "proj.weight": params["to_out.weight"] * scale.flatten(),
        "proj.bias": params["to_out.bias"],
    }
    widths = {"num_heads": heads, "key_dim": heads * width, "value_dim": heads * width, "qkv_bias": False}
    mixer: QKVAttention
    if "context" in inputs:  # of another length: a local head sees none such, there and here
        mixer = EfficientAttention(dim, **widths)
    else:
        mixer = LocalGlobalLinearAttention(dim, local_heads=local, window=(window,), **widths)
    out = functional_call(mixer, state, tuple(inputs[name] for name in ("x", "context") if name in inputs), strict=True)
    assert_golden(case, out, inputs, params, tol=1e-10)


@pytest.mark.parametrize("case", golden("attention", "lat", lambda row: row["kwargs"].get("causal", False)))
def test_golden_causal(case: Golden) -> None:
    """Not efficient attention: one denominator for all channels, of features exp(k) and softmax(q).

    With more than one token a bucket no token sees its own bucket: here only so that the numbers can be compared.
    """
    heads, bucket = case.kwargs["heads"], case.kwargs.get("blindspot_size", 1)
    inputs, params = case.leaves("in"), case.leaves("param")
    q, k, v = (
        (inputs["x"] @ params[f"to_{name}.weight"].mT).unflatten(-1, (heads, -1)).transpose(1, 2) for name in "qkv"
    )
    q, k = q.softmax(-1), k.exp()
    if bucket == 1:
        out = causal_feature_attention(q, k, v)
    else:
        out = torch.cat(
            [
                feature_attention(part, k[:, :, : number * bucket], v[:, :, : number * bucket])
                for number, part in enumerate(q.split(bucket, dim=2))
            ],
            dim=2,
        )
        assert (out[:, :, :bucket] == 0).all()
    out = out.transpose(1, 2).flatten(2) @ params["to_out.weight"].mT + params["to_out.bias"]
    assert_golden(case, out, inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"local_heads={wrong} must be from 0 to num_heads=2"):
            LocalGlobalLinearAttention(DIM, num_heads=2, local_heads=wrong)
    with pytest.raises(TypeError, match="window=7 must hold one integer per axis"):
        LocalGlobalLinearAttention(DIM, num_heads=2, window=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"window=\(0, 7\) must hold one integer of 1 or more"):
        LocalGlobalLinearAttention(DIM, num_heads=2, window=(0, 7))
    with pytest.raises(ValueError, match=r"window=\(7, 7\) has 2 entries, the grid \(9,\) has 1 axes"):
        LocalGlobalLinearAttention(DIM, (9,), num_heads=2)
    with pytest.raises(ValueError, match=r"x has \(2, 2\), the context \(2, 3\); resize one of them, or take a"):
        LocalGlobalLinearAttention(DIM, num_heads=2)(torch.zeros(1, 2, 2, DIM), context=torch.zeros(1, 2, 3, DIM))
