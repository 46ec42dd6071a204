"""Mega: averages as recurrences, gated attention pair by pair, golden vectors of the official code and lucidrains."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from visionattn.attention.mega import GatedAveraging, Mega, MegaLaplace
from visionattn.ops.laplace_attention import laplace, laplace_attention
from visionattn.ops.moving_average import ema_kernel, moving_average

DIM = 3
SMALL: dict[str, Any] = {"key_dim": 2, "value_dim": 4, "averages": 2}
OPTIONS: tuple[dict[str, Any], ...] = ({}, {"rotary": True}, {"chunk": 2}, {"chunk": 2, "rotary": True})
FORMS = (Mega, MegaLaplace)
MU, SIGMA = 0.707107, 0.282095


def naive_average(parameters: Parameters, x: Tensor) -> Tensor:
    """Equation 2 as the recurrence that it is, channel by channel; x [*grid, C] with zeros where there is padding."""
    grid = tuple(x.shape[:-1])
    for axis in range(len(grid)):
        alpha, delta, beta, gamma = (
            parameters[f"average.{name}"][axis] for name in ("alpha", "delta", "beta", "gamma")
        )
        share = 1 / (1 + (-alpha).exp())
        decay = 1 - share / (1 + (-delta).exp())
        answers = {}
        others = [range(extent) if a != axis else [0] for a, extent in enumerate(grid)]
        for line in itertools.product(*others):
            cells = [(*line[:axis], i, *line[axis + 1 :]) for i in range(grid[axis])]
            for channel in range(x.shape[-1]):
                there = []
                state = torch.zeros(alpha.shape[-1], dtype=torch.float64)
                for cell in cells:
                    state = decay[0, channel] * state + share[0, channel] * beta[0, channel] * x[cell][channel]
                    there.append((gamma[0, channel] * state).sum())
                state = torch.zeros(alpha.shape[-1], dtype=torch.float64)
                for i in reversed(range(len(cells))):  # the own position belongs to both directions
                    state = decay[1, channel] * state + share[1, channel] * beta[1, channel] * x[cells[i]][channel]
                    there[i] = there[i] + (gamma[1, channel] * state).sum()
                for cell, answer in zip(cells, there, strict=True):
                    answers[(*cell, channel)] = answer / math.sqrt(alpha.shape[-1])
        x = torch.stack([answers[cell] for cell in positions(tuple(x.shape))]).reshape(x.shape)
    return x


def offset_bias(mixer: GatedAveraging, parameters: Parameters, query: tuple[int, ...], key: tuple[int, ...]) -> Tensor:
    """From the table, which counts from query to key, or from two rotated vectors of each axis."""
    if "bias" in parameters:
        middle = [(extent - 1) // 2 for extent in parameters["bias"].shape]
        return parameters["bias"][tuple(m + k - q for m, q, k in zip(middle, query, key, strict=True))]
    total = torch.zeros((), dtype=torch.float64)
    for axis, (i, j) in enumerate(zip(query, key, strict=True)):
        a, b = parameters["turned"][:, axis]
        half = len(a) // 2
        for n in range(half):
            turn = 10000 ** (-n / half)
            left = torch.complex(a[n], a[half + n]) * complex(math.cos(i * turn), math.sin(i * turn))
            right = torch.complex(b[n], b[half + n]) * complex(math.cos(j * turn), math.sin(j * turn))
            total = total + (left * right.conj()).real
    return total


def naive_mixer(mixer: GatedAveraging, parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """One position after the other; padded ones are read as zeros by the averages, and not at all by the attention."""
    grid, rows = tuple(x.shape[1:-1]), []
    _, z, v, _ = mixer.widths
    scale, shift = parameters["scale"], parameters["shift"]
    for item in range(len(x)):
        order = list(positions(grid))
        real = [p for p in order if mask is None or mask[item][p]]
        normed, gates, queries, keys, values = {}, {}, {}, {}, {}
        for p in order:
            centred = x[item][p] - x[item][p].mean()
            normed[p] = centred / (centred.square().mean() + 1e-5).sqrt() * parameters["norm.weight"]
            normed[p] = normed[p] + parameters["norm.bias"]
            values[p] = F.silu(linear(parameters, "value", normed[p]))
        read = torch.stack([normed[p] if p in real else torch.zeros(DIM, dtype=torch.float64) for p in order])
        averaged = naive_average(parameters, read.reshape(*grid, DIM))
        for p in order:
            moved = F.silu(averaged[p] + parameters["average.omega"] * normed[p])
            gates[p] = linear(parameters, "gates", moved)
            shared = F.silu(gates[p][DIM : DIM + z])
            queries[p], keys[p] = shared * scale[0] + shift[0], shared * scale[1] + shift[1]
        for p in order:
            chunk = mixer.chunk
            near = [k for k in real if not chunk or all(a // chunk == b // chunk for a, b in zip(p, k, strict=True))]
            logits = [queries[p] @ keys[k] for k in near]
            biases = [offset_bias(mixer, parameters, p, k) for k in near]
            if isinstance(mixer, Mega):
                weights = softmax([s / math.sqrt(z) + b for s, b in zip(logits, biases, strict=True)])
            else:
                erf = [
                    torch.erf((s / len(near) + b - MU) / (SIGMA * 2**0.5)) for s, b in zip(logits, biases, strict=True)
                ]
                weights = [(1 + e) / 2 for e in erf]
            attended = torch.zeros(v, dtype=torch.float64)
            for weight, k in zip(weights, near, strict=True):
                attended = attended + weight * values[k]
            update, reset, hidden = gates[p][:DIM].sigmoid(), F.silu(gates[p][DIM + z : DIM + z + v]), gates[p][-DIM:]
            candidate = F.silu(hidden + linear(parameters, "attended", attended * reset))
            rows.append(update * (candidate - x[item][p]))
    return torch.stack(rows).reshape(x.shape)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("grid", [(5,), (2, 3), (2, 1, 2)], ids=str)
def test_equals_loops(form: type[GatedAveraging], options: dict[str, Any], grid: tuple[int, ...]) -> None:
    mixer = randomised(form(DIM, grid, **SMALL, **options))
    for mask in (None, random_mask(1, *grid)):
        inputs = {"x": tensor(1, *grid, DIM), "mask": mask}
        assert_equals_naive(mixer, lambda parameters, **kwargs: naive_mixer(mixer, parameters, **kwargs), inputs)


@pytest.mark.parametrize("form", FORMS)
def test_a_map_smaller_than_a_chunk_is_one_chunk(form: type[GatedAveraging]) -> None:
    mixer = randomised(form(DIM, chunk=4, **SMALL))
    x, mask = tensor(1, 2, 3, DIM), torch.ones(1, 5, 6, dtype=torch.bool)
    mask[:, 2:], mask[:, :, 3:] = False, False
    padded = F.pad(x, (0, 0, 0, 3, 0, 3))
    torch.testing.assert_close(mixer(x), mixer(padded, mask=mask)[:, :2, :3], rtol=0, atol=1e-12)


def test_the_table_at_another_resolution_keeps_its_middle_and_its_sides() -> None:
    mixer = Mega(DIM, (4, 5), **SMALL).double()
    offsets = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None].expand(7, 9)  # rises from query to key, downwards
    with torch.no_grad():
        mixer.bias.copy_(offsets)
    for grid in ((4, 5), (8, 10), (3, 3)):
        bias = mixer.offset_bias(grid).view(*grid, *grid)
        assert bias[0, 0, 0, 0].abs() < 1e-12
        assert bias[0, 0, -1, 0] > 0.7
        assert bias[-1, 0, 0, 0] < -0.7


def test_the_rotary_bias_depends_on_the_offset_alone() -> None:
    mixer = randomised(Mega(DIM, rotary=True, **SMALL))
    bias = mixer.offset_bias((4, 5)).view(4, 5, 4, 5)
    torch.testing.assert_close(bias[1:, 2:, 1:, 2:], bias[:-1, :-2, :-1, :-2], rtol=0, atol=1e-12)
    torch.testing.assert_close(mixer.offset_bias((2, 3)).view(2, 3, 2, 3), bias[:2, :3, :2, :3], rtol=0, atol=1e-12)


def test_an_average_that_decays_at_once_is_the_map_itself() -> None:
    kernel = ema_kernel(torch.ones(2, 1), torch.zeros(2, 1, requires_grad=True), 5)
    torch.testing.assert_close(kernel, torch.tensor([[1.0, 0, 0, 0, 0]] * 2))
    x = torch.randn(3, 5, 2)
    torch.testing.assert_close(moving_average(x, kernel), x)
    saturated = Mega(DIM, (2, 3), **SMALL)
    with torch.no_grad():
        saturated.average.alpha.fill_(200.0)
        saturated.average.delta.fill_(200.0)
    saturated(torch.randn(1, 2, 3, DIM)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in saturated.parameters())


def test_one_direction_sees_nothing_of_what_comes() -> None:
    past = ema_kernel(tensor(2, 3), tensor(2, 3, seed=1).sigmoid(), 7)
    x, changed = tensor(1, 7, 2), tensor(1, 7, 2)
    changed[:, 4:] += 1e3
    one, other = moving_average(x, past), moving_average(changed, past)
    torch.testing.assert_close(one[:, :4], other[:, :4], rtol=0, atol=1e-10)  # an FFT spreads its rounding
    assert not torch.allclose(one[:, 4:], other[:, 4:])


def test_laplace_weights_of_hidden_keys_are_nothing() -> None:
    q, k, v = (tensor(2, 5, 4, seed=seed) for seed in range(3))
    hidden = torch.tensor([[False, True, False, True, True]])
    torch.testing.assert_close(
        laplace_attention(q, k, v, None, hidden), laplace_attention(q, k[:, ::2][:, :2], v[:, ::2][:, :2])
    )
    assert (laplace_attention(q, k, v, None, torch.ones_like(hidden)) == 0).all()
    assert laplace(torch.tensor(0.707107)) == 0.5


def averaged(params: dict[str, Tensor], x: Tensor, bidirectional: bool) -> Tensor:
    """The official average before its activation, of parameters [C or 2 C, n, ..] and x [L, B, C].

    At that commit the names of alpha and delta are exchanged.
    """
    alpha, delta, beta = (params[name][..., 0] for name in ("delta", "alpha", "beta"))
    share = alpha.sigmoid()
    weights = share * beta * params["gamma"] / math.sqrt(alpha.shape[1])
    kernels = ema_kernel(weights, 1 - share * delta.sigmoid(), len(x)).chunk(2 if bidirectional else 1)
    return moving_average(x, *kernels, axis=0) + params["omega"] * x


@pytest.mark.parametrize("case", golden("attention", "mega_ema"))
def test_golden_average(case: Golden) -> None:
    inputs, params = case.leaves("in"), case.leaves("param")
    out = F.silu(averaged(params, inputs["x"], case.kwargs.get("bidirectional", False)))
    assert_golden(case, out, inputs, params, tol=1e-10)


class MegaSquaredReLU(GatedAveraging):
    """The official layer's third activation, of which there is no mechanism here."""

    def weigh(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, hidden: Tensor | None) -> Tensor:
        return (q @ k.mT / k.shape[-2] + bias).relu().square() @ v


