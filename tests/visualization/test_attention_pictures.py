"""Attention over pictures: where it is bright, where it is bare, where the rings are."""

from __future__ import annotations

import numpy as np
import pytest

from visionattn.visualization.attention_pictures import heat_picture, marked, seen_picture


def test_the_highest_weight_is_brightest_and_nothing_is_bare() -> None:
    picture = np.full((64, 96, 3), 120, np.uint8)
    weights = np.zeros((4, 6))
    weights[1, 4], weights[3] = 0.7, np.nan
    heat = heat_picture(picture, weights)
    height, width = heat.shape[:2]
    assert (height / 64, width / 96) == (height // 64, height // 64)
    blocks = heat.reshape(4, height // 4, 6, width // 6, 3).astype(float)
    assert blocks[:3].std(axis=(1, 3)).max() < 1, "a weight is one block"
    mean = blocks.mean(axis=(1, 3))
    assert np.unravel_index(mean[:3].sum(-1).argmax(), (3, 6)) == (1, 4)
    assert min(mean[1, 4, :2]) > 1.4 * mean[1, 4, 2], "yellow"
    np.testing.assert_allclose(mean[3], 120, atol=1)
    np.testing.assert_allclose(mean[0], 0.45 * 120, atol=1)


def test_no_weights_at_all_are_dark() -> None:
    heat = heat_picture(np.full((8, 8, 3), 100, np.uint8), np.zeros((2, 2)))
    np.testing.assert_allclose(heat, 45, atol=1)


def test_a_normalised_picture_is_stretched() -> None:
    rng = np.random.default_rng(0)
    normalised = rng.normal(0, 1, (3, 20, 30)).astype(np.float32)
    shown = seen_picture(normalised)
    assert shown.shape == (20, 30, 3)
    assert (shown.min(), shown.max()) == (0, 255)
    place = np.unravel_index(normalised.argmax(), normalised.shape)
    assert shown[place[1], place[2], place[0]] == 255
    assert seen_picture(np.zeros((1, 4, 5), np.float32)).shape == (4, 5, 3)


@pytest.mark.parametrize("point", [(0.5, 0.25), (0.0, 0.0), (1.0, 1.0)])
def test_a_ring_is_around_its_point(point: tuple[float, float]) -> None:
    plain = np.full((200, 300, 3), 90, np.uint8)
    ringed = marked(plain.copy(), [point])
    rows, columns = np.nonzero((ringed != plain).any(axis=-1))
    assert abs(rows - point[1] * 200).max() <= 9
    assert abs(columns - point[0] * 300).max() <= 9
    numbered = marked(plain.copy(), [point], [3])
    assert (numbered != plain).any(axis=-1).sum() > (ringed != plain).any(axis=-1).sum()
