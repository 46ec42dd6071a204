from __future__ import annotations

import numpy as np
import pytest

from visionattn.visualization.objects import object_tile

RED, BLUE = (250, 0, 0), (0, 0, 250)
GREY = np.full((300, 400, 3), 100, np.uint8)


def drawn(boxes, labels, **options):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return object_tile(GREY, boxes, np.array(labels, int), ("a", "b"), palette=[RED, BLUE], **options)


def test_boxes_lie_where_they_are_in_their_class_s_colour():
    tile = drawn([[50, 60, 150, 200], [200, 20, 390, 280]], [0, 1])
    assert tile.shape == (300, 400, 3)
    for (left, top, right, bottom), colour in (((50, 60, 150, 200), RED), ((200, 20, 390, 280), BLUE)):
        assert (tile[top + 40 : bottom, left] == colour).all()
        assert (tile[top + 40 : bottom, right] == colour).all()
        assert (tile[bottom, left:right] == colour).all()
        assert (tile[bottom - 10, left + 10 : right - 10] == 100).all()  # inside it is the picture
    assert (tile[:15] == 100).all()


def test_name_is_written_readably():
    tile = drawn([[50, 60, 150, 200]], [0], scores=np.array([0.5]))
    corner = tile[62:80, 52:110].reshape(-1, 3)
    assert (corner == RED).all(axis=1).mean() > 0.3  # on the class's colour
    assert (corner.min(axis=1) > 240).any()  # in white, which is read on red
    longer = drawn([[50, 60, 150, 200]], [0])
    assert (longer[62:80, 80:110] == 100).all()  # without the score there is less to read


def test_masks_are_transparent_and_crowds_hatched():
    masks = np.zeros((2, 300, 400), np.uint8)
    masks[0, 100:150, 60:120] = 1
    masks[1, 100:150, 220:280] = 1
    boxes = [[50, 60, 150, 200], [200, 20, 390, 280]]
    tile = drawn(boxes, [0, 1], masks=masks, crowd=np.array([False, True]))
    inside = tile[102:148, 62:118]
    assert (inside == inside[0, 0]).all()
    assert inside[0, 0, 0] > 130
    assert inside[0, 0, 2] < 70
    assert (tile[160:190, 62:118] == 100).all()
    crowd = tile[102:148, 222:278]
    assert crowd.std() > 5  # stripes
    assert (crowd[..., 0] == crowd[..., 2]).all()  # without a colour
    without = drawn(boxes, [0, 1], crowd=np.array([False, True]))
    assert without[102:148, 222:278].std() > 5  # of all the box


def test_small_pictures_are_enlarged_with_their_boxes():
    image = np.full((64, 96, 3), 100, np.uint8)
    tile = object_tile(image, np.array([[10.0, 20.0, 95.9, 63.9]]), np.array([0]), ("a",), palette=[RED])
    assert tile.shape == (256, 384, 3)
    assert (tile[200, 40] == RED).all()
    assert (tile[200, 383] == RED).all()  # the border's is in the picture


def test_nothing_to_draw():
    assert (drawn(np.zeros((0, 4)), []) == 100).all()


def test_what_does_not_belong_together():
    with pytest.raises(ValueError, match="as many of each are needed: 1 boxes, 2 labels"):
        drawn([[1, 2, 3, 4]], [0, 1])
    with pytest.raises(ValueError, match="labels reach from 2 to 2, the 2 classes from 0"):
        drawn([[1, 2, 3, 4]], [2])
