"""gMLP: equation 2 in loops, its tiny attention, golden vectors of lucidrains and timm."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from visionattn.attention.gmlp import GMLP
from visionattn.ops.spatial_gating import spatial_gate

DIM = 6
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"hidden_dim": 8, "num_heads": 2},
    {"hidden_dim": 4, "attention_dim": 3},
)


def naive_mixer(mixer: GMLP, parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Every position, channel and position that it takes from in turn; padded ones are not even read."""
    grid, half, rows = tuple(x.shape[1:-1]), mixer.norm.normalized_shape[0], []
    heads = len(mixer.mixing)
    for item in range(len(x)):
        real = [p for p in positions(grid) if mask is None or mask[item][p]]
        gates = {}
        for p in real:
            v = F.gelu(linear(parameters, "fc1", x[item][p]))[half:]
            mean = v.sum() / half
            normal = (v - mean) / (((v - mean) ** 2).sum() / half + 1e-5).sqrt()
            gates[p] = normal * parameters["norm.weight"] + parameters["norm.bias"]
        for t in positions(grid):
            u = F.gelu(linear(parameters, "fc1", x[item][t]))[:half]
            gated = []
            for channel in range(half):
                head = channel * heads // half
                taken = sum(parameters["mixing"][(head, *t, *p)] * gates[p][channel] for p in real)
                gated.append(taken + parameters["mixing_bias"][(head, *t)])
            gate = torch.stack(gated)
            if mixer.attention_qkv is not None:
                width = mixer.attention_qkv.out_features // 3
                q = linear(parameters, "attention_qkv", x[item][t])[:width]
                others = [linear(parameters, "attention_qkv", x[item][p]) for p in real]
                shares = softmax([q @ other[width : 2 * width] / math.sqrt(width) for other in others])
                seen = sum(share * other[2 * width :] for share, other in zip(shares, others, strict=True))
                gate = gate + linear(parameters, "attention_proj", seen)
            rows.append(linear(parameters, "fc2", u * gate))
    return torch.stack(rows).reshape(x.shape)


def check(mixer: GMLP, **inputs: Tensor | None) -> None:
    assert_equals_naive(mixer, lambda parameters, **kwargs: naive_mixer(mixer, parameters, **kwargs), inputs)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("grid", [(5,), (2, 3), (2, 1, 2)], ids=str)
def test_equals_loops(options: dict[str, Any], grid: tuple[int, ...]) -> None:
    mixer = randomised(GMLP(DIM, grid, **options))
    check(mixer, x=tensor(2, *grid, DIM))
    check(mixer, x=tensor(2, *grid, DIM), mask=random_mask(2, *grid))


def test_starts_as_a_perceptron() -> None:
    mixer, x = GMLP(DIM, (3, 4)).double(), tensor(2, 3, 4, DIM)
    u = F.gelu(mixer.fc1(x))[..., : 2 * DIM]
    torch.testing.assert_close(mixer(x), mixer.fc2(u), rtol=0, atol=5e-3)


def test_a_gate_of_the_mean_is_one_at_any_resolution() -> None:
    mixer = GMLP(DIM, (4, 4), hidden_dim=4, num_heads=2).double()
    torch.nn.init.constant_(mixer.mixing, 1 / 16)
    x = tensor(1, 5, 7, DIM)
    values, gate = F.gelu(mixer.fc1(x)).chunk(2, dim=-1)
    expected = mixer.fc2(values * (mixer.norm(gate).mean((1, 2), keepdim=True) + 1))
    torch.testing.assert_close(mixer(x), expected)


def gating_matrix(params: dict[str, Tensor], causal: bool) -> Tensor:
    """[heads, N, N]; the reference's "circulant" one from its diagonals: row i takes w[n - 1 - (i - j)] from j <= i."""
    weight = params["weight"]
    if weight.dim() == 2:
        n = weight.shape[1]
        distance = torch.arange(n)[:, None] - torch.arange(n)
        weight = weight[:, (n - 1 - distance).clamp(0, n - 1)].masked_fill(distance < 0, 0.0)
        weight = weight * params["circulant_pos_x"][:, :, None] * params["circulant_pos_y"][:, None]
    return weight.tril() if causal else weight


