"""Names at boxes: where they stand is known from pictures in which every name has a colour of its own."""

from __future__ import annotations

import numpy as np
import pytest

from visionattn.visualization.object_names import write_names

GREY = np.full((200, 300, 3), 100, np.uint8)
COLOURS = [(250, 0, 0), (0, 0, 250), (0, 150, 0), (250, 250, 0), (0, 250, 250), (250, 0, 250)]


def patches(boxes, names, picture=GREY):
    """Of each name what its patch covers, [H, W] bool, filled between its ends."""
    boxes = np.array(boxes, np.int64).reshape(-1, 4)
    drawn = write_names(picture, boxes, names, COLOURS[: len(names)])
    covered = []
    for colour in COLOURS[: len(names)]:
        there = (drawn == colour).all(axis=-1)
        rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        full = np.zeros_like(there)
        full[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        covered.append(full)
    return drawn, covered


def test_a_large_box_has_its_name_inside_at_its_corner():
    _, (patch,) = patches([[40, 50, 240, 180]], ["crate 0.87"])
    rows, columns = np.nonzero(patch)
    assert (rows.min(), columns.min()) == (50, 40)
    assert 40 < columns.max() - 40 < 120
    assert 10 < rows.max() - 50 < 24


@pytest.mark.parametrize("top", [90, 3, 188])
def test_a_small_object_is_not_covered(top):
    drawn, (patch,) = patches([[100, top, 112, top + 9]], ["wine glass 0.87"])
    assert not patch[top : top + 10, 100:113].any()
    assert (drawn[top : top + 10, 100:113] == 100).all()


@pytest.mark.parametrize("box", [[285, 60, 299, 75], [270, 0, 299, 12], [0, 185, 10, 199], [290, 190, 299, 199]])
def test_no_name_is_cut_off_at_the_border(box):
    whole = patches([[100, 90, 110, 100]], ["dining table 0.87"])[1][0].sum()
    assert patches([box], ["dining table 0.87"])[1][0].sum() == whole


def test_names_of_objects_that_stand_close_do_not_cover_each_other():
    boxes = [[140 + 4 * i, 90 + 3 * i, 152 + 4 * i, 102 + 3 * i] for i in range(3)] + [[20, 20, 280, 190]]
    _, covered = patches(boxes, [f"bottle {i}" for i in range(4)])
    assert np.sum(covered, axis=0).max() == 1


def test_a_name_wider_than_the_picture_begins_at_its_edge():
    drawn, (patch,) = patches(
        [[5, 5, 20, 20]], ["a name of very many letters indeed"], np.full((60, 50, 3), 100, np.uint8)
    )
    assert drawn.shape == (60, 50, 3)
    assert patch[:, 0].any()


def test_a_name_leaves_other_small_objects_free():
    boxes = [[100, 90, 112, 102], [104, 78, 120, 87], [104, 60, 112, 72], [30, 75, 270, 190]]
    _, covered = patches(boxes, ["wine glass", "cup", "fork", "dining table"])
    for patch in covered:
        for left, top, right, bottom in boxes[:3]:
            assert not patch[top : bottom + 1, left : right + 1].any()
