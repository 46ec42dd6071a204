"""Causal forms keep for the backward pass what grows linearly with the number of tokens: no table of all pairs."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
from naive import tensor
from torch import Tensor

from visionattn import ops
from visionattn.ops.aft import causal_aft_simple
from visionattn.ops.causal_aft import causal_aft_full
from visionattn.ops.causal_attention import causal_efficient_attention, causal_linear_attention, causal_performer
from visionattn.ops.combiner import causal_combiner_attention
from visionattn.ops.lsh_attention import causal_lsh_attention
from visionattn.ops.neighborhood import causal_ngram_attention

PROJECTION = tensor(6, 4, seed=7)
ROTATIONS = tensor(4, 2, 3, seed=7)


def qkv(length: int) -> list[Tensor]:
    return [tensor(1, 2, length, width, seed=width) for width in (4, 4, 3)]


def rows(length: int) -> list[Tensor]:
    return [tensor(1, length, 3, seed=seed) for seed in range(2)]


def factors(length: int) -> list[Tensor]:
    return [tensor(4, length, seed=seed) for seed in range(2)]


FORMS: dict[str, Callable[..., Tensor]] = {
    "causal_efficient_attention": causal_efficient_attention,
    "causal_linear_attention": causal_linear_attention,
    "causal_performer": lambda q, k, v: causal_performer(q, k, v, PROJECTION),
    "causal_ngram_attention": lambda q, k, v: causal_ngram_attention(q, k, v, 5),
    "causal_combiner_attention": lambda q, k, v: causal_combiner_attention(q, k, v, 8),
    "causal_lsh_attention": lambda q, k, v: causal_lsh_attention(q, v, ROTATIONS, 4),
    "causal_aft_simple": causal_aft_simple,
    "causal_aft_full": causal_aft_full,
}
MAKE: dict[str, Callable[[int], list[Tensor]]] = {
    "causal_aft_simple": rows,
    "causal_aft_full": lambda length: [*rows(length), *factors(length)],
}
QUADRATIC = {"causal_combiner_attention"}
"""With a segment that does not grow with the number of tokens."""


def kept(name: str, length: int) -> int:
    """Bytes of what autograd saves, each storage once."""
    sizes: dict[int, int] = {}

    def note(t: Tensor) -> Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    leaves = [t.requires_grad_() for t in MAKE.get(name, qkv)(length)]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out = FORMS[name](*leaves)  # alive: no address is used twice
    assert out.requires_grad
    return sum(sizes.values())


def test_all_causal_forms_are_here() -> None:
    names = [
        name for module in iter_modules(ops.__path__) for name in vars(import_module(f"visionattn.ops.{module.name}"))
    ]
    assert {name for name in names if re.match("causal_", name)} - {"causal_feature_attention"} == set(FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_memory_grows_linearly(name: str) -> None:
    growth = kept(name, 4800) / kept(name, 2400)
    assert (growth > 2.5) if name in QUADRATIC else (growth < 2.05)
