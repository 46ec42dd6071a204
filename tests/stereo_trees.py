"""Tiny stereo trees with known answers: of every pair all files hold one number, so that mispaired files show."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from visionattn.data.pfm import write_pfm

HEIGHT, WIDTH = 5, 8


def key_of(name: str) -> int:
    """A number for a pair, 1 to 240."""
    return 1 + zlib.crc32(name.encode()) % 240


def write_image(path: Path, value: int, shape: tuple[int, ...] = (HEIGHT, WIDTH, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(shape, value, np.uint8))


def write_map(path: Path, value: float, scale: float = 256, dtype: Any = np.uint16) -> None:
    """A disparity map of this value, in pixels, unknown in the first pixel unless the map is a PFM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pfm":
        write_pfm(path, np.full((HEIGHT, WIDTH), value, np.float32))
        return
    steps = np.full((HEIGHT, WIDTH), round(value * scale), dtype)
    steps[0, 0] = 0
    assert cv2.imwrite(str(path), steps)


def write_views(left: Path, right: Path, key: int) -> None:
    write_image(left, key)
    write_image(right, key + 1)


def check_pair(sample: Mapping[str, Any]) -> int:
    """Asserts that the sample's files are those of one pair; returns its number."""
    key = int(sample["left"][1, 1, 0])
    assert sample["left"].shape == sample["right"].shape == (HEIGHT, WIDTH, 3)
    assert sample["left"].dtype == sample["right"].dtype == np.uint8
    assert (sample["left"] == key).all()
    assert (sample["right"] == key + 1).all(), sample["right_path"]
    if "disparity" in sample:
        assert sample["disparity"].dtype == np.float32
        assert sample["valid"].dtype == np.bool_
        assert (sample["disparity"][sample["valid"]] == key / 4).all(), sample["disparity_path"]
        assert (sample["disparity"][~sample["valid"]] == 0).all()
    if "right_disparity" in sample:
        assert sample["right_disparity"][1, 1] == key / 4 + 1
    return key


def write_scene_flow_frame(
    images: Path, maps: Path, folder: str, frame: str, *, sign: float = 1, suffix: str = ".png"
) -> None:
    """One frame below a folder of images and one of maps; the number is that of `folder` and `frame`."""
    key = key_of(f"{folder}/{frame}")
    write_views(images / folder / "left" / (frame + suffix), images / folder / "right" / (frame + suffix), key)
    write_map(maps / folder / "left" / f"{frame}.pfm", sign * key / 4)
    write_map(maps / folder / "right" / f"{frame}.pfm", key / 4 + 1)
