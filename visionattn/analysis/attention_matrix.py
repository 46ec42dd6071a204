"""The attention matrix of any mechanism that is linear in its values: what it does to values that are the identity.

A mechanism whose hook `attend` takes queries, keys and values can be given other values than its own. Whether the
answer is linear in them is no claim but tried out, on random values, each time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from visionattn.analysis.value_layouts import Attend, Layout, argument_names, layout
from visionattn.attention.base import QKVAttention, TokenMixer, split_heads
from visionattn.attention.window import WindowAttention
from visionattn.typing import Grid


@dataclass(frozen=True)
class Attending(Layout):
    """A mechanism in the middle of a forward pass, its queries, keys and values at hand.

    Attributes:
        grid: of the queries.
        key_grid: of the keys; the pooled one where the mechanism pools them.
    """

    grid: Grid
    key_grid: Grid


def attention_matrix(
    mixer: TokenMixer, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, *, chunk: int = 256
) -> Tensor:
    """The weights [B, heads, N, M] with which each query takes up each value; heads is 1 where there are none.

    Where a mechanism mixes or pools its values before it attends (SuperAttention, NonLocal with sub_sample), these are
    the values meant. What a window's padding takes up (mask_padding=False) is no value of the map: such rows sum to
    less than 1.

    Two families have matrices of their own:
    - AFT weighs each channel differently, and gates what was gathered: each of the D channels of its values is a head,
      [B, D, N, M], whose rows sum to the gate, sigmoid(q).
    - Lambda layers: heads share the values, as normalised; of a depth U > 1 a token has U of them, and M is U times the
      tokens (u * tokens + m). Weights may be negative. With kernel_bias there is no matrix: the bias is added whatever
      the values are.

    Args:
        x, context, mask: as of the mechanism; the mask is that of the keys.
        chunk: columns of the identity at a time: memory is that of values so wide, beside the matrix itself.
    Raises:
        TypeError: the mechanism has no hook that is given queries, keys and values.
        ValueError: it is not linear in the values, or chunk is below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be 1 or more")
    with attending(mixer, x, context, mask) as now, torch.no_grad():
        columns = []
        keys = now.values.shape[-2]
        for start in range(0, keys, chunk):
            wide = min(chunk, keys - start)
            identity = now.values.new_zeros(keys, wide)
            identity[start : start + wide].fill_diagonal_(1.0)
            columns.append(now.attend(identity.expand(*now.values.shape[:-2], keys, wide)))
    return _by_head(torch.cat(columns, dim=-1))


