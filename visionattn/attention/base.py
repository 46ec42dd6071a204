"""The one interface of every mechanism: image-shaped in, image-shaped out, channels last.

TokenMixer            x [B, *grid, C] -> [B, *grid, C]
ContextMixer          may look at another map
QKVAttention          owns qkv and proj; a mechanism writes `attend`
ContextQKVAttention   both
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.option_kinds import checks_kinds
from visionattn.typing import Grid, Tokens


@dataclass(frozen=True)
class Claims:
    """What a mechanism promises; read by tests and docs, never by models.

    Attributes:
        paper: where it was published.
        cost: growth of its multiplications with the number of tokens: "N" or "N^2"; "N^1.5" on square maps, where one
            axis that grows alone costs its square.
        permutation_equivariant: permuting the tokens permutes the output and changes nothing else.
        convex: each head's output is a convex combination of the values it sees.
        softmax_limit: options under which it equals `SoftmaxAttention` with the same weights; None if there are none.
        causal: there is a form of it in which a token sees itself and those before it in raster order alone: an option
            `causal`, or a function that `analysis/bench/causal.py` puts into it.
    """

    paper: str
    cost: str
    permutation_equivariant: bool = False
    convex: bool = False
    softmax_limit: Mapping[str, Any] | None = field(default=None)
    causal: bool = False


class TokenMixer(nn.Module):
    """Mixes the tokens of a map; the block around it adds residual, norm and drop path.

    Args:
        dim: channels C of the map.
        grid: where position-bound parameters are learned; a mechanism without any ignores it.
    Raises:
        TypeError: an option is not of the kind that the signature says, or the grid is one number.
        ValueError: dim or an extent of the grid is below 1, or the grid has not one to three.
    """

    claims: ClassVar[Claims]
    grid_dims: tuple[int, ...] = (1, 2, 3)
    """Numbers of dimensions that the grid may have: of the class with any options, of an instance with its own."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls):
            cls.__init__ = checks_kinds(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, dim: int, grid: Sequence[int] | None = None) -> None:
        super().__init__()
        check_whole(dim=dim)
        if dim < 1:
            raise ValueError(f"dim={dim} is not a number of channels; it must be 1 or more")
        self.dim = dim
        self.grid: Grid | None = None if grid is None else check_extents("grid", grid)

    @abstractmethod
    def forward(self, x: Tokens, mask: Tensor | None = None) -> Tokens:
        """The mixed map.

        Args:
            x: [B, *grid, C], the grid of one to three dimensions (those in `grid_dims`).
            mask: [B, *grid] bool, True where a token is real; None if all are.
        Those that look at x alone have one more argument, `context`, to refuse one with a TypeError that says so.
        """

    def check_map(self, x: Tensor, mask: Tensor | None, name: str = "x") -> None:
        """Raises ValueError unless `x` is a map that this mechanism takes and `mask` fits it."""
        dims = self.grid_dims
        if x.dim() - 2 not in dims or x.shape[-1] != self.dim:
            grids = " or ".join(("[B, N, {0}]", "[B, H, W, {0}]", "[B, D, H, W, {0}]")[n - 1] for n in dims)
            raise ValueError(
                f"{type(self).__name__} expects {name} of shape {grids.format(self.dim)} (channels last), "
                f"got {list(x.shape)}"
            )
        if 0 in x.shape[1:-1]:
            raise ValueError(
                f"{type(self).__name__} got {name} of shape {list(x.shape)}, which has no token; only a batch may be "
                "empty: leave such a map out before it comes here"
            )
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:-1]):
            raise ValueError(
                f"{type(self).__name__} expects a bool mask of shape {list(x.shape[:-1])} for {name} "
                f"(True = real), got {mask.dtype} {list(mask.shape)}"
            )

    def check_prefix_tokens(self) -> None:
        """Raises ValueError if this mechanism goes by where tokens lie on the map.

        Class and register tokens lie nowhere on it: a vision transformer puts them before those of the map, in one
        sequence [B, P + N, C], and asks here first.
        """
        if 1 not in self.grid_dims:
            self.refuse_prefix_tokens()

    def refuse_prefix_tokens(self) -> NoReturn:
        """Raises the ValueError of `check_prefix_tokens`."""
        raise ValueError(
            f"{type(self).__name__} goes by where tokens lie on the map, and class and register tokens lie nowhere on "
            "it: leave them out (class_token=False), or take a mechanism that does not, as SoftmaxAttention"
        )


