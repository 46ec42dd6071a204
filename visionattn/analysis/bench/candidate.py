"""A mechanism as it is measured: built for a width, heads and a map, and run in one of the patterns of use.

The patterns are those of CAB (Zhang et al., arXiv 2210.07661): a map looks at itself, at itself up to each token
("causal", tokens in raster order), or at another map.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from visionattn.analysis.bench.causal import make_causal
from visionattn.analysis.macs import count_macs, published_form
from visionattn.attention.base import ContextMixer, TokenMixer
from visionattn.attention.build import attention_class, build_attention
from visionattn.typing import Grid

PATTERNS = ("self", "causal-self", "cross")


@dataclass(frozen=True)
class Sizes:
    """What all mechanisms of a run share.

    Attributes:
        dim: channels of the maps.
        heads: of every mechanism whose published form has more than one.
        batch: maps at once.
    """

    dim: int = 128
    heads: int = 4
    batch: int = 1


@dataclass(frozen=True)
class Candidate:
    """A mechanism built for one grid, and how it answers a map [B, *grid, C] in one pattern."""

    name: str
    pattern: str
    mixer: TokenMixer
    answer: Callable[[Tensor], Tensor]


def options_of(name: str, sizes: Sizes, axes: int = 2, *, causal: bool = False) -> dict[str, object]:
    """The options that a mechanism is built with; all others stay at its own defaults, the published form.

    Args:
        axes: of the map; a default window or shift of other axes becomes one as wide on all of them.
        causal: for the causal pattern, where the mechanism has an option of this name.
    """
    parameters = inspect.signature(attention_class(name).__init__).parameters
    options: dict[str, object] = {}
    heads = parameters.get("num_heads")
    if heads is not None and heads.default != 1:
        options["num_heads"] = sizes.heads
    for option, parameter in parameters.items():
        if isinstance(parameter.default, tuple) and len(parameter.default) != axes:
            options[option] = (parameter.default[0],) * axes
    if causal and "causal" in parameters:
        options["causal"] = True
    return options


def candidate(
    name: str, pattern: str, grid: Grid, sizes: Sizes, device: torch.device | str = "cpu", *, seed: int = 0
) -> Candidate | None:
    """The mechanism for maps of this grid; None where it has no such pattern, or takes no grid of so many dimensions.

    Raises:
        ValueError: it cannot be built with these sizes; the message names it.
    """
    options = options_of(name, sizes, len(grid), causal=pattern == "causal-self")
    mixer = _built(name, options, grid, sizes, torch.device(device), seed)
    if len(grid) not in mixer.grid_dims:
        return None
    if pattern == "cross":
        if not isinstance(mixer, ContextMixer):
            return None
        return Candidate(name, pattern, mixer, _looking_at(mixer, random_map(grid, sizes, device, seed=1)))
    if pattern == "causal-self" and "causal" not in options and not make_causal(mixer):
        return None
    return Candidate(name, pattern, mixer, mixer)


def _looking_at(mixer: ContextMixer, context: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: mixer(x, context.to(x))


def _built(
    name: str, options: dict[str, object], grid: Grid, sizes: Sizes, device: torch.device, seed: int
) -> TokenMixer:
    def build() -> TokenMixer:
        return build_attention({"type": name, **options}, sizes.dim, grid)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if device.type == "meta":
                with suppress(RuntimeError), device:
                    return build()
            return build().to(device)  # also where something is drawn on the CPU whatever the device
        except ValueError as error:
            raise ValueError(f"{name} cannot be built with dim={sizes.dim}, heads={sizes.heads}: {error}") from error


@lru_cache(maxsize=4)
def random_map(grid: Grid, sizes: Sizes, device: torch.device | str, *, seed: int = 0) -> Tensor:
    """[B, *grid, C] of N(0, 1), one tensor for all mechanisms: dozens of them are held at once."""
    generator = torch.Generator().manual_seed(seed)
    if torch.device(device).type == "meta":
        return torch.empty(sizes.batch, *grid, sizes.dim, device="meta")
    return torch.randn(sizes.batch, *grid, sizes.dim, generator=generator).to(device)


def run_of(case: Candidate, grid: Grid, sizes: Sizes, device: torch.device, *, training: bool) -> Callable[[], object]:
    """One run: a forward without gradients, or forward and backward with those of the map and of every parameter.

    The mixer is put into eval or training mode; no gradient is left behind.
    """
    case.mixer.train(training)
    x, gradient = random_map(grid, sizes, device), random_map(grid, sizes, device, seed=2)

    def forward() -> Tensor:
        with torch.inference_mode():
            return case.answer(x)

    def forward_backward() -> None:
        leaf = x.detach().requires_grad_()
        case.answer(leaf).backward(gradient)
        case.mixer.zero_grad(set_to_none=True)

    return forward_backward if training else forward


def shape_costs(name: str, pattern: str, grid: Grid, sizes: Sizes) -> tuple[int | None, int] | None:
    """Multiply-accumulates of one forward in the published form, and bytes of the weights, at any size for nothing.

    Counted on tensors without numbers. Multiply-accumulates are None where the mechanism cannot run so (it draws its
    numbers on the CPU), or has an operation without a formula.

    Returns:
        (multiply-accumulates, bytes), or None where the mechanism has no such pattern.
    """
    case = candidate(name, pattern, grid, sizes, "meta")
    if case is None:
        return None
    weights = sum(t.numel() * t.element_size() for t in (*case.mixer.parameters(), *case.mixer.buffers()))
    try:
        return counted_macs(case, random_map(grid, sizes, "meta")), weights
    except (RuntimeError, NotImplementedError):
        return None, weights


def counted_macs(case: Candidate, x: Tensor) -> int | None:
    """Multiply-accumulates of one forward in the published form; None if an operation of it has no formula."""
    with published_form():
        counted = count_macs(lambda: case.answer(x))
    return None if counted.uncounted else counted.total
