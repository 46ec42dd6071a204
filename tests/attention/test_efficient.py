"""Efficient attention against plain loops and the golden vectors of its author, of lucidrains and of the equation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call

from visionattn.attention.base import QKVAttention
from visionattn.attention.efficient import EfficientAttention, ScaledEfficientAttention
from visionattn.ops.efficient_attention import efficient_attention, scaled_efficient_attention

DIM = 6
GRIDS = ((7,), (3, 5), (2, 3, 2))
CONTEXT_GRIDS = {1: (5,), 2: (4, 2), 3: (2, 2, 3)}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"num_heads": 2},
    {"num_heads": 2, "key_dim": 4, "value_dim": 8, "qkv_bias": False},
)
SOFTMAX_OPTIONS = (*OPTIONS, {"temperature": 1.7, "num_heads": 3}, {"normalize_queries": False, "temperature": 1.3})

every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def split_heads(mixer: QKVAttention, token: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """q, k, v of one projected token, each by head."""
    q, k, v = token.split([mixer.key_dim, mixer.key_dim, mixer.value_dim])
    return tuple(list(part.chunk(mixer.num_heads)) for part in (q, k, v))  # type: ignore[return-value]


def naive_attention(
    mixer: EfficientAttention | ScaledEfficientAttention,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    """Every token, head and channel in turn; masked keys are not even read."""
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    attend = softmax_head if isinstance(mixer, EfficientAttention) else scaled_head
    rows = []
    for item in range(len(x)):
        queries = [linear(parameters, "qkv", x[item][place]) for place in positions(tuple(x.shape[1:-1]))]
        keys = [
            linear(parameters, "qkv", source[item][place])
            for place in positions(tuple(source.shape[1:-1]))
            if source_mask is None or source_mask[item][place]
        ]
        heads = []
        for head in range(mixer.num_heads):
            q = [split_heads(mixer, token)[0][head] for token in queries]
            k = [split_heads(mixer, token)[1][head] for token in keys]
            v = [split_heads(mixer, token)[2][head] for token in keys]
            heads.append(attend(mixer, q, k, v))
        rows += [linear(parameters, "proj", torch.cat(parts)) for parts in zip(*heads, strict=True)]
    return torch.stack(rows).reshape(x.shape)


def softmax_head(mixer: EfficientAttention, q: list[Tensor], k: list[Tensor], v: list[Tensor]) -> list[Tensor]:
    """rho_q(Q) (rho_k(K)^T V), channel by channel: each key channel has one context vector."""
    contexts = []
    for channel in range(len(q[0])):
        weights = softmax([key[channel] / mixer.temperature for key in k])
        contexts.append(sum(weight * value for weight, value in zip(weights, v, strict=True)))
    out = []
    for query in q:
        logits = [query[channel] / mixer.temperature for channel in range(len(query))]
        shares = softmax(logits) if mixer.normalize_queries else logits
        out.append(sum(share * context for share, context in zip(shares, contexts, strict=True)))
    return out


def scaled_head(mixer: ScaledEfficientAttention, q: list[Tensor], k: list[Tensor], v: list[Tensor]) -> list[Tensor]:
    """(Q K^T) V / n: the dot-product form, token by token."""
    scale = 1 / len(k) if mixer.scale is None else mixer.scale
    return [scale * sum((query @ key) * value for key, value in zip(k, v, strict=True)) for query in q]


def check(mixer: EfficientAttention | ScaledEfficientAttention, **inputs: Tensor | None) -> None:
    def naive(parameters: Parameters, **kwargs: Tensor | None) -> Tensor:
        return naive_attention(mixer, parameters, **kwargs)

    assert_equals_naive(mixer, naive, inputs)


@every_grid
@pytest.mark.parametrize("options", SOFTMAX_OPTIONS, ids=str)
def test_softmax_normalisation_equals_loops(options: dict[str, Any], grid: tuple[int, ...]) -> None:
    check(randomised(EfficientAttention(DIM, **options)), x=tensor(2, *grid, DIM))


@every_grid
@pytest.mark.parametrize("options", [*OPTIONS, {"scale": 0.25}], ids=str)
def test_scaling_normalisation_equals_loops(options: dict[str, Any], grid: tuple[int, ...]) -> None:
    check(randomised(ScaledEfficientAttention(DIM, **options)), x=tensor(2, *grid, DIM))


@every_grid
@pytest.mark.parametrize("form", [EfficientAttention, ScaledEfficientAttention])
def test_masked_and_cross_equal_loops(form: type[QKVAttention], grid: tuple[int, ...]) -> None:
    mixer = randomised(form(DIM, num_heads=2, key_dim=4))
    other = CONTEXT_GRIDS[len(grid)]
    x, context = tensor(2, *grid, DIM), tensor(2, *other, DIM, seed=1)
    check(mixer, x=x, mask=random_mask(2, *grid))
    check(mixer, x=x, context=context)
    check(mixer, x=x, context=context, context_mask=random_mask(2, *other, seed=2))


@pytest.mark.parametrize("masked", [False, True])
def test_scaling_equals_the_quadratic_form(masked: bool) -> None:
    """Q (K^T V) / n is (Q K^T / n) V, the dot-product non-local operation."""
    mixer = randomised(ScaledEfficientAttention(DIM, num_heads=2))
    q, k, v = tensor(2, 2, 15, 3), tensor(2, 2, 20, 3, seed=1), tensor(2, 2, 20, 3, seed=2)
    mask = random_mask(2, 20) if masked else torch.ones(2, 20, dtype=torch.bool)
    weights = (q @ k.mT) * mask[:, None, None] / mask.sum(1)[:, None, None, None]
    out = mixer.attend(q, k, v, (3, 5), (4, 5), mask if masked else None)
    torch.testing.assert_close(out, weights @ v, rtol=1e-12, atol=1e-12)


def conv_state(leaves: dict[str, Tensor], q: str, k: str, v: str, out: str) -> dict[str, Tensor]:
    """Our qkv and proj, made of a reference's 1 x 1 convolutions so that gradients reach those."""
    state = {}
    for key in ("weight", "bias"):
        state[f"qkv.{key}"] = torch.cat([leaves[f"{name}.{key}"] for name in (q, k, v)])
        state[f"proj.{key}"] = leaves[f"{out}.{key}"]
    return {key: t.flatten(1) if t.dim() > 1 else t for key, t in state.items()}


