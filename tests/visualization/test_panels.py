"""Panels, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from visionattn.visualization.palette import class_palette
from visionattn.visualization.panels import WRONG, segmentation_panel

NAMES = ("road", "tree", "sky")
PALETTE = ((128, 64, 128), (0, 120, 0), (0, 0, 250))


def _scene(height: int, width: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([height, width])
    truth = rng.integers(0, classes, (height, width))
    prediction = np.where(rng.random((height, width)) < 0.7, truth, rng.integers(0, classes, (height, width)))
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), truth, prediction


def _tiles(panel: np.ndarray, size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Cuts the tiles out of a panel: the one place, equally far apart, where the input's tile is."""
    height, width = size
    gap = (panel.shape[1] - count * width) // (count + 1)
    paper = (panel == 255).all(axis=(1, 2))
    blocks = np.flatnonzero(np.diff(np.concatenate([[True], paper, [True]]).astype(int)))
    starts, ends = blocks[::2], blocks[1::2]
    top = starts[np.argmax(ends - starts)]
    lefts = [gap + number * (width + gap) for number in range(count)]
    return [panel[top : top + height, left : left + width] for left in lefts]


def test_red_is_exactly_where_the_prediction_is_wrong() -> None:
    image, truth, prediction = _scene(37, 52)
    truth[:5, :7] = 255
    panel = segmentation_panel(image, truth, prediction, NAMES, PALETTE)
    error = _tiles(panel, (37 * 7, 52 * 7), 4)[3]
    red = (error == WRONG).all(axis=-1)
    wrong = (truth != prediction) & (truth != 255)
    assert wrong.any()
    np.testing.assert_array_equal(red, wrong.repeat(7, axis=0).repeat(7, axis=1))
    assert (error[~red].max(axis=-1) == error[~red].min(axis=-1)).all(), "what is right is grey"


