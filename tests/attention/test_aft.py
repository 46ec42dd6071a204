"""Attention-free transformers: the one equation of all forms in loops, golden vectors of public copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, tensor
from torch import Tensor
from torch.func import functional_call

from visionattn.attention.aft import AFTConv, AFTFull, AFTLocal, AFTSimple, GatedGathering
from visionattn.ops.aft import aft_simple, causal_aft_simple

DIM = 6
FORMS: list[tuple[type[GatedGathering], dict[str, Any]]] = [
    (AFTSimple, {}),
    (AFTSimple, {"hidden_dim": 4, "qkv_bias": False}),
    (AFTFull, {"bias_dim": 3}),
    (AFTLocal, {"bias_dim": 3, "window": 2}),
    (AFTLocal, {"bias_dim": 2, "window": 9, "hidden_dim": 4}),
    (AFTConv, {"num_heads": 2, "kernel_size": 3}),
    (AFTConv, {"num_heads": 3, "kernel_size": 5, "key_per_head": False, "reparametrize": False}),
]
every_form = pytest.mark.parametrize(("form", "options"), FORMS, ids=[f"{f.__name__}-{o}" for f, o in FORMS])


def pair_bias(
    mixer: GatedGathering, parameters: Parameters, head: int, t: tuple[int, ...], j: tuple[int, ...]
) -> Tensor | float:
    """w_tj."""
    if isinstance(mixer, AFTConv):
        kernel = parameters["kernel"][head]
        reach = kernel.shape[0] // 2
        if max(abs(b - a) for a, b in zip(t, j, strict=True)) > reach:
            return 0.0
        if "gain" in parameters:
            mean = kernel.sum() / kernel.numel()
            std = (((kernel - mean) ** 2).sum() / kernel.numel()).sqrt()
            kernel = parameters["gain"][head] * (kernel - mean) / (std + 1e-5) + parameters["offset"][head]
        return kernel[tuple(b - a + reach for a, b in zip(t, j, strict=True))]
    if isinstance(mixer, AFTSimple):
        return 0.0
    if isinstance(mixer, AFTLocal) and max(abs(b - a) for a, b in zip(t, j, strict=True)) >= mixer.window:
        return 0.0
    return parameters["row_bias"][(slice(None), *t)] @ parameters["column_bias"][(slice(None), *j)]


def naive_mixer(
    mixer: GatedGathering,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    """Every query, channel and key in turn; padded keys are not even read."""
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    rows = []
    for item in range(len(x)):
        places = [p for p in positions(tuple(source.shape[1:-1])) if source_mask is None or source_mask[item][p]]
        projected = {p: linear(parameters, "qkv", source[item][p]).split(mixer.widths) for p in places}
        for t in positions(tuple(x.shape[1:-1])):
            query = linear(parameters, "qkv", x[item][t])[: mixer.hidden_dim]
            gathered = []
            for channel in range(mixer.hidden_dim):
                heads = mixer.kernel.shape[0] if isinstance(mixer, AFTConv) else 1
                head = channel * heads // mixer.hidden_dim
                key = channel if mixer.widths[1] == mixer.hidden_dim else head
                weights = [(projected[j][1][key] + pair_bias(mixer, parameters, head, t, j)).exp() for j in places]
                values = [projected[j][2][channel] for j in places]
                gathered.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
            rows.append(linear(parameters, "proj", query.sigmoid() * torch.stack(gathered)))
    return torch.stack(rows).reshape(x.shape)


def check(mixer: GatedGathering, **inputs: Tensor | None) -> None:
    assert_equals_naive(mixer, lambda parameters, **kwargs: naive_mixer(mixer, parameters, **kwargs), inputs)


@every_form
@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 2, 3)], ids=str)
def test_equals_loops(form: type[GatedGathering], options: dict[str, Any], grid: tuple[int, ...]) -> None:
    check(randomised(form(DIM, grid, **options)), x=tensor(2, *grid, DIM))


@every_form
def test_masked_equals_loops(form: type[GatedGathering], options: dict[str, Any]) -> None:
    check(randomised(form(DIM, (3, 4), **options)), x=tensor(2, 3, 4, DIM), mask=random_mask(2, 3, 4))


@pytest.mark.parametrize("form", [AFTSimple, AFTFull])
def test_cross_equals_loops(form: type[GatedGathering]) -> None:
    mixer = randomised(form(DIM, (2, 3), **({"bias_dim": 2} if form is AFTFull else {})))
    check(mixer, x=tensor(2, 2, 3, DIM), context=tensor(2, 2, 3, DIM, seed=1), context_mask=random_mask(2, 2, 3))


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 2, 3)], ids=str)
@every_form
def test_another_map_of_the_same_grid_equals_loops(
    form: type[GatedGathering], options: dict[str, Any], grid: tuple[int, ...]
) -> None:
    mixer, maps = randomised(form(DIM, grid, **options)), [tensor(2, *grid, DIM, seed=seed) for seed in (0, 1)]
    check(mixer, x=maps[0], context=maps[1])
    check(mixer, x=maps[0], context=maps[1], context_mask=random_mask(2, *grid))


def test_the_convolutional_form_starts_as_the_simple_one() -> None:
    conv = AFTConv(DIM, num_heads=2, kernel_size=3, key_per_head=False).double()
    simple = AFTSimple(DIM).double()
    simple.load_state_dict({name: t for name, t in conv.state_dict().items() if name in simple.state_dict()})
    x = tensor(2, 4, 5, DIM)
    torch.testing.assert_close(conv(x), simple(x))


def test_large_keys_do_not_overflow() -> None:
    """The references take exp of the keys as they are, which is too much from 89 on."""
    k, v = tensor(1, 9, 4).float() * 300, tensor(1, 9, 4, seed=1).float()
    wanted = (k.double().softmax(1) * v).sum(1, keepdim=True).float()
    torch.testing.assert_close(aft_simple(k, v), wanted)
    causal = causal_aft_simple(k, v)
    for n in range(9):
        expected = (k[:, : n + 1].double().softmax(1) * v[:, : n + 1]).sum(1).float()
        torch.testing.assert_close(causal[:, n], expected)


@pytest.mark.parametrize("tokens", [1, 9, 64, 65, 150, 4200])
def test_the_causal_simple_form_equals_running_sums(tokens: int) -> None:
    """In one chunk of 64, in several, and in more of them than one chunk has tokens."""
    k, v = (tensor(2, tokens, 3, seed=seed).requires_grad_() for seed in (0, 1))
    out, wanted = causal_aft_simple(k, v), (k.exp() * v).cumsum(1) / k.exp().cumsum(1)
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
    w = tensor(*out.shape, seed=5)
    grads, expected = (torch.autograd.grad((t * w).sum(), (k, v)) for t in (out, wanted))
    torch.testing.assert_close(grads, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("falling", [False, True])
def test_the_causal_simple_form_is_finite_where_keys_differ_by_hundreds(falling: bool) -> None:
    k, v = (tensor(1, 150, 3, seed=seed).float() for seed in (0, 1))
    slope = torch.linspace(1, 300, 150)
    k = ((slope.flip(0) if falling else slope)[:, None] + k).requires_grad_()
    (gradient,) = torch.autograd.grad(causal_aft_simple(k, v).square().sum(), k)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("place", [1, 4, 63, 64, 149])
def test_a_later_token_changes_nothing_before_it(place: int) -> None:
    k, v = tensor(2, 150, 4), tensor(2, 150, 4, seed=1)
    before = causal_aft_simple(k, v)
    k[:, place:] += 50
    v[:, place:] *= -2
    after = causal_aft_simple(k, v)
    assert torch.equal(after[:, :place], before[:, :place])
    assert not torch.allclose(after[:, place:], before[:, place:])


def our_state(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """qkv and proj of a reference's separate layers, linked to its leaves."""
    state = {}
    for key in ("weight", "bias"):
        if f"to_q.{key}" in params:
            state[f"qkv.{key}"] = torch.cat([params[f"to_{name}.{key}"] for name in "qkv"])
            state[f"proj.{key}"] = params[f"project.{key}"]
    if not state:  # written from the equation: no biases
        state["qkv.weight"] = torch.cat([params[f"{name}.weight"] for name in "qkv"])
        width = len(params["v.weight"])
        state["proj.weight"] = params.get("out.weight", torch.eye(width, dtype=torch.float64))
        state["proj.bias"] = torch.zeros(len(state["proj.weight"]), dtype=torch.float64)
    return state


