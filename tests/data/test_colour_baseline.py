"""The colour classifier against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from visionattn.data.colour_baseline import colour_classifier_miou

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _image(*rows: list[tuple[int, int, int]]) -> np.ndarray:
    return np.array(rows, np.uint8)


def test_known_answer() -> None:
    # Red is class 0 twice and class 1 once; green is class 1; class 2 is never learned; blue is new in validation and
    # gets the most frequent class, 0 (three of five pixels).
    train = [
        (_image([RED, RED, RED, GREEN]), np.array([[0, 0, 1, 1]])),
        (_image([GREEN, (255, 255, 255)]), np.array([[255, 0]])),
    ]
    val = [(_image([RED, GREEN, GREEN], [BLUE, RED, RED]), np.array([[0, 1, 0], [2, 255, 1]]))]
    # truth 0 1 0 2 1, prediction 0 1 1 0 0
    miou, iou = colour_classifier_miou(train, val, 4)
    np.testing.assert_allclose(iou, [1 / 4, 1 / 3, 0, np.nan])
    assert miou == pytest.approx((1 / 4 + 1 / 3) / 3)


def test_separable_colours_score_perfectly_unless_joined() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (13, 17))
    image = (labels[..., None] * np.array([9, 5, 3]) + 100).astype(np.uint8)
    miou, iou = colour_classifier_miou([(image, labels)], [(image, labels)], 3, bins=256)
    assert miou == 1.0
    assert (iou == 1).all()
    joined, _ = colour_classifier_miou([(image, labels)], [(image, labels)], 3, bins=1)
    assert joined == pytest.approx(np.bincount(labels.ravel()).max() / labels.size / 3)


def test_every_channel_counts() -> None:
    labels = np.arange(8).reshape(1, 8)
    image = (np.stack([labels & 1, labels >> 1 & 1, labels >> 2], axis=-1) * 255).astype(np.uint8)
    assert colour_classifier_miou([(image, labels)], [(image, labels)], 8, bins=2)[0] == 1.0


def test_generators_are_read_once() -> None:
    pair = (_image([RED, GREEN]), np.array([[0, 1]]))
    assert colour_classifier_miou(iter([pair]), iter([pair]), 2)[0] == 1.0


@pytest.mark.parametrize(
    ("image", "labels", "options", "message"),
    [
        (_image([RED, RED]), [[0, 2]], {}, "labels go from 0 to 2, but there are 2 classes"),
        (_image([RED, RED]), [[-1, 1]], {}, "labels go from -1 to 1"),
        (_image([RED, RED]), [[0], [1]], {}, r"shape \[2, 1, 3\] for labels of shape \[2, 1\], got uint8 \[1, 2, 3\]"),
        (_image([RED, RED]) / 255.0, [[0, 1]], {}, "expected an 8-bit image .* got float64"),
        (_image([RED, RED]), [[255, 255]], {}, "the training pairs have no labelled pixel"),
        (_image([RED, RED]), [[0, 1]], {"bins": 0}, "bins=0 must be from 1 to 256"),
    ],
)
def test_bad_pairs_are_named(image: np.ndarray, labels: list, options: dict[str, int], message: str) -> None:
    pair = (image, np.array(labels))
    with pytest.raises(ValueError, match=message):
        colour_classifier_miou([pair], [pair], 2, **options)


def test_validation_without_labels_is_named() -> None:
    pair = (_image([RED, RED]), np.array([[0, 1]]))
    with pytest.raises(ValueError, match="the validation pairs have no labelled pixel"):
        colour_classifier_miou([pair], [], 2)
