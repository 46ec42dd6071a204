"""What is learned for one window or image size, interpolated to another's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.ops.position_embedding import resized_position_embedding
from visionattn.weights.dialects.swin import square_side

_POSITIONS = ("absolute_pos_embed", "pos_embed", "pos_embedding")
_MOST_PREFIX_TOKENS = 16


def resized(model: nn.Module, own: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of `state`, the bias tables and position embeddings that have another extent than the model's, in the model's.

    The model says its windows and grids where it can (ours, timm's, torchvision's and mmseg's do), the file does not:
    those of the file, and others, are taken for squares.

    Args:
        own: the model's state dict.
    """
    found = {}
    for name, value in state.items():
        target = own.get(name)
        if not isinstance(value, Tensor) or not isinstance(target, Tensor) or value.shape == target.shape:
            continue
        owner, _, last = name.rpartition(".")
        fitting = None
        if last == "relative_position_bias_table":
            fitting = _table(value, target, _pair(model, owner, "window", "window_size"))
        elif last in _POSITIONS:
            fitting = _positions(value, target, _pair(model, owner, "grid", "patch_embed.grid_size"))
        if fitting is not None and fitting.shape == target.shape:
            found[name] = fitting
    return found


def resized_bias_table(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """The relative position biases of another window: bicubic, as in microsoft/Swin-Transformer, in float32 at least.

    Args:
        table: [(2 h - 1) * (2 w - 1), heads].
        old: its window (h, w).
        new: the window wanted.
    """
    before, after = ((2 * height - 1, 2 * width - 1) for height, width in (old, new))
    image = table.t().reshape(1, -1, *before).to(torch.promote_types(table.dtype, torch.float32))
    image = F.interpolate(image, after, mode="bicubic", align_corners=False)
    return image[0].flatten(1).t().to(table.dtype).contiguous()


def _table(table: Tensor, target: Tensor, window: tuple[int, int] | None) -> Tensor | None:
    """None where a window is unknown."""
    if table.dim() != 2:
        return None
    before, after = square_side(len(table)), square_side(len(target))
    if window is None and after is not None:
        window = ((after + 1) // 2, (after + 1) // 2)
    if before is None or window is None:
        return None
    return resized_bias_table(table, ((before + 1) // 2, (before + 1) // 2), window)


def _positions(embedding: Tensor, target: Tensor, grid: tuple[int, int] | None) -> Tensor | None:
    """None where a grid is unknown, or the model has tokens without a place that the file has not.

    Rows before those of the grid belong to class tokens and the like; those that the model has not are dropped.
    """
    if embedding.dim() != 3 or target.dim() != 3:
        return None
    rows, wanted = embedding.shape[1], target.shape[1]
    for prefix in range(_MOST_PREFIX_TOKENS) if grid is None else (wanted - math.prod(grid),):
        side = square_side(wanted - prefix)
        new = grid or (side and (side, side))
        before = prefix if grid is None else _prefix_rows(rows, prefix)
        old = None if before is None else square_side(rows - before)
        if before is not None and old and new:
            kept = torch.cat([embedding[:, :prefix], embedding[:, before:]], dim=1)
            return resized_position_embedding(kept, (old, old), new)
    return None


def _prefix_rows(rows: int, least: int) -> int | None:
    """How many rows come before those of a square grid: the fewest that there can be."""
    return next((count for count in range(least, _MOST_PREFIX_TOKENS) if square_side(rows - count)), None)


def _pair(model: nn.Module, owner: str, *names: str) -> tuple[int, int] | None:
    """The first pair of whole numbers that the owner, a module of the model, has under one of the dotted names."""
    for name in names:
        value: Any = model.get_submodule(owner)
        for part in name.split("."):
            value = getattr(value, part, None)
        if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(length, int) for length in value):
            return value[0], value[1]
    return None