@pytest.mark.parametrize("case", [*golden("attention", "aft_full"), *golden("attention", "aft_local")])
def test_golden_pairwise(case: Golden) -> None:
    """A whole matrix w is the product of itself and the identity."""
    inputs, params = case.leaves("in"), case.leaves("param")
    tokens = inputs["x"].shape[1]
    bias = params["wbias"][:tokens, :tokens]
    factors = {"row_bias": bias.mT, "column_bias": torch.eye(len(bias), dtype=torch.float64)}
    hidden = len(params["to_q.bias"])
    grid, dim = (len(bias),), inputs["x"].shape[-1]
    mixer: GatedGathering
    if case.row["cls"] == "AFTLocal":
        mixer = AFTLocal(dim, grid, window=case.kwargs.get("s", 256), bias_dim=len(bias), hidden_dim=hidden)
    else:
        mixer = AFTFull(dim, grid, bias_dim=len(bias), hidden_dim=hidden)
    out = functional_call(mixer, our_state(params) | factors, (inputs["x"],), strict=True)
    assert_golden(case, out, inputs, params, tol=1e-10)


def idiaps_cumulative(k: Tensor, v: Tensor) -> Tensor:
    """idiap's causal form leaves each key's share as it was when the key came: shares that do not sum to 1.

    A fault that ours does not have; of our attention matrix it takes the diagonal.
    """
    batch, tokens, channels = k.shape
    keys = k.mT.reshape(batch * channels, tokens, 1).expand(-1, -1, tokens)
    matrix = causal_aft_simple(keys, torch.eye(tokens, dtype=k.dtype).expand_as(keys))
    shares = matrix.diagonal(dim1=1, dim2=2).reshape(batch, channels, tokens).mT
    return (shares * v).cumsum(dim=1)


