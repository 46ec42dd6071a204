"""Swapped pairs are noticed, others are not."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.data.images import read_image
from visionattn.stereo.pair_check import looks_swapped

DATA = Path(os.environ.get("VISIONATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "stereo"
NAMES = (("im2", "im6"), ("view1", "view5"), ("im0", "im1"), ("left", "right"), ("left_cleanpass", "right_cleanpass"))
PAIRS = [
    tuple(folder / f"{name}.png" for name in names)
    for folder in sorted(DATA.glob("*/"))
    for names in NAMES
    if (folder / f"{names[0]}.png").is_file()
]


def _shifted(height: int, width: int, shift: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two views of a texture that lies `shift` pixels further left in the second."""
    texture = np.random.default_rng(seed).integers(0, 256, (height, width + 2 * shift, 3), dtype=np.uint8)
    texture = cv2.GaussianBlur(texture, (0, 0), 1.5)
    return np.ascontiguousarray(texture[:, shift:-shift]), np.ascontiguousarray(texture[:, 2 * shift :])


@pytest.mark.parametrize(("height", "width", "shift"), [(60, 100, 7), (30, 40, 5), (200, 700, 30)])
def test_the_side_to_which_things_move_tells_the_two_apart(height: int, width: int, shift: int) -> None:
    left, right = _shifted(height, width, shift)
    assert not looks_swapped(left, right)
    assert looks_swapped(right, left)


def test_brightness_of_the_cameras_does_not_matter() -> None:
    left, right = _shifted(60, 100, 7)
    darker = (right // 2 + 20).astype(np.uint8)
    assert not looks_swapped(left, darker)
    assert looks_swapped(darker, left)


def test_where_nothing_can_be_told_nothing_is_said() -> None:
    left, _ = _shifted(60, 100, 7)
    other, _ = _shifted(60, 100, 7, seed=1)
    for one, two in (
        (left, left),
        (left, other),
        (left * 0, left * 0),
        (left[:3], left[:3]),
        (left[:, :5], left[:, :5]),
    ):
        assert not looks_swapped(one, two)
        assert not looks_swapped(two, one)


@pytest.mark.skipif(not PAIRS, reason=f"no stereo pairs in {DATA}")
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].parent.name)
def test_real_pairs_are_told_apart(pair: tuple[Path, Path]) -> None:
    left, right = (read_image(path) for path in pair)
    assert not looks_swapped(left, right)
    assert looks_swapped(right, left)
