"""The maps that a person looks at: what some query points of a recorded call see, templates, and windows together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionattn.analysis.attention_maps import stitched_window_maps, template_maps, template_shares
from visionattn.analysis.attention_matrix import attention_rows
from visionattn.analysis.attention_record import Recorded
from visionattn.attention.efficient import EfficientAttention
from visionattn.attention.window import WindowAttention
from visionattn.typing import Grid

_MOST_TEMPLATES = 8
_MOST_PREFIX_TOKENS = 16

Point = tuple[float, float]
"""x and y as shares, 0 to 1, of the picture that the network sees."""


@dataclass(frozen=True)
class AttentionView:
    """One map over a picture.

    Attributes:
        title: what it is.
        weights: [h, w], the mean over the heads; nan where there is nothing to say.
        queries: the points whose query it is of.
        view: the picture that is looked at: 0, or 1 for the other view of a pair.
    """

    title: str
    weights: NDArray[np.float32]
    queries: tuple[Point, ...] = ()
    view: int = 0


def views_of(call: Recorded, points: Sequence[Point], size: tuple[int, int]) -> list[AttentionView]:
    """The maps of a mechanism: of efficient attention its templates, of windows all together, of both and all others
    what the query at each point sees.

    Args:
        call: its first batch entry is looked at (of rows, those of the first image).
        points: of the queries.
        size: height and width of the picture that the network sees.
    Raises:
        TypeError, ValueError: the mechanism has no attention matrix (`attention_matrix`), or it is not known where on
            the picture its tokens lie.
    """
    if call.rows:
        return _row_views(call, points)
    x, context, mask = (None if t is None else t[:1] for t in (call.x, call.context, call.mask))
    assert x is not None
    source = call.x if call.context is None else call.context
    grid, prefix = _map_of(tuple(call.x.shape[1:-1]), size)
    key_grid, key_prefix = (grid, prefix) if call.context is None else _map_of(tuple(source.shape[1:-1]), size)
    other = int(call.context is not None)
    views = []
    if isinstance(call.mixer, EfficientAttention) and call.mixer.normalize_queries:
        views += _template_views(call.mixer, x, context, mask, key_grid, key_prefix, other)
    elif isinstance(call.mixer, WindowAttention):
        stitched = stitched_window_maps(call.mixer, x, mask)[0].mean(dim=0)
        views.append(AttentionView("every window's middle", _array(stitched)))
    cells = [prefix + _cell(point, grid) for point in points]
    rows = attention_rows(call.mixer, x, cells, context, mask)[0].mean(dim=0)  # [points, M]
    for point, row in zip(points, rows, strict=True):
        views.append(AttentionView("", _array(_on_map(row, key_grid, key_prefix)), (point,), other))
    return views


def _template_views(
    mixer: EfficientAttention,
    x: Tensor,
    context: Tensor | None,
    mask: Tensor | None,
    key_grid: Grid,
    prefix: int,
    other: int,
) -> list[AttentionView]:
    """The templates that the queries take most of, of all heads."""
    shares = template_shares(mixer, x, context, mask)[0].flatten(2).mean(-1).flatten()  # [heads d]
    templates = template_maps(mixer, x, context, mask)[0].flatten(2).flatten(0, 1)  # [heads d, M]
    width = len(shares) // mixer.num_heads
    views = []
    for index in shares.topk(min(_MOST_TEMPLATES, len(shares))).indices.tolist():
        head = f"head {index // width}, " if mixer.num_heads > 1 else ""
        title = f"{head}template {index % width}: {shares[index]:.0%}"
        views.append(AttentionView(title, _array(_on_map(templates[index], key_grid, prefix)), view=other))
    return views


def _row_views(call: Recorded, points: Sequence[Point]) -> list[AttentionView]:
    """Of a pair whose positions look along their own row of the other view; both directions are one batch."""
    height, views = len(call.x) // 2, []
    for point in points:
        row, column = _cell((0.0, point[1]), (height, 1)), _cell((point[0], 0.0), (1, call.x.shape[1]))
        x, context, mask = (None if t is None else t[row : row + 1] for t in (call.x, call.context, call.mask))
        assert x is not None
        weights = attention_rows(call.mixer, x, [column], context, mask)[0, :, 0].mean(dim=0)
        whole = torch.full((height, len(weights)), math.nan)
        whole[row] = weights.float()
        views.append(AttentionView("", _array(whole), (point,), 1))
    return views


def _map_of(grid: Grid, size: tuple[int, int]) -> tuple[Grid, int]:
    """Height and width of the map that a grid is, and the tokens in front of it.

    A sequence is the map of a vision transformer, class and register tokens in front, if it has the picture's shape.
    """
    if len(grid) == 2:
        return grid, 0
    if len(grid) == 1:
        for prefix in range(min(_MOST_PREFIX_TOKENS, grid[0] - 1) + 1):
            tokens = grid[0] - prefix
            rows = round(math.sqrt(tokens * size[0] / size[1]))
            if rows and tokens % rows == 0 and rows * size[1] == tokens // rows * size[0]:
                return (rows, tokens // rows), prefix
    raise ValueError(f"its tokens are a grid {grid}, and where these lie on the picture is not known")


def _cell(point: Point, grid: Grid) -> int:
    """The position, row-major, that a point lies in."""
    (x, y), (height, width) = point, grid
    return min(int(y * height), height - 1) * width + min(int(x * width), width - 1)


def _on_map(weights: Tensor, grid: Grid, prefix: int) -> Tensor:
    kept = weights[prefix:]
    if kept.numel() == math.prod(grid):
        return kept.reshape(grid)
    pooled = tuple(max(1, length // 2) for length in grid)  # as NonLocal's sub_sample leaves them
    if kept.numel() == math.prod(pooled):
        return kept.reshape(pooled)
    raise ValueError(f"it looks at {kept.numel()} keys, and where these lie on a map {grid} is not known")


def _array(weights: Tensor) -> NDArray[np.float32]:
    return weights.float().cpu().numpy()