ACTIVATIONS: dict[str, type[GatedAveraging]] = {"softmax": Mega, "laplace": MegaLaplace, "relu2": MegaSquaredReLU}


@pytest.mark.parametrize("case", golden("attention", "mega_gated_attn"))
def test_golden_gated_attention(case: Golden) -> None:
    """The official layer with its residual, through the mixer; one direction is two, of which one averages nothing."""
    inputs, params, kwargs = case.leaves("in"), case.leaves("param"), case.kwargs
    tokens, dim, rotary = len(inputs["x"]), kwargs["embed"], kwargs.get("rel_pos_bias", "simple") == "rotary"
    directions = 2 if kwargs.get("bidirectional", False) else 1
    chunk = kwargs.get("chunk_size", -1)
    mixer = ACTIVATIONS[kwargs.get("attention_activation", "softmax")](
        dim,
        (tokens,),
        key_dim=kwargs["zdim"],
        value_dim=kwargs["hdim"],
        averages=kwargs["ndim"],
        chunk=chunk if chunk > 0 else None,
        rotary=rotary,
    )
    names = {"norm": "norm.norm", "value": "v_proj", "gates": "mx_proj", "attended": "h_proj"}
    state = {f"{ours}.{k}": params[f"{theirs}.{k}"] for ours, theirs in names.items() for k in ("weight", "bias")}
    state |= {"scale": params["gamma"], "shift": params["beta"], "average.omega": params["move.omega"]}
    for ours, theirs in (("alpha", "delta"), ("delta", "alpha"), ("beta", "beta"), ("gamma", "gamma")):
        given = params[f"move.{theirs}"].view(1, directions, dim, kwargs["ndim"])
        state[f"average.{ours}"] = torch.cat([given, given.new_zeros(1, 2 - directions, *given.shape[2:])], dim=1)
    if rotary:
        state["turned"] = torch.stack([params["rel_pos_bias.alpha"], params["rel_pos_bias.beta"]])
    else:
        table = params["rel_pos_bias.rel_pos_bias"]  # as long as max_positions wants; a shorter line has its middle
        extent = tokens if chunk < 0 else chunk
        state["bias"] = table[(len(table) + 1) // 2 - extent :][: 2 * extent - 1]
    x = inputs["x"].transpose(0, 1)
    out = (x + functional_call(mixer, state, (x,), strict=True)).transpose(0, 1)
    # The rotary form's angles are float32 in the reference.
    assert_golden(case, out, inputs, params, tol=1e-6 if rotary else 1e-10)


def bucketed_bias(table: Tensor, tokens: int, width: int, causal: bool) -> Tensor:
    """T5's bias as lucidrains has it, [N, N]: near offsets one by one, far ones in logarithmic buckets, up to 128."""
    buckets, rows = len(table), []
    for i in range(tokens):
        row = []
        for j in range(tokens):
            distance = max(i - j, 0) if causal else abs(i - j)
            count = buckets if causal else buckets // 2
            first = 0 if causal or j <= i else count
            exact = count // 2
            if distance >= exact:
                far = math.log(distance / exact) / math.log(128 / exact) * (count - exact)
                distance = min(exact + int(far), count - 1)
            row.append(table[first + distance, 0])
        rows.append(torch.stack(row))
    return torch.stack(rows) * math.sqrt(width)


@pytest.mark.parametrize("case", golden("attention", "mega_lucid"))
def test_golden_lucidrains(case: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its average has one decay for all channels of a head and no direct path; its logits are scaled by the width."""
    inputs, params, kwargs = case.leaves("in"), case.leaves("param"), case.kwargs
    x, causal, dim, z = inputs["x"], kwargs.get("causal", True), kwargs.get("dim", 128), kwargs.get("attn_dim_qk", 64)

    def layer(name: str, x: Tensor) -> Tensor:
        return F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])

    kernels = []
    heads = kwargs.get("ema_heads", 16)
    for number, prefix in enumerate(("", "reverse_") if not causal else ("",)):
        share = params[f"multi_headed_ema.{prefix}alphas"].sigmoid()
        decay = (1 - share) * params[f"multi_headed_ema.{prefix}dampen_factors"].sigmoid()
        rows = slice(number * heads, (number + 1) * heads)
        both = params["multi_headed_ema.expansion"][rows] * params["multi_headed_ema.reduction"][rows]
        kernels.append(ema_kernel((both * share[:, None]).mT, decay.expand(dim, -1), x.shape[1]))
    moved = moving_average(x, *kernels)
    attn = "single_headed_attn"
    shared = F.silu(layer(f"{attn}.to_qk.0", moved))
    q, k = (shared * params[f"{attn}.offsetscale.gamma"][n] + params[f"{attn}.offsetscale.beta"][n] for n in range(2))
    v = F.silu(layer(f"{attn}.to_v.0", x))
    bias = bucketed_bias(params[f"{attn}.rel_pos_bias.relative_attention_bias.weight"], x.shape[1], z, causal)
    if kwargs.get("laplacian_attn_fn", False):
        assert not causal
        # Its Laplace function has mu and sigma in full, ours the official code's six digits.
        monkeypatch.setattr("visionattn.ops.laplace_attention._MEAN", math.sqrt(1 / 2))
        monkeypatch.setattr("visionattn.ops.laplace_attention._DEVIATION", math.sqrt(1 / (4 * math.pi)))
        seen = laplace_attention(q, k, v, bias)
    else:
        scaled = q * dim**-0.5
        future = torch.ones_like(bias, dtype=torch.bool).triu(1) if causal else torch.zeros_like(bias, dtype=torch.bool)
        seen = (scaled @ k.mT + bias).masked_fill(future, -torch.inf).softmax(dim=-1) @ v
    reset, update = F.silu(layer("to_reset_gate.0", moved)), layer("to_update_gate.0", moved).sigmoid()
    candidate = F.silu(moved @ params["Wh"] + (seen * reset) @ params["Uh"] + params["bh"])
    out = update * candidate + (1 - update) * x
    assert_golden(case, out, inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"MegaLaplace learns a bias .* grid=\(32, 32\), or chunk=16, or rotary=True"):
        MegaLaplace(DIM)
    with pytest.raises(ValueError, match="key_dim=5 must be even where the bias is rotary, such as 6"):
        Mega(DIM, rotary=True, key_dim=5)
    with pytest.raises(ValueError, match="chunk=0 must be 1 or more, or None"):
        Mega(DIM, (3, 3), chunk=0)
    with pytest.raises(ValueError, match="averages=0 must be 1 or more"):
        Mega(DIM, (3, 3), averages=0)
    with pytest.raises(ValueError, match=r"Mega expects x of shape \[B, H, W, 3\]"):
        Mega(DIM, (3, 3))(torch.zeros(1, 9, DIM))
