"""What is known of a stereo pair, read from files: disparity maps of every kind, and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from visionattn.data.disparity_png import Disparity, read_disparity_png
from visionattn.data.pfm import read_pfm


@dataclass(frozen=True)
class TruthFormat:
    """How a data set writes what it knows.

    Attributes:
        disparity: reads a disparity map, of the left or of the right image.
        nonoccluded: reads what the right image sees too, bool [H, W], from the files that say so; None where none do.
    """

    disparity: Callable[[str], Disparity]
    nonoccluded: Callable[[Sequence[str]], np.ndarray] | None = None


def read_disparity(
    path: str, *, scale: float = 256.0, bits: int = 16, zero_is_unknown: bool = True, signed: bool = True
) -> Disparity:
    """A map of any kind, by its ending: .pfm or .npy as `read_float_disparity` does, any other as an image.

    Args:
        scale, bits: of an image, as `read_disparity_png` takes them.
        zero_is_unknown, signed: of floats, as `read_float_disparity` takes them.
    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a map; names the file.
    """
    if Path(path).suffix.lower() in (".pfm", ".npy"):
        return read_float_disparity(path, zero_is_unknown=zero_is_unknown, signed=signed)
    return read_disparity_png(path, scale, bits)


def read_float_disparity(path: str, *, zero_is_unknown: bool, signed: bool = False) -> Disparity:
    """A map of floats in pixels, .pfm or .npy; infinity is unknown.

    Args:
        zero_is_unknown: 0 is unknown too.
        signed: the map may hold the displacement, which is -disparity in the left image: a map without any value above
            0 is turned round.
    Raises:
        FileNotFoundError: no such file.
        ValueError: no map, NaN in it, or a sign that it must not have; names the file.
    """
    values = _floats(path)
    if values.ndim != 2:
        raise ValueError(f"{path} has shape {list(values.shape)}; a disparity map is [H, W]")
    if np.isnan(values).any():
        raise ValueError(f"{path} holds NaN {_where(np.isnan(values))}; write infinity where nothing is known")
    valid = np.isfinite(values)
    known = np.where(valid, values, np.float32(0))
    if known.min() < 0:
        if not signed or known.max() > 0:
            also = " beside positive ones" if known.max() > 0 else ""
            raise ValueError(
                f"{path} holds negative disparities{also} {_where(known < 0)}; expected x_left - x_right, "
                "0 or more, and infinity where nothing is known"
            )
        known = -known
    if zero_is_unknown:
        valid &= known > 0
    return Disparity(known, valid)


def marked(paths: Sequence[str]) -> np.ndarray:
    """Where the mask is 255: Middlebury's and ETH3D's, which has 128 where only the left image sees."""
    (path,) = paths
    return read_mask(path) == 255


def unmarked(paths: Sequence[str]) -> np.ndarray:
    """Where every mask is 0: Scene Flow's and Sintel's, which mark what is hidden."""
    return np.logical_and.reduce([read_mask(path) == 0 for path in paths])


def known_in_png(paths: Sequence[str]) -> np.ndarray:
    """Where the disparity map knows anything: KITTI's map of what both images see."""
    (path,) = paths
    return read_disparity_png(path).valid


def read_mask(path: str) -> np.ndarray:
    """An image of one channel, uint8 [H, W]; 1 bit becomes 0 and 255.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no image.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no mask {path}")
    mask = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError(f"{path} cannot be decoded as an image; replace the file or take it out of the list")
    return mask


def _floats(path: str) -> np.ndarray:
    if Path(path).suffix.lower() == ".pfm":
        return read_pfm(path)
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no array file of numpy ({error}); write the map again by numpy.save") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        held = values.dtype if isinstance(values, np.ndarray) else "an archive"
        raise ValueError(f"{path} holds {held}; expected one array of disparities in pixels")
    return values.astype(np.float32)


def _where(pixels: np.ndarray) -> str:
    row, column = np.unravel_index(int(pixels.argmax()), pixels.shape)
    more = int(pixels.sum()) - 1
    return f"at row {row}, column {column}" + (f" and {more:,} more pixels" if more else "")
