"""Performers: loops, the softmax kernel that FAVOR+ estimates, golden vectors of lucidrains and idiap."""

from __future__ import annotations

import math

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, tensor
from torch import Tensor
from torch.nn import functional as F

from visionattn.attention.performer import Performer, PerformerReLU
from visionattn.ops.causal_attention import causal_feature_attention
from visionattn.ops.efficient_attention import efficient_attention
from visionattn.ops.feature_attention import (
    favor_exponents,
    favor_key_features,
    favor_query_features,
    hyperbolic_features,
    orthogonal_projection,
    relu_features,
)

DIM = 6


def features(mixer: Performer, x: Tensor, largest: Tensor) -> Tensor:
    """Of one head of one token [D], feature by feature."""
    scaled = x / len(x) ** 0.25
    along = [row.double() @ scaled for row in mixer.projection_matrix]
    if isinstance(mixer, PerformerReLU):
        return torch.stack([number.clamp(min=0) + 1e-3 for number in along])
    exponents = [number - (scaled @ scaled) / 2 for number in along]
    return torch.stack([((number - largest).exp() + 1e-4) / math.sqrt(len(along)) for number in exponents])


def largest_along(mixer: Performer, tokens: list[Tensor]) -> Tensor:
    along = [row.double() @ (x / len(x) ** 0.25) for x in tokens for row in mixer.projection_matrix]
    return torch.stack(along).max().detach()


def naive_attention(mixer: Performer, parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
    widths, rows = [mixer.key_dim, mixer.key_dim, mixer.value_dim], []
    for item in range(len(x)):
        places = list(positions(tuple(x.shape[1:-1])))
        tokens = [linear(parameters, "qkv", x[item][place]).split(widths) for place in places]
        real = [token for token, place in zip(tokens, places, strict=True) if mask is None or mask[item][place]]
        heads = []
        for head in range(mixer.num_heads):
            keys = [key.chunk(mixer.num_heads)[head] for _, key, _ in real]
            shared = largest_along(mixer, keys)
            answers = []
            for token in tokens:
                query = token[0].chunk(mixer.num_heads)[head]
                phi = features(mixer, query, largest_along(mixer, [query]))
                weights = [phi @ features(mixer, key, shared) for key in keys]
                values = [value.chunk(mixer.num_heads)[head] for _, _, value in real]
                answers.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
            heads.append(answers)
        rows += [linear(parameters, "proj", torch.cat(parts)) for parts in zip(*heads, strict=True)]
    return torch.stack(rows).reshape(x.shape)


@pytest.mark.parametrize("form", [Performer, PerformerReLU])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_loops(form: type[Performer], masked: bool) -> None:
    torch.manual_seed(0)
    mixer = randomised(form(DIM, num_heads=2, num_features=4))
    inputs = {"x": tensor(2, 2, 3, DIM)} | ({"mask": random_mask(2, 2, 3)} if masked else {})
    assert_equals_naive(mixer, lambda parameters, **kwargs: naive_attention(mixer, parameters, **kwargs), inputs)


def test_products_of_features_estimate_the_softmax_kernel() -> None:
    """exp(q . k / sqrt(D)) without bias: the mean over many draws, within its own spread."""
    q, k = tensor(1, 1, 1, 8, seed=1), tensor(1, 1, 1, 8, seed=2)
    estimates = []
    for seed in range(400):
        projection = orthogonal_projection(16, 8, torch.Generator().manual_seed(seed)).double()
        estimates.append((favor_exponents(q, projection).exp() * favor_exponents(k, projection).exp()).mean())
    found = torch.stack(estimates)
    wanted = (q.flatten() @ k.flatten() / math.sqrt(8)).exp()
    assert abs(found.mean() - wanted) < 3 * found.std() / math.sqrt(len(found))
    assert found.std() > 0.01


def test_more_features_come_nearer_to_softmax_attention() -> None:
    q, k, v = (tensor(1, 2, 20, 8, seed=seed) / 2 for seed in (1, 2, 3))
    wanted = F.scaled_dot_product_attention(q, k, v)
    errors = []
    for number in (8, 2048):
        torch.manual_seed(5)
        mixer = Performer(16, num_heads=2, num_features=number).double()
        errors.append((mixer.attend(q, k, v, (20,), (20,)) - wanted).abs().mean())
    assert errors[1] < errors[0] / 4


def test_rows_of_a_draw_are_orthogonal_in_blocks() -> None:
    projection = orthogonal_projection(10, 4, torch.Generator().manual_seed(3))
    assert projection.shape == (10, 4)
    for block in (projection[:4], projection[4:8], projection[8:]):
        gram = block @ block.mT
        torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-5)
    assert projection.norm(dim=1).std() > 0.1


