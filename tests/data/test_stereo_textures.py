"""Textures and outlines of made-up stereo scenes."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from visionattn.data import stereo_textures
from visionattn.data.stereo_outlines import bar, fill, solid, stroke, thin
from visionattn.data.stereo_textures import draw_patterns, draw_tile


@pytest.mark.parametrize("pattern", stereo_textures._PATTERNS, ids=lambda pattern: pattern.__name__)
def test_a_pattern_uses_the_range_and_has_fine_detail(pattern: stereo_textures.Pattern) -> None:
    for seed in range(3):
        drawn = pattern(np.random.default_rng(seed), 128)
        assert (drawn.shape, drawn.dtype) == ((128, 128), np.uint8)
        assert drawn.std() > 20
        assert np.abs(np.diff(drawn.astype(int), axis=1)).mean() > 1
        assert len(np.unique(drawn)) > 20 or pattern is stereo_textures.repeated


def test_fractal_noise_has_all_scales() -> None:
    """What is left of the contrast after blurring falls gently, where white noise would lose it at once."""
    drawn = np.mean(
        [
            [
                cv2.GaussianBlur(stereo_textures.fractal(np.random.default_rng(k), 256), (0, 0), s).std()
                for s in (2, 4, 8)
            ]
            for k in range(6)
        ],
        axis=0,
    )
    white = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
    lost = [cv2.GaussianBlur(white, (0, 0), s).std() for s in (2, 4, 8)]
    assert (drawn[1:] / drawn[:-1] > 0.65).all()
    assert lost[1] / lost[0] < 0.55


def test_tiles_are_of_any_size_some_plain_most_not() -> None:
    rng = np.random.default_rng(0)
    patterns = draw_patterns(rng, 5, 96)
    tiles = [draw_tile(rng, patterns, size) for size in [(20, 30), (97, 160), (300, 41)] * 20]
    assert [tile.shape for tile in tiles[:3]] == [(20, 30, 3), (97, 160, 3), (300, 41, 3)]
    contrasts = np.array([np.mean(np.std(tile, axis=(0, 1))) for tile in tiles])
    assert 0.02 < np.mean(contrasts < 8) < 0.5
    assert np.mean(contrasts > 15) > 0.5
    colours = np.array([tile.mean(axis=(0, 1)) for tile in tiles])
    assert np.ptp(colours, axis=1).mean() > 10, "everything is grey"


def test_a_bar_covers_its_area_wherever_it_points() -> None:
    for turn in np.linspace(0, math.pi, 7):
        mask = fill([bar(30, 9, turn)])
        assert 60 * 9 < mask.sum() / 255 < 62 * 11
        assert mask.shape[0] == mask.shape[1]
        assert mask.shape[0] % 2 == 1
        rows, columns = np.nonzero(mask)
        assert rows.mean() == pytest.approx(len(mask) // 2, abs=0.5)
        assert columns.mean() == pytest.approx(len(mask) // 2, abs=0.5)


def test_the_second_contour_is_a_hole() -> None:
    ring = fill([bar(20, 40, 0.0), bar(10, 20, 0.0)])
    middle = len(ring) // 2
    assert ring[middle, middle] == 0
    assert ring[middle, middle + 15] == 255
    assert 1600 - 400 < ring.sum() / 255 < 42 * 42 - 18 * 18


def test_lines_are_as_thick_as_told() -> None:
    line = stroke([np.array([[-25.0, 0.0], [25.0, 0.0]])], 5)
    assert 5 <= np.count_nonzero(line[:, len(line) // 2] >= 128) <= 7


@pytest.mark.parametrize(
    "draw", [lambda rng: solid(rng, 20.0), lambda rng: thin(rng, 30.0, 3.0)], ids=["solid", "thin"]
)
def test_outlines_are_there_and_end_within_their_mask(draw: object) -> None:
    shares = []
    for seed in range(60):
        mask = draw(np.random.default_rng(seed))  # type: ignore[operator]
        assert mask.dtype == np.uint8
        shares.append((mask >= 128).mean())
        for border in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
            assert not border.any()
    assert min(shares) > 0.005
    assert len(set(shares)) > 50
