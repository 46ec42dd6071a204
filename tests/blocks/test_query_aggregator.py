"""Learned queries that look at a map: against loops, with every mechanism that can, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.naive import Parameters, assert_equals_naive, linear, random_mask, randomised, softmax, tensor
from visionattn.attention.base import ContextMixer
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


def able() -> list[str]:
    names = []
    for name in CONTEXT:
        try:
            QueryAggregator(16, {"type": name, "grid": (5, 7)}, 4)
        except ValueError:
            continue
        names.append(name)
    return names


@pytest.mark.parametrize("name", able())
def test_any_mechanism_that_can(name: str) -> None:
    assert len(able()) >= 8
    module = randomised(QueryAggregator(16, name, 4, norm=False))
    assert isinstance(module, nn.Module)
    x = tensor(2, 16, 5, 7).requires_grad_()
    out = module(x)
    assert out.shape == (2, 4, 16)
    out.square().sum().backward()
    assert x.grad is not None
    assert (x.grad.flatten(2).abs().amax(1) > 0).float().mean() > 0.3, "most of the map is not looked at"
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
    assert module(tensor(2, 16, 3, 4, 2)).shape == (2, 4, 16)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(2)[..., order].reshape(x.shape)
    torch.testing.assert_close(module(shuffled), out, rtol=1e-9, atol=1e-9)


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
    with pytest.raises(TypeError, match=r"GMLP cannot look at another map; .*use one of .*SoftmaxAttention"):
        QueryAggregator(16, {"type": "GMLP", "grid": (4, 4)})
    with pytest.raises(ValueError, match=r"Linformer goes by where tokens lie .*learned queries lie nowhere"):
        QueryAggregator(16, {"type": "Linformer", "grid": (4, 4)})
    with pytest.raises(ValueError, match="num_queries=0 must be 1 or more"):
        QueryAggregator(16, "SoftmaxAttention", 0)
    module = QueryAggregator(16, "SoftmaxAttention")
    with pytest.raises(ValueError, match=r"a map \[B, 16, \*grid\].* got \[2, 15, 4, 4\]"):
        module(torch.zeros(2, 15, 4, 4))
    with pytest.raises(ValueError, match=r"a mask \[2, 4, 4\], got \[2, 4\]"):
        module(torch.zeros(2, 16, 4, 4), torch.ones(2, 4, dtype=torch.bool))
