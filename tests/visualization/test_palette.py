from __future__ import annotations

import numpy as np

from visionattn.visualization.palette import class_palette, complete_palette


def test_colours_are_distinct_and_stable() -> None:
    colours = class_palette(256)
    assert len(colours) == len(set(colours)) == 256
    assert colours[:4] == ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66))  # Okabe and Ito's
    assert class_palette(9) == colours[:9]
    assert class_palette(300)[256:] == colours[:44]
    assert class_palette(0) == ()
    assert all(0 <= value <= 255 for colour in colours for value in colour)


def test_the_first_colours_are_far_apart() -> None:
    colours = np.array(class_palette(20), float)
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1) + 1e3 * np.eye(20)
    assert apart.min() > 40


def test_a_short_palette_is_completed_and_a_long_one_cut() -> None:
    own = [[1, 2, 3], [4, 5, 6]]
    completed = complete_palette(own, 5)
    assert completed.tolist() == [*own, *map(list, class_palette(5)[2:])]
    assert complete_palette(own, 1).tolist() == own[:1]
    assert complete_palette(None, 3).tolist() == [list(c) for c in class_palette(3)]
    assert completed.dtype == np.uint8