def test_ignored_pixels_are_no_error() -> None:
    image, truth, _ = _scene(300, 280)
    truth[100:200] = 255
    prediction = np.where(truth == 255, 0, truth)
    prediction[0, :7] = (truth[0, :7] + 1) % 3
    other = np.where(truth == 255, 1, prediction)
    panels = [segmentation_panel(image, truth, p, NAMES, PALETTE) for p in (prediction, other)]
    width = panels[0].shape[1]
    np.testing.assert_array_equal(*(panel[:, width * 3 // 4 :] for panel in panels))  # the share in the title included
    truth[0, :7] = 255
    assert not (segmentation_panel(image, truth, prediction, NAMES, PALETTE) == WRONG).all(axis=-1).any()


def test_full_alpha_shows_the_palette_and_ignored_pixels_are_hatched() -> None:
    image, truth, prediction = _scene(300, 280)
    truth[100:200] = 255
    tiles = _tiles(segmentation_panel(image, truth, prediction, NAMES, PALETTE, alpha=1.0), (300, 280), 4)
    np.testing.assert_array_equal(tiles[0], image)
    colours = np.array(PALETTE, np.uint8)
    known = truth != 255
    np.testing.assert_array_equal(tiles[1][known], colours[truth[known]])
    np.testing.assert_array_equal(tiles[2], colours[prediction])
    for tile in (tiles[1], tiles[3]):
        assert {tuple(c) for c in tile[~known].tolist()} == {(176,) * 3, (226,) * 3}


def test_alpha_blends_over_the_grey_picture() -> None:
    image = np.full((256, 256, 3), 200, np.uint8)
    image[..., 0] = 50  # luminance .299 * 50 + .701 * 200 = 155
    prediction = np.ones((256, 256), int)
    tile = _tiles(segmentation_panel(image, None, prediction, NAMES, PALETTE, alpha=0.25), (256, 256), 2)[1]
    assert np.abs(tile - (0.25 * np.array(PALETTE[1]) + 0.75 * 155)).max() <= 1


def test_without_truth_there_are_two_tiles() -> None:
    image, truth, prediction = _scene(256, 301)
    two = segmentation_panel(image, None, prediction, NAMES, PALETTE)
    four = segmentation_panel(image, truth, prediction, NAMES, PALETTE)
    gap = four.shape[1] - two.shape[1] - 2 * 301
    assert gap > 0
    assert gap % 2 == 0
    np.testing.assert_array_equal(_tiles(two, (256, 301), 2)[0], image)
    np.testing.assert_array_equal(_tiles(two, (256, 301), 2)[1], _tiles(four, (256, 301), 4)[2])


def test_the_legend_has_the_classes_that_occur_and_no_other() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    truth, prediction = np.zeros((2, 256, 256), int)
    prediction[0, 0] = 2

    def colours(panel: np.ndarray) -> set[tuple[int, int, int]]:
        return {tuple(c) for c in panel[-40:].reshape(-1, 3).tolist()}

    found = colours(segmentation_panel(image, truth, prediction, NAMES, PALETTE))
    assert {PALETTE[0], PALETTE[2], WRONG} <= found
    assert PALETTE[1] not in found
    found = colours(segmentation_panel(image, truth, truth, NAMES, PALETTE))
    assert PALETTE[0] in found
    assert not {PALETTE[1], PALETTE[2], WRONG} & found


def test_a_long_legend_wraps_and_loses_nothing() -> None:
    image, truth, prediction = _scene(40, 40, classes=150)
    names = [f"a class called {i}" for i in range(150)]
    truth.flat[:150] = np.arange(150)
    panel = segmentation_panel(image, truth, prediction, names)
    legend = {tuple(c) for c in panel[330:].reshape(-1, 3).tolist()}
    assert set(class_palette(150)) <= legend
    assert panel.shape[0] > 600
    assert (panel[:, -2:] == 255).all(), "something reaches the edge"


def test_a_long_name_widens_the_page() -> None:
    image, _, prediction = _scene(30, 30, classes=2)
    narrow = segmentation_panel(image, None, prediction, ("a", "b"))
    wide = segmentation_panel(image, None, prediction, ("a", "b" * 200))
    assert wide.shape[1] > 1000 > narrow.shape[1]
    assert (wide[:, -2:] == 255).all(), "something reaches the edge"


def test_classes_beyond_the_palette_get_a_colour() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    tile = _tiles(segmentation_panel(image, None, np.full((256, 256), 2), NAMES, PALETTE[:1], alpha=1.0), (256, 256), 2)
    assert (tile[1] == class_palette(3)[2]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (3, 2000), (2048, 1024), (1025, 3)])
def test_any_size_becomes_a_picture_for_people(size: tuple[int, int]) -> None:
    image, truth, prediction = _scene(*size)
    panel = segmentation_panel(image, truth, prediction, NAMES, PALETTE)
    assert panel.dtype == np.uint8
    assert panel.shape[0] <= 1200
    assert 250 <= panel.shape[1] <= 4200


def test_the_picture_is_not_changed() -> None:
    image, truth, prediction = _scene(30, 40)
    before = image.copy(), truth.copy(), prediction.copy()
    segmentation_panel(image, truth, prediction, NAMES, PALETTE)
    for now, then in zip((image, truth, prediction), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_labels_of_eight_bits_do() -> None:
    image, truth, prediction = _scene(33, 31)
    truth[0] = 255
    wide = segmentation_panel(image, truth, prediction, NAMES)
    np.testing.assert_array_equal(
        segmentation_panel(image, truth.astype(np.uint8), prediction.astype(np.uint8), NAMES), wide
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": np.zeros((4, 5), np.uint8)},
            r"expected an 8-bit RGB image of shape \[H, W, 3\], got uint8 \[4, 5\]",
        ),
        ({"image": np.zeros((4, 5, 3))}, "expected an 8-bit RGB image .* got float64"),
        ({"truth": np.zeros((5, 4), int)}, r"the truth has shape \[5, 4\], the image \[4, 5\]"),
        ({"truth": np.full((4, 5), 3)}, "the truth has labels 3 to 3, but there are 3 classes"),
        ({"prediction": np.full((4, 5), 255)}, "the prediction has labels 255 to 255, but there are 3 classes"),
        ({"alpha": 1.5}, "alpha=1.5 must be from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, message: str) -> None:
    arguments = {
        "image": np.zeros((4, 5, 3), np.uint8),
        "truth": np.zeros((4, 5), int),
        "prediction": np.zeros((4, 5), int),
        "classes": NAMES,
    }
    with pytest.raises(ValueError, match=message):
        segmentation_panel(**(arguments | change))
