"""What must hold of a mechanism before its time means anything: a quick look at what the contract tests look at.

With the options that are timed, in float64, on a small map with odd sides; every parameter is a random number, as a
layer that starts at zero would hide errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from visionattn.analysis.bench.candidate import PATTERNS, Candidate, Sizes, candidate, options_of
from visionattn.attention.base import ContextMixer, QKVAttention, TokenMixer
from visionattn.attention.build import attention_class, build_attention
from visionattn.typing import Grid

_GRIDS: dict[int, Grid] = {1: (131,), 2: (11, 13), 3: (3, 5, 9)}
"""More tokens than one bucket or cluster of a hash holds (64): within one, everything looks at everything."""
_LIMIT_GRID: Grid = (5, 7)
_LIMIT_SIZES = Sizes(dim=32, heads=4, batch=2)
"""The map and the heads for which a mechanism's `softmax_limit` is claimed."""


def broken_promises(name: str, sizes: Sizes) -> list[str]:
    """What this mechanism does not keep of the contract, each in a few words; empty where it may be timed.

    Args:
        name: in the registry.
        sizes: what it is going to be timed with.
    """
    dims = attention_class(name).grid_dims
    grid = _GRIDS[2 if 2 in dims else dims[0]]
    broken = []
    with torch.random.fork_rng(devices=[]):
        for promise, check in _PROMISES.items():
            try:
                kept = check(name, grid, sizes)
            except Exception as error:  # whatever a mechanism raises is an answer here
                first = " ".join(str(error).split())
                broken.append(f"{promise}: {type(error).__name__}: {first[:200]}")
            else:
                if not kept:
                    broken.append(promise)
    return broken


def answers_by_query_alone(name: str, sizes: Sizes) -> bool:
    """Whether, for a given context, each position's answer depends on that position of the map alone.

    Then looking at another map is causal as it is: CAB's causal cross pattern costs what the other does.
    """
    if not issubclass(attention_class(name), ContextMixer):
        return False
    grid = _GRIDS[2 if 2 in attention_class(name).grid_dims else attention_class(name).grid_dims[0]]
    case = _case(name, grid, sizes, "cross")
    if case is None:
        return False
    return _ignores_later(case, grid, sizes)


def _shape(name: str, grid: Grid, sizes: Sizes) -> bool:
    for pattern in PATTERNS:
        case = _case(name, grid, sizes, pattern)
        x = _map(grid, sizes)
        if case is not None:
            out = case.answer(x)
            if out.shape != x.shape or not out.isfinite().all():
                return False
    return True


def _resolution(name: str, grid: Grid, sizes: Sizes) -> bool:
    mixer, x = _mixer(name, grid, sizes), _map(tuple(2 * n + 1 for n in grid), sizes)
    out = mixer(x)
    return out.shape == x.shape and bool(out.isfinite().all())


def _gradients(name: str, grid: Grid, sizes: Sizes) -> bool:
    mixer, x = _mixer(name, grid, sizes).train(), _map(grid, sizes).requires_grad_()
    mixer(x).square().sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in mixer.parameters())]
    return all(g is not None and bool(g.isfinite().all()) and bool(g.abs().max() > 0) for g in gradients)


def _batch(name: str, grid: Grid, sizes: Sizes) -> bool:
    mixer, x = _mixer(name, grid, sizes), _map(grid, sizes)
    changed = torch.cat([x[:1], 3 * x[1:] + 1])
    return _near(mixer(changed)[0], mixer(x)[0]) and _near(mixer(x[1:])[0], mixer(x)[1])


def _padding(name: str, grid: Grid, sizes: Sizes) -> bool:
    mixer, x, mask = _mixer(name, grid, sizes), _map(grid, sizes), _padded(grid)
    other = torch.where(mask[..., None], x, 100 * _map(grid, sizes, seed=2))
    out = mixer(x, mask=mask)
    kept = _near(out[mask], mixer(other, mask=mask)[mask]) and _near(out[0], mixer(x)[0])
    if kept and isinstance(mixer, ContextMixer):
        context, changed = _map(grid, sizes, seed=5), torch.where(mask[..., None], _map(grid, sizes, seed=5), other)
        kept = _near(mixer(x, context, context_mask=mask), mixer(x, changed, context_mask=mask))
    return kept


def _determinism(name: str, grid: Grid, sizes: Sizes) -> bool:
    mixer, x = _mixer(name, grid, sizes), _map(grid, sizes)
    before = x.clone()
    return torch.equal(mixer(x), mixer(x)) and torch.equal(x, before)