def test_a_redraw_depends_on_the_generator_alone() -> None:
    first, second = Performer(16, num_heads=2), Performer(16, num_heads=2)
    assert not torch.equal(first.projection_matrix, second.projection_matrix)
    for mixer in (first, second):
        mixer.redraw(torch.Generator().manual_seed(7))
    assert torch.equal(first.projection_matrix, second.projection_matrix)
    assert first.num_features == int(8 * math.log(8))


@pytest.mark.parametrize("case", golden("attention", "performer"))
def test_golden(case: Golden) -> None:
    inputs, params, kwargs = case.leaves("in"), case.leaves("param"), case.kwargs
    buffers = case.group("buffer")
    if case.row["cls"] == "SelfAttention":
        heads, width = kwargs.get("heads", 8), kwargs.get("dim_head", 64)
        sources = {"q": inputs["x"]} | dict.fromkeys("kv", inputs.get("context", inputs["x"]))
        projected = (F.linear(x, params[f"to_{n}.weight"], params.get(f"to_{n}.bias")) for n, x in sources.items())
        q, k, v = (t.unflatten(-1, (heads, width)).transpose(1, 2) for t in projected)
        projection = buffers["fast_attention.projection_matrix"]
    else:
        (q, k, v), heads, width = (inputs[name] for name in "qkv"), inputs["q"].shape[1], kwargs["dim_heads"]
        projection = buffers["projection_matrix"]
    if kwargs.get("no_projection") and not kwargs.get("causal"):
        out = efficient_attention(q, k, v)
    elif kwargs.get("causal"):
        # The published form: one factor over all keys, 1e-6 on every feature's sum.
        if kwargs.get("no_projection"):
            phi_q, phi_k = q.softmax(dim=-1), k.exp()
        else:
            relu = kwargs.get("generalized_attention")
            ways = (relu_features,) * 2 if relu else (favor_query_features, favor_key_features)
            phi_q, phi_k = (way(t, projection.double()) for way, t in zip(ways, (q, k), strict=True))
        out = causal_feature_attention(phi_q, phi_k, v, feature_eps=1e-6)
    else:
        form = PerformerReLU if kwargs.get("generalized_attention") else Performer
        mixer = form(heads * width, num_heads=heads, num_features=len(projection)).double()
        mixer.projection_matrix.copy_(projection)
        out = mixer.attend(q, k, v, (q.shape[2],), (k.shape[2],))
    if case.row["cls"] == "SelfAttention":
        out = F.linear(out.transpose(1, 2).flatten(2), params["to_out.weight"], params.get("to_out.bias"))
    assert_golden(case, out, inputs, params, tol=1e-10)


@pytest.mark.parametrize("case", golden("attention", "favor_features"))
def test_golden_hyperbolic_features(case: Golden) -> None:
    inputs = case.leaves("in")
    projection = case.group("buffer")["omega"].double().mT
    x = inputs["x"].transpose(1, 2)
    temperature = case.kwargs.get("softmax_temp")
    if temperature is not None:  # ours is 1 / sqrt(D)
        x = x * (temperature * math.sqrt(x.shape[-1])) ** 0.5
    out = hyperbolic_features(x, projection, stabilised=case.kwargs.get("stabilize", False)).transpose(1, 2)
    assert_golden(case, out, inputs, {}, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="num_features=0 must be 1 or more"):
        Performer(16, num_features=0)
    with pytest.raises(TypeError, match=r"redraw_interval=1\.5 is no whole number"):
        Performer(16, redraw_interval=1.5)  # type: ignore[arg-type]
