"""The quick look at a mechanism before it is timed: each broken promise is named, and what keeps all passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from visionattn.analysis.bench.candidate import Sizes
from visionattn.analysis.bench.contract import answers_by_query_alone, broken_promises
from visionattn.attention.base import Claims, ContextMixer, ContextQKVAttention, TokenMixer
from visionattn.attention.build import attention_class, list_attention

SIZES = Sizes(dim=16, heads=2)
NOTHING_SPECIAL = Claims(paper="-", cost="N")

Register = Callable[[type[TokenMixer]], str]


class Plain(TokenMixer):
    """A linear layer for each token: keeps every promise."""

    claims = NOTHING_SPECIAL

    def __init__(self, dim: int, grid: Sequence[int] | None = None) -> None:
        super().__init__(dim, grid)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x)


class LeaksPadding(Plain):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x + x.mean(dim=(1, 2), keepdim=True))


class LeaksPaddedContext(Plain, ContextMixer):
    def forward(self, x: Tensor, context: Any = None, mask: Any = None, context_mask: Any = None) -> Tensor:
        return self.proj(x if context is None else x + context.mean(dim=(1, 2), keepdim=True))


class MixesMaps(Plain):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x + 1e-3 * x.mean(dim=0))


class Flattens(Plain):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x).flatten(1, 2)


class KnowsOneSize(Plain):
    def __init__(self, dim: int, grid: Sequence[int] | None = None) -> None:
        super().__init__(dim, grid)
        self.table = nn.Parameter(torch.zeros(*(grid or ()), 1))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x) + self.table


class HasAnIdleWeight(Plain):
    def __init__(self, dim: int, grid: Sequence[int] | None = None) -> None:
        super().__init__(dim, grid)
        self.idle = nn.Parameter(torch.zeros(dim))


class HasNoGradientAtZero(Plain):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x) + (x - x).sqrt()


class Rolls(Plain):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x) + torch.rand(())


class Overwrites(Plain):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        out = self.proj(x)
        if not x.requires_grad:
            x.mul_(1.01)
        return out


class LooksAhead(Plain):
    def __init__(self, dim: int, grid: Sequence[int] | None = None, *, causal: bool = False) -> None:
        super().__init__(dim, grid)
        self.causal = causal

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x + 1e-3 * x.sum(dim=(1, 2), keepdim=True)) if self.causal else self.proj(x)


class ClaimsNoPlaces(Plain):
    claims = Claims(paper="-", cost="N", permutation_equivariant=True)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x) * torch.linspace(1, 1.01, x.shape[2])[:, None]


class ClaimsConvex(ContextQKVAttention):
    claims = Claims(paper="-", cost="N", convex=True)

    def attend(self, q: Any, k: Any, v: Any, q_grid: Any, kv_grid: Any, mask: Any = None) -> Tensor:
        if mask is not None:
            k = k * mask[:, None, :, None]
        return q @ (k.mT @ v)


class ClaimsALimit(ClaimsConvex):
    claims = Claims(paper="-", cost="N", softmax_limit={})


BROKEN = {
    LeaksPadding: "padded positions change nothing",
    LeaksPaddedContext: "padded positions change nothing",
    MixesMaps: "maps of a batch do not mix",
    Flattens: "a finite map of the same shape",
    KnowsOneSize: "another resolution than it was made for: RuntimeError",
    HasAnIdleWeight: "every parameter get a finite gradient that is not zero",
    HasNoGradientAtZero: "every parameter get a finite gradient that is not zero",
    Rolls: "deterministic",
    Overwrites: "leaves its input alone",
    LooksAhead: "the causal form answers from earlier tokens alone",
    ClaimsNoPlaces: "permutation equivariant, as claimed",
    ClaimsConvex: "convex combinations, as claimed",
    ClaimsALimit: "softmax attention as its limit, as claimed",
}


@pytest.mark.parametrize("mixer", BROKEN, ids=lambda mixer: mixer.__name__)
def test_a_broken_promise_is_named(mixer: type[TokenMixer], register: Register) -> None:
    found = broken_promises(register(mixer), SIZES)
    assert any(BROKEN[mixer] in promise for promise in found), found


def test_what_keeps_all_passes(register: Register) -> None:
    assert broken_promises(register(Plain), SIZES) == []


@pytest.mark.parametrize("name", ["EfficientAttention", "WindowAttention", "AFTSimple", "SoftmaxAttention"])
def test_mechanisms_keep_theirs(name: str) -> None:
    before = torch.random.get_rng_state()
    assert broken_promises(name, SIZES) == []
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_a_limit_that_is_claimed_for_some_heads_does_not_refuse_others(heads: int) -> None:
    assert attention_class("LocalGlobalLinearAttention").claims.softmax_limit is not None
    assert broken_promises("LocalGlobalLinearAttention", Sizes(dim=16, heads=heads)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", list_attention())
def test_every_mechanism_keeps_its_own(name: str) -> None:
    assert broken_promises(name, Sizes()) == []


def test_whose_answers_depend_on_their_own_query_alone() -> None:
    """SMYRF sorts all queries into clusters of 64; Swin looks at no other map."""
    assert answers_by_query_alone("LinearAttention", SIZES)
    assert not answers_by_query_alone("SMYRF", SIZES)
    assert not answers_by_query_alone("StackedAttention", SIZES)
    assert not answers_by_query_alone("WindowAttention", SIZES)