def _causality(name: str, grid: Grid, sizes: Sizes) -> bool:
    case = _case(name, grid, sizes, "causal-self")
    return case is None or _ignores_later(case, grid, sizes)


def _equivariance(name: str, grid: Grid, sizes: Sizes) -> bool:
    if not attention_class(name).claims.permutation_equivariant:
        return True
    mixer, x = _mixer(name, grid, sizes), _map(grid, sizes)
    order = torch.randperm(math.prod(grid), generator=torch.Generator().manual_seed(4))

    def permuted(t: Tensor) -> Tensor:
        return t.flatten(1, -2)[:, order].reshape(t.shape)

    return _near(mixer(permuted(x)), permuted(mixer(x)))


def _convexity(name: str, grid: Grid, sizes: Sizes) -> bool:
    """Of the mechanisms with the common hook, where attending to one-hot values gives the attention matrix."""
    mixer = _mixer(name, grid, sizes)
    if not mixer.claims.convex or not isinstance(mixer, QKVAttention):
        return True
    heads, tokens = mixer.num_heads, math.prod(grid)
    generator = torch.Generator().manual_seed(6)
    q, k = (torch.randn(2, heads, tokens, mixer.key_dim // heads, generator=generator).double() for _ in range(2))
    values = torch.eye(tokens, dtype=torch.float64).expand(2, heads, tokens, tokens)
    weights = mixer.attend(q, k, values, grid, grid)
    sums = weights.sum(-1)
    return bool((weights >= 0).all()) and torch.allclose(sums, torch.ones_like(sums))


def _softmax_limit(name: str, grid: Grid, sizes: Sizes) -> bool:
    limit = attention_class(name).claims.softmax_limit
    if limit is None:
        return True
    grid, sizes = _LIMIT_GRID, _LIMIT_SIZES
    mixer = _mixer(name, grid, sizes, **limit)
    softmax = _mixer("SoftmaxAttention", grid, sizes)
    softmax.load_state_dict(mixer.state_dict())
    return _near(mixer(_map(grid, sizes)), softmax(_map(grid, sizes)))


_PROMISES: dict[str, Callable[[str, Grid, Sizes], bool]] = {
    "the answer is a finite map of the same shape": _shape,
    "it takes another resolution than it was made for": _resolution,
    "the map and every parameter get a finite gradient that is not zero": _gradients,
    "maps of a batch do not mix": _batch,
    "padded positions change nothing": _padding,
    "in eval mode it is deterministic and leaves its input alone": _determinism,
    "the causal form answers from earlier tokens alone": _causality,
    "it is permutation equivariant, as claimed": _equivariance,
    "its answers are convex combinations, as claimed": _convexity,
    "it has softmax attention as its limit, as claimed": _softmax_limit,
}


def _ignores_later(case: Candidate, grid: Grid, sizes: Sizes) -> bool:
    """Whether the first two thirds of the answers stay as they are while the last third of the tokens changes."""
    x, keep = _map(grid, sizes), 2 * math.prod(grid) // 3
    later = x.flatten(1, -2).clone()
    later[:, keep:] = 2 * later[:, keep:] + 1
    before, after = (case.answer(t).flatten(1, -2)[:, :keep] for t in (x, later.view_as(x)))
    return _near(before, after)


def _mixer(name: str, grid: Grid, sizes: Sizes, **options: object) -> TokenMixer:
    torch.manual_seed(0)
    cfg = {"type": name, **options_of(name, sizes, len(grid)), **options}
    return _randomised(build_attention(cfg, sizes.dim, grid))


def _case(name: str, grid: Grid, sizes: Sizes, pattern: str) -> Candidate | None:
    """The candidate, for a batch of two."""
    case = candidate(name, pattern, grid, Sizes(sizes.dim, sizes.heads, batch=2))
    if case is not None:
        _randomised(case.mixer)
    return case


def _randomised(mixer: TokenMixer) -> TokenMixer:
    mixer = mixer.double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in mixer.parameters():
            numbers = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.copy_(numbers / math.sqrt(parameter.shape[-1]))
    return mixer


def _map(grid: Grid, sizes: Sizes, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *grid, sizes.dim, dtype=torch.float64, generator=generator)


def _padded(grid: Grid) -> Tensor:
    """Of two maps the second has its last row and its last two columns padded."""
    mask = torch.ones(2, *grid, dtype=torch.bool)
    mask[1, -1] = False
    mask[1, ..., -2:] = False
    return mask


def _near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-9)