@pytest.mark.parametrize("case", golden("attention", "gmlp_sgu"))
def test_golden_gate(case: Golden) -> None:
    inputs, params = case.leaves("in"), case.leaves("param")
    values, gate = inputs["x"].chunk(2, dim=-1)
    gate, n = F.layer_norm(gate, gate.shape[-1:], params["norm.weight"], params["norm.bias"]), gate.shape[1]
    mixing = gating_matrix(params, case.kwargs.get("causal", False))[:, :n, :n]  # a causal one takes fewer tokens too
    out = spatial_gate(values, gate, mixing, params["bias"][:, :n])
    assert_golden(case, out, inputs, params, tol=1e-10)


@pytest.mark.parametrize("case", golden("attention", "gmlp_block"))
def test_golden_block(case: Golden) -> None:
    inputs, params, kwargs = case.leaves("in"), case.leaves("param"), case.kwargs
    names = {"fc1": "proj_in.0", "norm": "sgu.norm", "fc2": "proj_out"}
    if kwargs.get("attn_dim") is not None:
        names |= {"attention_qkv": "attn.to_qkv", "attention_proj": "attn.to_out"}
    state = {
        f"{ours}.{kind}": params[f"{theirs}.{kind}"]
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in params
    }
    sgu = {name.removeprefix("sgu."): t for name, t in params.items() if name.startswith("sgu.")}
    n = inputs["x"].shape[1]
    mixing = gating_matrix(sgu, kwargs.get("causal", False))[:, :n, :n]
    state |= {"mixing": mixing, "mixing_bias": sgu["bias"][:, :n]}
    mixer = GMLP(
        kwargs["dim"],
        (n,),
        hidden_dim=kwargs["dim_ff"],
        num_heads=kwargs.get("heads", 1),
        attention_dim=kwargs.get("attn_dim"),
    )
    out = functional_call(mixer, state, (inputs["x"],), strict=True)
    assert_golden(case, out, inputs, params, tol=1e-10)


@pytest.mark.parametrize("case", golden("attention", "gmlp_timm_block"))
def test_golden_timm_block(case: Golden) -> None:
    """timm's with its norm (eps 1e-6) and its residual."""
    inputs, params = case.leaves("in"), case.leaves("param")
    dim, tokens = case.args
    names = {"fc1": "fc1", "norm": "gate.norm", "fc2": "fc2"}
    state = {
        f"{ours}.{k}": params[f"mlp_channels.{name}.{k}"] for ours, name in names.items() for k in ("weight", "bias")
    }
    state |= {"mixing": params["mlp_channels.gate.proj.weight"][None]}
    state |= {"mixing_bias": params["mlp_channels.gate.proj.bias"][None]}
    mixer = GMLP(dim, (tokens,), hidden_dim=int(dim * case.kwargs.get("mlp_ratio", 4)))
    normal = F.layer_norm(inputs["x"], (dim,), params["norm.weight"], params["norm.bias"], eps=1e-6)
    out = inputs["x"] + functional_call(mixer, state, (normal,), strict=True)
    assert_golden(case, out, inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="GMLP learns a weight for every pair of positions: give it a grid"):
        GMLP(DIM)
    with pytest.raises(ValueError, match=r"hidden_dim=10 must be a multiple of 2 \* num_heads=4"):
        GMLP(DIM, (3, 3), hidden_dim=10, num_heads=2)
    with pytest.raises(ValueError, match="attention_dim=0 must be 1 or more, or None"):
        GMLP(DIM, (3, 3), attention_dim=0)
    with pytest.raises(ValueError, match=r"GMLP expects x of shape \[B, H, W, 6\]"):
        GMLP(DIM, (3, 3))(torch.zeros(1, 9, DIM))