@pytest.mark.parametrize("case", golden("attention", "efficient_attention"))
def test_golden(case: Golden) -> None:
    names = ("in_channels", "key_channels", "head_count", "value_channels")
    sizes = dict(zip(names, case.args, strict=False)) | case.kwargs
    mixer = EfficientAttention(
        sizes["in_channels"],
        num_heads=sizes["head_count"],
        key_dim=sizes["key_channels"],
        value_dim=sizes["value_channels"],
    )
    inputs, params = case.leaves("in"), case.leaves("param")
    state = conv_state(params, "queries", "keys", "values", "reprojection")
    x = inputs["input_"].movedim(1, -1)
    out = x + functional_call(mixer, state, (x,), strict=True)
    assert_golden(case, out.movedim(-1, 1), inputs, params, tol=1e-10)


@pytest.mark.parametrize("case", golden("attention", "image_linear_attention"))
def test_golden_image_linear_attention(case: Golden) -> None:
    """lucidrains divides q and k by d ** 0.25 before their softmax, but not the keys of a context."""
    channels, key_dim, value_dim = case.args
    heads = case.kwargs.get("heads", 8)
    mixer = EfficientAttention(
        channels,
        num_heads=heads,
        key_dim=heads * key_dim,
        value_dim=heads * value_dim,
        temperature=key_dim**0.25,
        normalize_queries=case.kwargs.get("norm_queries", True),
    )
    inputs, params = case.leaves("in"), case.leaves("param")
    state = conv_state(params, "to_q", "to_k", "to_v", "to_out")
    x = inputs["x"].movedim(1, -1)
    if "context" in inputs:
        grid = tuple(x.shape[1:-1])
        context = inputs["context"].movedim(1, -1)
        joint = torch.cat([x.flatten(1, -2), context.flatten(1, -2)], dim=1) @ state["qkv.weight"].mT
        q, k, v = (joint + state["qkv.bias"]).split([mixer.key_dim, mixer.key_dim, mixer.value_dim], dim=-1)
        n = x.flatten(1, -2).shape[1]
        k = torch.cat([k[:, :n], k[:, n:] * mixer.temperature], dim=1)
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q[:, :n], k, v))
        attended = mixer.attend(q, k, v, grid, (k.shape[2],)).transpose(1, 2).flatten(2)
        out = (attended @ state["proj.weight"].mT + state["proj.bias"]).reshape(x.shape)
    else:
        out = functional_call(mixer, state, (x,), strict=True)
    assert_golden(case, out.movedim(-1, 1), inputs, params, tol=1e-10)


@pytest.mark.parametrize(
    "case", golden("attention", "derived_efficient_attention", lambda row: not row["kwargs"].get("causal", False))
)
def test_golden_derived(case: Golden) -> None:
    heads = case.kwargs["heads"]
    inputs, params = case.leaves("in"), case.leaves("param")
    form = {"softmax": EfficientAttention, "scaling": ScaledEfficientAttention}[case.kwargs["normalization"]]
    if "q" in inputs:
        attend = {EfficientAttention: efficient_attention, ScaledEfficientAttention: scaled_efficient_attention}[form]
        q, k, v = (inputs[name].unflatten(-1, (heads, -1)).transpose(1, 2) for name in "qkv")
        out = attend(q, k, v).transpose(1, 2).flatten(2)
    else:
        x = inputs["x"].movedim(1, -1)
        state = conv_state(params, "queries", "keys", "values", "reprojection")
        key_dim, value_dim = len(params["keys.bias"]), len(params["values.bias"])
        mixer = form(x.shape[-1], num_heads=heads, key_dim=key_dim, value_dim=value_dim)
        out = (x + functional_call(mixer, state, (x,), strict=True)).movedim(-1, 1)
    assert_golden(case, out, inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="num_heads=4 does not divide dim=6; use 1, 2, 3 or 6"):
        EfficientAttention(DIM, num_heads=4)
    with pytest.raises(ValueError, match="num_heads=2 does not divide value_dim=5; use 1 or 5"):
        EfficientAttention(DIM, num_heads=2, value_dim=5)
    with pytest.raises(ValueError, match=r"temperature=0\.0 must be positive; 1\.0 is the paper's form"):
        EfficientAttention(DIM, temperature=0.0)
    with pytest.raises(ValueError, match=r"proj_drop=1\.5 is no probability"):
        ScaledEfficientAttention(DIM, proj_drop=1.5)


@pytest.mark.parametrize(
    ("options", "dim"), [({"num_heads": "8"}, 64), ({"num_heads": 8.0}, 64), ({"key_dim": "x"}, 64), ({}, 64.0)]
)
def test_what_is_no_whole_number_is_named(options: dict[str, object], dim: int) -> None:
    name, value = next(iter(options.items()), ("dim", dim))
    with pytest.raises(TypeError, match=f"^{name}={value!r} is no whole number"):
        EfficientAttention(dim, **options)  # type: ignore[arg-type]
