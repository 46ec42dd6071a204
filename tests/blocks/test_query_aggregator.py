"""Learned queries that look at a map: against loops, with every mechanism that can, and what is refused."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from visionattn.attention.base import ContextMixer, SameGridMixer
from visionattn.attention.build import attention_class, list_attention
from visionattn.blocks.query_aggregator import QueryAggregator
from visionattn.registry import MODELS

DIM = 6
CONTEXT = [name for name in list_attention() if issubclass(attention_class(name), ContextMixer)]


def layer_norm(parameters: Parameters, name: str, token: Tensor) -> Tensor:
    centred = token - token.mean()
    normal = centred / (centred.square().mean() + 1e-5).sqrt()
    return normal * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]


def naive(parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """One head of softmax attention, query by query."""
    images = []
    for image in range(len(x)):
        tokens = [layer_norm(parameters, "norm_map", token) for token in x[image].flatten(1).T]
        real = [True] * len(tokens) if mask is None else mask[image].flatten().tolist()
        projected = [linear(parameters, "attn.qkv", token) for token in tokens]
        answers = []
        for query in parameters["queries"]:
            q = linear(parameters, "attn.qkv", layer_norm(parameters, "norm_queries", query))[:DIM]
            seen = [token for token, there in zip(projected, real, strict=True) if there]
            weights = softmax([q @ token[DIM : 2 * DIM] / math.sqrt(DIM) for token in seen])
            value = sum(w * token[2 * DIM :] for w, token in zip(weights, seen, strict=True))
            answers.append(query + linear(parameters, "attn.proj", value))
        images.append(torch.stack(answers))
    return torch.stack(images)


@pytest.mark.parametrize("masked", [False, True])
def test_equals_loops(masked: bool) -> None:
    module = randomised(QueryAggregator(DIM, {"type": "SoftmaxAttention", "num_heads": 1}, 3))
    mask = random_mask(2, 3, 5) if masked else None
    assert_equals_naive(module, naive, {"x": tensor(2, DIM, 3, 5), "mask": mask})


def naive_bound(parameters: Parameters, x: Tensor, name: str, mask: Tensor | None = None) -> Tensor:
    """One head of what mixes the map's positions, each at its own place, before the queries look; query by query."""
    images = []
    for image in range(len(x)):
        places = list(positions(tuple(x.shape[2:])))
        real = [mask is None or bool(mask[image][place]) for place in places]
        tokens = {place: layer_norm(parameters, "norm_map", x[image][(slice(None), *place)]) for place in places}
        there = [tokens[place] * flag for place, flag in zip(places, real, strict=True)]
        if name == "Linformer":
            projected = {p: linear(parameters, "attn.qkv", tokens[p]) * f for p, f in zip(places, real, strict=True)}
            keys, values = (
                [sum(parameters[f"attn.{kind}_projection"][(0, row, *p)] * projected[p][part] for p in places)
                 for row in range(3)]
                for kind, part in (("key", slice(DIM, 2 * DIM)), ("value", slice(2 * DIM, None)))
            )  # fmt: skip
            weight, bias = parameters["attn.qkv.weight"][:DIM], parameters["attn.qkv.bias"][:DIM]
        else:
            mixing = parameters["attn.mixing"]
            mixed = {n: sum(mixing[(*n, *m)] * token for m, token in zip(places, there, strict=True)) for n in places}
            seen = [place for place, flag in zip(places, real, strict=True) if flag]
            keys, values = [tokens[place] for place in seen], [mixed[place] for place in seen]
            weight, bias = parameters["attn.query_key.weight"], parameters["attn.query_key.bias"]
        answers = []
        for query in parameters["queries"]:
            q = weight @ layer_norm(parameters, "norm_queries", query) + bias
            weights = softmax([q @ key / math.sqrt(DIM) for key in keys])
            found = sum(w * value for w, value in zip(weights, values, strict=True))
            answers.append(query + linear(parameters, "attn.proj", found))
        images.append(torch.stack(answers))
    return torch.stack(images)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("name", "options"), [("Linformer", {"rank": 3}), ("SuperAttention", {})])
def test_what_gives_keys_their_places_equals_loops(name: str, options: dict[str, int], masked: bool) -> None:
    module = randomised(QueryAggregator(DIM, {"type": name, "num_heads": 1, **options}, 3, (3, 5)))
    mask = random_mask(2, 3, 5) if masked else None
    assert_equals_naive(module, partial(naive_bound, name=name), {"x": tensor(2, DIM, 3, 5), "mask": mask})