def attention_rows(
    mixer: TokenMixer,
    x: Tensor,
    queries: Sequence[int],
    context: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Rows [B, heads, len(queries), M] of `attention_matrix`: one backward pass for each, whatever the size of the map.

    Args:
        queries: their positions in the row-major order of the grid.
        x, context, mask: as of `attention_matrix`.
    Raises:
        TypeError, ValueError: as `attention_matrix`; ValueError for a position outside the grid.
    """
    return added_rows(mixer, x, [[query] for query in queries], context, mask)


def added_rows(
    mixer: TokenMixer,
    x: Tensor,
    groups: Sequence[Sequence[int]],
    context: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """For each group of queries the sum of their rows, [B, heads, len(groups), M]; else as `attention_rows`."""
    with attending(mixer, x, context, mask) as now, torch.enable_grad():
        count = now.queries.shape[-2]
        outside = [query for group in groups for query in group if not 0 <= query < count]
        if outside:
            raise ValueError(f"query {outside[0]} is not on the map, which has the positions 0 to {count - 1}")
        values = torch.zeros_like(now.values[..., :1]).requires_grad_()
        answered = now.attend(values)[..., 0]
        rows = []
        for number, group in enumerate(groups):
            (row,) = torch.autograd.grad(
                answered[..., list(group)].sum(), values, retain_graph=number + 1 < len(groups)
            )
            rows.append(row[..., 0])
    return _by_head(torch.stack(rows, dim=-2))


@contextmanager
def attending(
    mixer: TokenMixer, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
) -> Iterator[Attending]:
    """The mechanism in eval mode, stopped where it attends.

    Raises:
        TypeError: it has no hook that is given values.
        ValueError: it is not linear in them.
    """
    name = type(mixer).__name__
    hook = getattr(mixer, "attend", None)
    if hook is None or argument_names(inspect.signature(hook).parameters) is None:
        raise TypeError(
            f"{name} has no attention matrix: nothing in it is given queries, keys and values to attend; look at "
            "SoftmaxAttention, EfficientAttention and their like"
        )
    training, original = mixer.training, cast("Callable[..., Tensor]", hook)
    signature = inspect.signature(original)
    seen: list[dict[str, Any]] = []

    def watched(*arguments: Any, **options: Any) -> Tensor:
        seen.append(dict(signature.bind(*arguments, **options).arguments))
        return original(*arguments, **options)

    mixer.eval()
    mixer.attend = watched  # type: ignore[assignment]  # shortcuts that would pass the hook by look for one like this
    if isinstance(mixer, WindowAttention):
        padding = (*mixer._padding()[:2], None)
        mixer._padding = lambda: padding  # type: ignore[method-assign]
    try:
        with torch.no_grad():
            _run(mixer, x, context, mask)
        given = seen[0] if seen else _projected(mixer, x, context, mask)
        found = layout(mixer, original, given)
        _check_linear(name, found.attend, found.values)
        grid: Grid = tuple(x.shape[1:-1])
        source: Grid = grid if context is None else tuple(context.shape[1:-1])
        key_grid = _key_grid(source, found.values.shape[-2])
        yield Attending(found.queries, found.keys, found.values, found.attend, grid, key_grid)
    finally:
        del mixer.attend
        vars(mixer).pop("_padding", None)
        mixer.train(training)


def output_values(mixer: QKVAttention, values: Tensor) -> Tensor:
    """What each head adds to the output for each key, [B, heads, M, dim]: its values behind the output projection.

    Args:
        values: [B, heads, M, E], of `Attending`.
    """
    weight = mixer.proj.weight.unflatten(1, (mixer.num_heads, -1))  # [dim, heads, E]
    return torch.einsum("bhme,che->bhmc", values, weight.to(values.dtype))


def _run(mixer: Any, x: Tensor, context: Tensor | None, mask: Tensor | None) -> None:
    if context is None:
        mixer(x, mask=mask)
    else:
        mixer(x, context, context_mask=mask)


def _projected(mixer: Any, x: Tensor, context: Tensor | None, mask: Tensor | None) -> dict[str, Any]:
    """What the hook would be given by a mechanism of the family that goes past it (SMYRF, for padded queries)."""
    source = x if context is None else context
    with torch.no_grad():
        projected = mixer._project_two(x.flatten(1, -2), source.flatten(1, -2))
        q, k, v = (split_heads(t, mixer.num_heads) for t in projected)
    grids = {"q_grid": tuple(x.shape[1:-1]), "kv_grid": tuple(source.shape[1:-1])}
    return {"q": q, "k": k, "v": v, **grids, "mask": None if mask is None else mask.flatten(1)}


def _check_linear(name: str, attend: Attend, values: Tensor) -> None:
    """Raises ValueError unless attend(a + 2 b) is attend(a) + 2 attend(b), as far as the dtype tells."""
    generator = torch.Generator().manual_seed(0)
    shape = (*values.shape[:-1], 3)
    with torch.no_grad():
        a, b = (torch.randn(shape, generator=generator).to(values) for _ in range(2))
        try:
            whole, parts = attend(a + 2 * b), attend(a) + 2 * attend(b)
        except RuntimeError as error:
            raise ValueError(f"{name} takes no values but its own, so it has no attention matrix: {error}") from error
    allowed = 100 * torch.finfo(whole.dtype).eps * max(1.0, float(parts.abs().max()))
    if whole.shape[:-1] != parts.shape[:-1] or not (whole - parts).abs().max() <= allowed:
        raise ValueError(f"{name} is not linear in its values, so that no matrix stands for it")


def _key_grid(source: Grid, keys: int) -> Grid:
    """The grid of so many keys: the source's, or that after pooling by two."""
    pooled: Grid = tuple(max(1, length // 2) for length in source)
    for grid in (source, pooled):
        if torch.Size(grid).numel() == keys:
            return grid
    return (keys,)


def _by_head(weights: Tensor) -> Tensor:
    return weights if weights.dim() == 4 else weights[:, None]