class ContextMixer(TokenMixer):
    """A mixer whose queries may look at another map."""

    @abstractmethod
    def forward(  # type: ignore[override]  # positional order: the context comes before the masks
        self,
        x: Tokens,
        context: Tokens | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tokens:
        """The map x after looking at the context.

        Args:
            x: [B, *grid, C].
            context: [B, *context_grid, C]; None looks at x itself.
            mask: [B, *grid] bool, True where a token of x is real.
            context_mask: [B, *context_grid] bool, True where a token of the context is real.
        """

    def check_context(self, x: Tensor, context: Tensor, context_mask: Tensor | None) -> None:
        """Raises ValueError unless the context is a map that this mechanism can look at from x, and the mask fits."""
        self.check_map(context, context_mask, name="context")
        if len(x) != len(context):
            raise ValueError(
                f"{type(self).__name__} expects a context with the batch size of x: {len(x)}, got {len(context)}"
            )

    def check_loose_queries(self) -> None:
        """Raises ValueError if this mechanism goes by where its queries lie; the keys of all may lie somewhere."""


class SameGridMixer(ContextMixer):
    """A mixer whose queries may look at another map of the same grid: what each sees goes by its place on it."""

    def check_context(self, x: Tensor, context: Tensor, context_mask: Tensor | None) -> None:
        super().check_context(x, context, context_mask)
        grid, other = tuple(x.shape[1:-1]), tuple(context.shape[1:-1])
        if grid != other:
            raise ValueError(
                f"{type(self).__name__} looks from each place of x at the same place of the context, so both need one "
                f"grid: x has {grid}, the context {other}; resize one of them, or take a mechanism that looks at maps "
                "of any grid, such as SoftmaxAttention"
            )

    def check_loose_queries(self) -> None:
        refuse_loose_queries(self)


class QKVAttention(TokenMixer):
    """Multi-head attention with timm's parameter names: `qkv` and `proj` around the hook `attend`.

    Args:
        num_heads: heads; divides key_dim and value_dim.
        key_dim: width of q and of k over all heads; dim if None.
        value_dim: width of v over all heads; dim if None.
        qkv_bias: a bias on q, k and v.
        attn_drop: dropout inside `attend`, where the mechanism has attention weights to drop.
        proj_drop: dropout of the output.
    Raises:
        ValueError: num_heads does not divide a width, or a dropout is no probability.
    """

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid)
        self.num_heads = num_heads
        self.key_dim = dim if key_dim is None else key_dim
        self.value_dim = dim if value_dim is None else value_dim
        check_heads(num_heads, self.key_dim, "dim" if key_dim is None else "key_dim")
        check_heads(num_heads, self.value_dim, "value_dim")
        check_probabilities(attn_drop=attn_drop, proj_drop=proj_drop)
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 2 * self.key_dim + self.value_dim, bias=qkv_bias)
        self.proj = nn.Linear(self.value_dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    @abstractmethod
    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        """The attended values.

        Args:
            q: [B, heads, N, D], the tokens of q_grid in row-major order.
            k: [B, heads, M, D].
            v: [B, heads, M, E].
            q_grid, kv_grid: extents whose products are N and M.
            mask: [B, M] bool, True where a key is real.
        Returns:
            [B, heads, N, E].
        """

    def forward(self, x: Tokens, mask: Tensor | None = None, *, context: None = None) -> Tokens:
        check_no_context(self, context)
        self.check_map(x, mask)
        return self._attend_map(x, None, mask)

    def _attend_map(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Projects, attends, merges the heads; mask belongs to the keys."""
        grid: Grid = tuple(x.shape[1:-1])
        mask = None if mask is None else mask.flatten(1)
        if context is None:
            out = self._attend_joined(self._project(x.flatten(1, -2)), grid, mask)
        else:
            q, k, v = self._project_two(x.flatten(1, -2), context.flatten(1, -2))
            out = self._attend_tokens(q, k, v, grid, tuple(context.shape[1:-1]), mask)
        return self.proj_drop(self.proj(out)).reshape(x.shape)

    def _attend_joined(self, qkv: Tensor, grid: Grid, mask: Tensor | None) -> Tensor:
        """The attended values [B, N, value_dim] of q, k and v side by side, as `_project` gives them."""
        # One split, not three slices: its backward is one concatenation instead of three maps of zeros, added up.
        q, k, v = torch.split(qkv, [self.key_dim, self.key_dim, self.value_dim], dim=-1)
        return self._attend_tokens(q, k, v, grid, grid, mask)

    def _attend_tokens(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None
    ) -> Tensor:
        """The attended values [B, N, value_dim] of tokens whose heads lie side by side."""
        q, k, v = (split_heads(t, self.num_heads) for t in (q, k, v))
        out = self.attend(q, k, v, q_grid, kv_grid, mask)
        return out.transpose(1, 2).flatten(2)

    def _project(self, tokens: Tensor) -> Tensor:
        """q, k and v side by side, [B, N, 2 * key_dim + value_dim]."""
        return self.qkv(tokens)

    def _project_two(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q from x; k and v from the context; by slices of the one qkv weight."""
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(x, weight[: self.key_dim], None if bias is None else bias[: self.key_dim])
        kv = F.linear(context, weight[self.key_dim :], None if bias is None else bias[self.key_dim :])
        return q, kv[..., : self.key_dim], kv[..., self.key_dim :]


class ContextQKVAttention(QKVAttention, ContextMixer):
    """Those of the QKV family that can look at another map."""

    def forward(  # type: ignore[override]  # positional order: the context comes before the masks
        self,
        x: Tokens,
        context: Tokens | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tokens:
        self.check_map(x, mask)
        if context is None:
            check_no_context_mask(self, context_mask)
            return self._attend_map(x, None, mask)
        self.check_context(x, context, context_mask)
        return self._attend_map(x, context, context_mask)


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """Heads that lie side by side in tokens [B, N, heads * d], [B, heads, N, d]."""
    return torch.unflatten(tokens, -1, (num_heads, -1)).transpose(1, 2)


def check_whole(**numbers: object) -> None:
    """Raises TypeError for the first by name that is neither a whole number nor None."""
    for name, number in numbers.items():
        if number is not None and not isinstance(number, Integral):
            raise TypeError(f"{name}={number!r} is no whole number; write {name}=8, without quotes or a point")


def check_probabilities(**numbers: object) -> None:
    """Raises TypeError for the first by name that is no number, ValueError for one that is not from 0 to 1."""
    for name, number in numbers.items():
        if not isinstance(number, Real):
            raise TypeError(f"{name}={number!r} is no number; write {name}=0.1, without quotes")
        if not 0.0 <= float(number) <= 1.0:
            raise ValueError(f"{name}={number} is no probability; use a number from 0 to 1")


def check_extents(name: str, extents: Sequence[int], grid: Grid | None = None) -> Grid:
    """The extents of a grid, or of a window or segment on the grid, as a tuple.

    Raises:
        TypeError: they are one number.
        ValueError: one is below 1, or there are more or fewer than the grid has axes.
    """
    if not isinstance(extents, Sequence):
        raise TypeError(f"{name}={extents!r} must hold one integer per axis of the grid: ({extents}, {extents})")
    checked = tuple(extents)
    if not 1 <= len(checked) <= 3 or any(not isinstance(n, Integral) or n < 1 for n in checked):
        raise ValueError(
            f"{name}={checked} must hold one integer of 1 or more per axis of the grid (one to three), such as (7, 7)"
        )
    if grid is not None and len(grid) != len(checked):
        raise ValueError(
            f"{name}={checked} has {len(checked)} entries, the grid {grid} has {len(grid)} axes; give one per axis"
        )
    return checked


def check_heads(num_heads: int, width: int, name: str) -> None:
    """Raises ValueError unless width is 1 or more and num_heads divides it; the message lists those that do."""
    if width < 1:
        raise ValueError(f"{name}={width} must be 1 or more")
    if num_heads < 1 or width % num_heads:
        divisors = [str(n) for n in range(1, width + 1) if width % n == 0]
        shown = divisors[0] if len(divisors) == 1 else f"{', '.join(divisors[:-1])} or {divisors[-1]}"
        raise ValueError(f"num_heads={num_heads} does not divide {name}={width}; use {shown}")


def check_no_context_mask(mixer: TokenMixer, context_mask: Tensor | None) -> None:
    """Raises ValueError if a context_mask came without a context."""
    if context_mask is not None:
        raise ValueError(f"{type(mixer).__name__} got a context_mask without a context; pass mask= for x itself")


def check_no_context(mixer: TokenMixer, context: object) -> None:
    """Raises TypeError if a context came to a mixer that looks at its own map alone."""
    if context is not None:
        raise TypeError(
            f"{type(mixer).__name__} cannot look at another map: leave out the context, or take a mechanism that can, "
            "such as SoftmaxAttention (`visionattn attention list` names them)"
        )


def refuse_loose_queries(mixer: TokenMixer) -> NoReturn:
    """Raises the ValueError of `ContextMixer.check_loose_queries`."""
    raise ValueError(
        f"{type(mixer).__name__} goes by where queries lie on the map, and learned queries lie nowhere on it; take one "
        "that does not, such as SoftmaxAttention"
    )