def refused(name: str) -> bool:
    return name == "AFTFull" or issubclass(attention_class(name), SameGridMixer)


ABLE = [name for name in CONTEXT if not refused(name)]
SMALL = {"LinformerPool": {"pool": 2}, "FourierAttention": {"ratio": 0.5}}


def test_the_registry_was_found() -> None:
    assert {"Linformer", "LinformerPool", "FourierAttention", "SuperAttention", "SoftmaxAttention"} <= set(ABLE)
    assert {"LambdaLayer", "NeighborhoodAttention"} <= set(CONTEXT) - set(ABLE)


@pytest.mark.parametrize("name", sorted(set(CONTEXT) - set(ABLE)))
def test_queries_with_places_are_refused_by_name(name: str) -> None:
    refusal = rf"{name} goes by where queries lie .*learned queries lie nowhere on it; take one .* SoftmaxAttention"
    with pytest.raises(ValueError, match=refusal):
        QueryAggregator(16, {"type": name, "grid": (5, 7)}, 4)


@pytest.mark.parametrize("name", ABLE)
def test_any_mechanism_that_can(name: str) -> None:
    module = randomised(QueryAggregator(16, {"type": name, **SMALL.get(name, {})}, 4, (5, 7), norm=False)).eval()
    assert isinstance(module, nn.Module)
    x = tensor(2, 16, 5, 7).requires_grad_()
    out = module(x)
    assert out.shape == (2, 4, 16)
    matched = module.attn(module.queries.expand(2, -1, -1).reshape(2, 2, 2, 16), x.movedim(1, -1)).reshape(2, 4, 16)
    torch.testing.assert_close(out, module.queries + matched, rtol=1e-9, atol=1e-9)  # on whatever grid they are laid
    out.square().sum().backward()
    assert x.grad is not None
    assert (x.grad.flatten(2).abs().amax(1) > 0).float().mean() > 0.3, "most of the map is not looked at"
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
    assert module(tensor(2, 16, 3, 4)).shape == (2, 4, 16)
    if 3 in module.attn.grid_dims:
        assert module(tensor(2, 16, 3, 4, 2)).shape == (2, 4, 16)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(2)[..., order].reshape(x.shape)
    same = torch.allclose(module(shuffled), out, rtol=1e-9, atol=1e-9)
    assert same == module.attn.claims.permutation_equivariant, "the map came without its grid"


def test_what_is_masked_is_not_seen() -> None:
    module, x, mask = (
        randomised(QueryAggregator(16, "EfficientAttention", 4)),
        tensor(2, 16, 5, 7),
        random_mask(2, 5, 7),
    )
    other = torch.where(mask[:, None], x, 100 * tensor(2, 16, 5, 7, seed=3))
    torch.testing.assert_close(module(other, mask), module(x, mask), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(module(other), module(x))


def test_it_is_found_by_name_and_starts_near_its_queries() -> None:
    module = MODELS.build({"type": "visionattn.QueryAggregator", "channels": 16, "attention": "SoftmaxAttention"})
    assert module.queries.shape == (16, 16)
    assert 0.01 < module.queries.std() < 0.03
    half = module.bfloat16()
    assert half(torch.randn(1, 16, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_bad_input_is_named() -> None:
    with pytest.raises(TypeError, match=rf"GMLP cannot look at another map; .*use one of {', '.join(ABLE)}$"):
        QueryAggregator(16, {"type": "GMLP", "grid": (4, 4)})
    bound = QueryAggregator(16, {"type": "Linformer", "grid": (4, 4)})
    with pytest.raises(ValueError, match=r"a grid of 2 dimensions, as Linformer takes it, got \[2, 16, 4\]"):
        bound(torch.zeros(2, 16, 4))
    with pytest.raises(ValueError, match="num_queries=0 must be 1 or more"):
        QueryAggregator(16, "SoftmaxAttention", 0)
    module = QueryAggregator(16, "SoftmaxAttention")
    with pytest.raises(ValueError, match=r"a map \[B, 16, \*grid\].* got \[2, 15, 4, 4\]"):
        module(torch.zeros(2, 15, 4, 4))
    with pytest.raises(ValueError, match=r"a mask \[2, 4, 4\], got \[2, 4\]"):
        module(torch.zeros(2, 16, 4, 4), torch.ones(2, 4, dtype=torch.bool))
