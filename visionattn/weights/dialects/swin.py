"""Swin's canonical names, V1 and V2, and what the dialects do to its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from visionattn.ops.relative_position import log_spaced_offsets
from visionattn.ops.window import relative_position_index
from visionattn.typing import Grid
from visionattn.weights.dialects.dialect import Family, State

COMPUTED = ("attn_mask", "relative_position_index", "relative_coords_table")
"""Last parts of the names of buffers that follow from the window and the image size: never loaded."""

_COMMON = (
    r"patch_embed\.(proj|norm)\.(weight|bias)|absolute_pos_embed|norm\d*\.(weight|bias)|head\.fc\.(weight|bias)"
    r"|layers\.\d+\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)"
    r"|layers\.\d+\.blocks\.\d+\.(norm[12]|attn\.proj|mlp\.fc[12])\.(weight|bias)"
    r"|layers\.\d+\.blocks\.\d+\.attn\.qkv\.weight"
)
_V1 = r"|layers\.\d+\.blocks\.\d+\.attn\.(qkv\.bias|relative_position_bias_table)"
_V2 = r"|layers\.\d+\.blocks\.\d+\.attn\.(logit_scale|q_bias|v_bias|cpb_mlp\.(0\.weight|0\.bias|2\.weight))"

_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")
_MERGING = re.compile(r"layers\.\d+\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)")


def is_computed(name: str) -> bool:
    """Whether a tensor of this name is a buffer that its module computes for itself."""
    return name.rpartition(".")[2] in COMPUTED


def _size(state: Mapping[str, Tensor]) -> dict[str, object]:
    blocks = {(int(found[1]), int(found[2])) for name in state if (found := _BLOCK.match(name))}
    stages = range(1 + max((stage for stage, _ in blocks), default=-1))
    size: dict[str, object] = {}
    if "patch_embed.proj.weight" in state:
        size["embed_dim"] = state["patch_embed.proj.weight"].shape[:1].numel()
    size["depths"] = tuple(sum(one == stage for one, _ in blocks) for stage in stages)
    heads = tuple(_heads(state, f"layers.{stage}.blocks.0.attn.") for stage in stages)
    if all(heads):
        size["num_heads"] = heads
    return size


def _heads(state: Mapping[str, Tensor], attention: str) -> int:
    """0 where another mechanism stands there."""
    table, scale = (state.get(attention + name) for name in ("relative_position_bias_table", "logit_scale"))
    if table is not None:
        return table.shape[1] if table.dim() == 2 else 0
    return 0 if scale is None else scale.numel()


SWIN = Family("Swin", re.compile(_COMMON + _V1), _size)
SWIN_V2 = Family("Swin V2", re.compile(_COMMON + _V2), _size)


def merging_from_unfold(state: State) -> State:
    """Patch merging from nn.Unfold's order of channels (channel, row, column) to Swin's (column, row, channel)."""
    return {name: _swapped(value, (-1, 2, 2)) if _MERGING.fullmatch(name) else value for name, value in state.items()}


def merging_to_unfold(state: State) -> State:
    """The inverse of `merging_from_unfold`."""
    return {name: _swapped(value, (2, 2, -1)) if _MERGING.fullmatch(name) else value for name, value in state.items()}


def _swapped(value: Tensor, parts: tuple[int, int, int]) -> Tensor:
    return value.unflatten(-1, parts).transpose(-3, -1).flatten(-3).contiguous()


def bias_split(state: State) -> State:
    """V2's one bias of q, k and v as q_bias and v_bias: that of k is left out, where torchvision sets it to zero."""
    split: State = {}
    for name, value in state.items():
        if name.endswith(".attn.qkv.bias"):
            attention, third = name.removesuffix("qkv.bias"), len(value) // 3
            split[f"{attention}q_bias"], split[f"{attention}v_bias"] = value[:third].clone(), value[-third:].clone()
        else:
            split[name] = value
    return split


def bias_joined(state: State) -> State:
    """The inverse of `bias_split`: the bias of k is zero."""
    joined: State = {}
    for name, value in state.items():
        if name.endswith(".attn.q_bias") and f"{name[:-6]}v_bias" in state:
            joined[f"{name[:-6]}qkv.bias"] = torch.cat([value, torch.zeros_like(value), state[f"{name[:-6]}v_bias"]])
        elif not (name.endswith(".attn.v_bias") and f"{name[:-6]}q_bias" in state):
            joined[name] = value
    return joined


def windows_told(state: Mapping[str, Tensor]) -> dict[str, Grid]:
    """The window of each block ("layers.0.blocks.0") for which a buffer of V2 or a square bias table of V1 tells it."""
    windows: dict[str, Grid] = {}
    for name, value in state.items():
        block, _, last = name.rpartition(".attn.")
        if last == "relative_coords_table" and value.dim() == 4:  # [1, 2 h - 1, 2 w - 1, 2]
            windows[block] = tuple((length + 1) // 2 for length in value.shape[1:3])
        elif last == "relative_position_bias_table" and (side := square_side(len(value))) is not None:
            windows[block] = ((side + 1) // 2, (side + 1) // 2)
    return windows


def square_side(count: int) -> int | None:
    """The side of a square of so many places; None if there is none."""
    side = math.isqrt(max(count, 0))
    return side if side * side == count else None


def index_buffers(windows: Mapping[str, Grid], *, flat: bool) -> State:
    """The row of the bias table for each pair of positions, under canonical names.

    Args:
        windows: of each block.
        flat: [T * T] as torchvision keeps it, not [T, T].
    """
    indices = {block: relative_position_index(window) for block, window in windows.items()}
    return {
        f"{block}.attn.relative_position_index": index.flatten() if flat else index for block, index in indices.items()
    }


def coordinate_buffers(windows: Mapping[str, Grid]) -> State:
    """V2's log-spaced relative coordinates [1, 2 h - 1, 2 w - 1, 2], under canonical names."""
    return {
        f"{block}.attn.relative_coords_table": log_spaced_offsets(window).view(1, *(2 * n - 1 for n in window), 2)
        for block, window in windows.items()
    }


def blocks_of(state: Mapping[str, Tensor]) -> list[str]:
    """The blocks, "layers.0.blocks.0" and so on, in the order of the state."""
    return list(dict.fromkeys(found[0][:-1] for name in state if (found := _BLOCK.match(name))))
