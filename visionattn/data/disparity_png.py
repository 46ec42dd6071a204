"""Disparity maps kept as PNG images: a whole number per pixel, 0 where nothing is known.

KITTI 256, InStereo2K 100 and CREStereo 32 steps per pixel in 16 bits, Middlebury 2003 to 2006 in 8 bits; Sintel spreads
its number over three channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np


class Disparity(NamedTuple):
    """A disparity map.

    Attributes:
        disparity: float32 [H, W], pixels, 0 where nothing is known.
        valid: bool [H, W], where something is known.
    """

    disparity: np.ndarray
    valid: np.ndarray


def read_disparity_png(path: str | Path, scale: float = 256.0, bits: int = 16) -> Disparity:
    """The map of a grey PNG: its numbers over `scale`.

    Args:
        path: the file.
        scale: steps per pixel of disparity; KITTI's if left out.
        bits: of the file, 8 or 16; a file of another depth has another scale.
    Raises:
        FileNotFoundError: no such file.
        ValueError: no image, colours, or another depth.
    """
    steps = _read(path)
    if steps.ndim != 2 or steps.dtype.itemsize * 8 != bits:
        raise ValueError(f"{path}: expected one channel of {bits} bits, got {_kind(steps)}; is it a disparity map?")
    return Disparity((steps / np.float32(scale)).astype(np.float32, copy=False), steps > 0)


def write_disparity_png(path: str | Path, disparity: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Writes KITTI's form: 16 bits, 256 steps per pixel, 0 where `valid` is False.

    What is valid and below half a step is written as one step, for 0 would say that it is unknown.

    Args:
        path: ends in .png.
        disparity: [H, W], pixels.
        valid: bool [H, W]; where the disparity is finite and 0 or more, if None.
    Raises:
        ValueError: a valid disparity that is negative, not finite, or 256 pixels or more; or another shape.
        OSError: the file cannot be written.
    """
    if disparity.ndim != 2 or (valid is not None and valid.shape != disparity.shape):
        raise ValueError(f"expected disparity and valid of one shape [H, W], got {disparity.shape}")
    valid = np.isfinite(disparity) & (disparity >= 0) if valid is None else valid
    known = disparity[valid]
    if known.size and not (known.min() >= 0 and known.max() <= 65535 / 256):  # so is NaN
        raise ValueError(
            f"16 bits of 256 steps hold disparities from 0 to {65535 / 256:.3f}, got {known.min()} to {known.max()}; "
            "write a PFM, which holds any"
        )
    steps = np.zeros(disparity.shape, np.uint16)
    steps[valid] = np.maximum(np.rint(known.astype(np.float64) * 256), 1)
    if not cv2.imwrite(str(path), steps):
        raise OSError(f"{path} cannot be written; does its folder exist, and may you write there?")


def read_sintel_disparity(path: str | Path) -> Disparity:
    """Sintel's map: 4 R + G / 64 + B / 16384 of a colour PNG. Every pixel is known; what is hidden lies in other files.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no image, or no colours of 8 bits.
    """
    colours = _read(path)
    if colours.ndim != 3 or colours.dtype != np.uint8:
        raise ValueError(f"{path}: expected three channels of 8 bits, got {_kind(colours)}; is it one of Sintel's?")
    blue, green, red = (colours[..., channel].astype(np.float32) for channel in range(3))  # OpenCV's order
    return Disparity(red * 4 + green / 64 + blue / 16384, np.ones(red.shape, bool))


def _read(path: str | Path) -> np.ndarray:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no disparity map {path}")
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise ValueError(f"{path} cannot be decoded as an image; replace the file or take it out of the list")
    return stored


def _kind(stored: np.ndarray) -> str:
    channels = 1 if stored.ndim == 2 else stored.shape[2]
    return f"{channels} of {stored.dtype.itemsize * 8} bits"
