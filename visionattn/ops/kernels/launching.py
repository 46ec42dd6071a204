"""How kernels are launched: tiles, splits and number formats, by fixed tables. Nothing is tuned while a model runs."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from visionattn.ops.kernels.dispatch import INTERPRETED

_IN_INTERPRETER = 1  # so that small sums have parts of several tiles as well as several parts


class Launch(NamedTuple):
    """One kernel's tile of tokens, and how many warps and pipeline stages work on it."""

    tokens: int
    warps: int
    stages: int

    def options(self) -> dict[str, int]:
        return {"num_warps": self.warps, "num_stages": self.stages}


class Splits(NamedTuple):
    """A sum over tokens in parts: their number and their length, a multiple of the tile."""

    parts: int
    tokens: int


def padded(width: int) -> int:
    """The extent of a tile that holds the width: a power of two that matrix units take."""
    return max(16, 1 << (width - 1).bit_length())


def value_tile(block_d: int, values: int, dtype: torch.dtype) -> int:
    """Channels of v that a program of efficient attention holds at once, by the padded width of a head."""
    widest = 128 if block_d <= 64 else 64
    return min(padded(values), widest // 2 if dtype == torch.float32 else widest)


def splits_for(tokens: int, programs: int, tile: int, device: torch.device, *, resident: int = 2) -> Splits:
    """Parts of a sum over tokens, enough of them to fill the device, none shorter than four tiles.

    Args:
        programs: that run per part.
        tile: tokens per step.
        resident: programs that a multiprocessor gets.
    """
    wanted = -(-resident * _multiprocessors(device) // programs)
    most = -(-tokens // (4 * tile)) if device.type == "cuda" else -(-tokens // tile)
    length = -(-tokens // max(1, min(wanted, most)))
    length = -(-length // tile) * tile
    return Splits(-(-tokens // length), length)


def number_format(dtype: torch.dtype) -> dict[str, Any]:
    """The constants DOT and PRECISION of a kernel: what its matrix products multiply.

    The interpreter multiplies in float32, since its products of bfloat16 are wrong. On a GPU float32 is multiplied as
    three products of TF32, which keep float32's digits, or as one where the user allows TF32.
    """
    import triton.language as tl

    formats = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
    # Not torch.get_float32_matmul_precision(), which raises where the newer setting was used.
    exact = torch.backends.cuda.matmul.fp32_precision != "tf32"
    return {
        "DOT": tl.float32 if INTERPRETED else formats.get(dtype, tl.float32),
        "PRECISION": "tf32x3" if exact and dtype == torch.float32 else "tf32",
    }


def wide_number_format(dtype: torch.dtype) -> dict[str, Any]:
    """As `number_format`, for numbers that float16 cannot hold: TF32, which is as precise, takes its place."""
    import triton.language as tl

    return {"DOT": tl.float32, "PRECISION": "tf32"} if dtype == torch.float16 else number_format(dtype)


def as_bytes(mask: Tensor | None) -> tuple[Tensor | None, int, int]:
    """A mask [B, M] as bytes and its strides, or None and zeros."""
    if mask is None:
        return None, 0, 0
    by_image, by_key = mask.stride()
    return mask.view(torch.uint8), by_image, by_key


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return _IN_INTERPRETER
    return torch.cuda.get_device_properties(device).multi_processor_count
