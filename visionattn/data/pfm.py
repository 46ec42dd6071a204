"""PFM: the float maps of Scene Flow, Middlebury and ETH3D.

"Pf" or "PF", width, height and scale, each followed by white space; then rows of 32-bit floats, the lowest row first.
The sign of the scale is the byte order (negative is little-endian). Its size means nothing here: Middlebury writes
0.003922 where the values are pixels already. (OpenCV 5.0 divides by it, and refuses headers of Scene Flow.)
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

_CHANNELS = {b"Pf": 1, b"PF": 3}
_LONGEST_HEADER = 256


class PfmHeader(NamedTuple):
    """What stands before the values.

    Attributes:
        height, width: pixels.
        channels: 1 or 3.
        dtype: of a value, with its byte order.
        offset: bytes before the first value.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype
    offset: int


def read_pfm(path: str | Path, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
    """The map, or a crop of it, float32 [H, W] or [H, W, 3], the top row first. Only the crop is read from the disk.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no PFM, or not as long as its header says.
    """
    path = Path(path)
    with path.open("rb") as file:
        header = read_header(file, path)
        held = file.seek(0, 2) - header.offset
    height, width, channels, dtype, offset = header
    wanted = height * width * channels * dtype.itemsize
    if held != wanted:
        raise ValueError(
            f"{path} is {'cut short' if held < wanted else 'too long'}: its header promises {width} x {height} x "
            f"{channels} values in {wanted} bytes, {held} follow; copy the file again"
        )
    stored = np.memmap(path, dtype, "r", offset, (height, width, channels))
    crop = np.ascontiguousarray(stored[::-1][rows, columns], dtype=np.float32)
    return crop[..., 0] if channels == 1 else crop


def write_pfm(path: str | Path, values: np.ndarray) -> None:
    """Writes float32 values [H, W] or [H, W, 3], the top row first, little-endian.

    Raises:
        ValueError: another shape.
    """
    if not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)) or not values.size:
        raise ValueError(f"a PFM holds [H, W] or [H, W, 3], got {list(values.shape)}")
    kind = "Pf" if values.ndim == 2 else "PF"
    with Path(path).open("wb") as file:
        file.write(f"{kind}\n{values.shape[1]} {values.shape[0]}\n-1.0\n".encode())
        file.write(np.ascontiguousarray(values[::-1], dtype="<f4").tobytes())


def read_header(file: BinaryIO, path: Path) -> PfmHeader:
    """The header of an open file; any white space may stand between its four words.

    Raises:
        ValueError: there is none.
    """
    start = file.read(_LONGEST_HEADER)
    words, offset = [], 0
    for _ in range(4):
        while start[offset : offset + 1].isspace():
            offset += 1
        begin = offset
        while offset < len(start) and not start[offset : offset + 1].isspace():
            offset += 1
        words.append(start[begin:offset])
    offset += 2 if start[offset : offset + 2] == b"\r\n" else 1  # one white space ends the header; more are values
    kind, *numbers = words
    if kind not in _CHANNELS:
        raise ValueError(f'{path} is no PFM: it begins with {kind[:8]!r}, expected "Pf" or "PF"')
    try:
        width, height, scale = int(numbers[0]), int(numbers[1]), float(numbers[2])
    except ValueError:
        width = height = 0
        scale = 0.0
    if width < 1 or height < 1 or scale == 0.0 or scale != scale:
        shown = b" ".join(numbers)[:40].decode(errors="replace")
        raise ValueError(f"{path} has no PFM header: expected width, height and a scale that is not 0, got {shown!r}")
    return PfmHeader(height, width, _CHANNELS[kind], np.dtype("<f4" if scale < 0 else ">f4"), offset)