@pytest.mark.parametrize("case", golden("attention", "aft_simple"))
def test_golden_simple(case: Golden) -> None:
    inputs, params = case.leaves("in"), case.leaves("param")
    if params:
        mixer = AFTSimple(inputs["x"].shape[-1], hidden_dim=len(params["to_q.bias"]))
        out = functional_call(mixer, our_state(params), (inputs["x"],), strict=True)
    else:
        q, k, v = (inputs[name].flatten(2) for name in "qkv")
        gathered = idiaps_cumulative(k, v) if case.kwargs.get("causal", False) else aft_simple(k, v)
        out = (q.sigmoid() * gathered).view(inputs["q"].shape)
    assert_golden(case, out, inputs, params, tol=1e-10)


@pytest.mark.parametrize("case", golden("attention", "derived_aft_conv"))
def test_golden_conv(case: Golden) -> None:
    inputs, params, kwargs = case.leaves("in"), case.leaves("param"), case.kwargs
    x = inputs["x"].movedim(1, -1)
    mixer = AFTConv(
        x.shape[-1],
        num_heads=kwargs["heads"],
        kernel_size=kwargs["kernel_size"],
        key_per_head=kwargs["key_per_head"],
        reparametrize=kwargs["reparametrised"],
        qkv_bias=False,
    )
    state = our_state(params)
    if kwargs["reparametrised"]:
        state |= {"kernel": params["w_raw"], "gain": params["gamma"], "offset": params["beta"]}
    else:
        state |= {"kernel": params["w"]}
    out = functional_call(mixer, state, (x,), strict=True)
    assert_golden(case, out.movedim(-1, 1), inputs, params, tol=1e-10)


@pytest.mark.parametrize("case", golden("attention", "derived_aft_local2d"))
def test_golden_local_on_a_map(case: Golden) -> None:
    inputs, params = case.leaves("in"), case.leaves("param")
    x = inputs["x"].movedim(1, -1)
    grid = tuple(x.shape[1:-1])
    width = params["u"].shape[1]
    mixer = AFTLocal(x.shape[-1], grid, window=case.kwargs["window"], bias_dim=width, qkv_bias=False)
    factors = {name: params[key].mT.reshape(width, *grid) for name, key in (("row_bias", "u"), ("column_bias", "vv"))}
    out = functional_call(mixer, our_state(params) | factors, (x,), strict=True)
    assert_golden(case, out.movedim(-1, 1), inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"AFTFull learns a bias for every position: give it a grid"):
        AFTFull(DIM)
    with pytest.raises(ValueError, match="kernel_size=4 must be odd, such as 5"):
        AFTConv(DIM, num_heads=2, kernel_size=4)
    with pytest.raises(ValueError, match="num_heads=4 does not divide dim=6; use 1, 2, 3 or 6"):
        AFTConv(DIM)
    with pytest.raises(ValueError, match="window=0 must be 1 or more"):
        AFTLocal(DIM, (3, 3), window=0)
    with pytest.raises(ValueError, match=r"AFTFull expects x of shape \[B, H, W, 6\]"):
        AFTFull(DIM, (3, 3))(torch.zeros(1, 9, DIM))
