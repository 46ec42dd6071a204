"""Made-up stereo pairs: geometry against a search pixel by pixel, pictures against warping."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from visionattn.data.stereo_camera import final_pass
from visionattn.data.stereo_drawing import StereoViews, draw_stereo, render_stereo
from visionattn.data.stereo_outlines import bar, fill
from visionattn.data.stereo_scenes import Layer, StereoScene, compose_stereo
from visionattn.data.stereo_surfaces import Plane, Quadric, Surface, Waves
from visionattn.data.stereo_textures import draw_patterns

SIZE = (80, 128)
TOUCHING = 0.01  # pixels of disparity


def _draw(number: int, size: tuple[int, int] = SIZE, max_disparity: float = 40.0) -> tuple[StereoScene, StereoViews]:
    scene = compose_stereo(np.random.default_rng([11, number]), size, max_disparity)
    return scene, draw_stereo(scene)


def _formula(surface: Surface, x: float, y: float) -> float:
    if isinstance(surface, Plane):
        return surface.at + surface.right * x + surface.down * y
    base = _formula(surface.plane, x, y)
    if isinstance(surface, Quadric):
        u, v = (x - surface.center[0]) / surface.radii[0], (y - surface.center[1]) / surface.radii[1]
        return base + surface.height * (1 - u * u - v * v)
    assert isinstance(surface, Waves)
    way = x * np.cos(surface.angle) + y * np.sin(surface.angle)
    return base + surface.height * np.sin(2 * np.pi * way / surface.length + surface.phase)


def _is_there(layer: Layer, x: float, y: int) -> bool:
    if layer.cover is None:
        return True
    row, column = y - layer.corner[1], x - layer.corner[0]
    if not (0 <= row < layer.cover.shape[0] and 0 <= column <= layer.cover.shape[1] - 1):
        return False
    before = min(int(column), layer.cover.shape[1] - 2)
    here, there = float(layer.cover[row, before]), float(layer.cover[row, before + 1])
    return here + (there - here) * (column - before) >= 127.5


def _in_left(layer: Layer, x: float, y: int) -> float | None:
    """The layer's disparity at (x, y) of the left view, None where there is nothing of it."""
    return _formula(layer.surface, x, y) if _is_there(layer, x, y) else None


def _in_right(layer: Layer, x: float, y: int) -> float | None:
    """The same in the right view: bisection of the line of sight."""
    low, high = x - 200.0, x + 200.0
    if layer.cover is not None:
        low, high = float(layer.corner[0]), float(layer.corner[0] + layer.cover.shape[1] - 1)
    if low - _formula(layer.surface, low, y) > x or high - _formula(layer.surface, high, y) < x:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        if middle - _formula(layer.surface, middle, y) < x:
            low = middle
        else:
            high = middle
    return _formula(layer.surface, low, y) if _is_there(layer, low, y) else None


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_pixel_shows_what_is_nearest_and_hides_what_is_behind(number: int) -> None:
    scene, views = _draw(number, (64, 96), 32.0)
    height, width = scene.size
    look = {"left": _in_left, "right": _in_right}
    rng = np.random.default_rng(number)
    wrong_depth, wrong_hidden, asked = 0, 0, 0
    for y in rng.choice(height, 14, replace=False).tolist():
        for view, other, disparity, hidden, sign in (
            ("left", "right", views.disparity, views.hidden, -1),
            ("right", "left", views.right_disparity, views.right_hidden, 1),
        ):
            for x in range(0, width, 2):
                found = [look[view](layer, float(x), y) for layer in scene.layers]
                nearest = max(d for d in found if d is not None)
                wrong_depth += abs(disparity[y, x] - nearest) > 2e-3
                place = x + sign * nearest
                there = [look[other](layer, place, y) for layer in scene.layers]
                covered = max((d for d in there if d is not None), default=-np.inf) > nearest + TOUCHING
                wrong_hidden += hidden[y, x] != (covered or not 0 <= place <= width - 1)
                asked += 1
    assert asked == 14 * 2 * 48
    # A cover's border may fall on either side by rounding; slivers between two pixels of the other view hide nothing.
    assert wrong_depth <= 2
    assert wrong_hidden <= 4
    assert views.hidden.mean() > 0.02


def _warp(image: np.ndarray, disparity: np.ndarray, sign: int) -> np.ndarray:
    y, x = np.mgrid[: disparity.shape[0], : disparity.shape[1]].astype(np.float32)
    return cv2.remap(image.astype(np.float32), x - sign * disparity, y, cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    "surface",
    [
        Plane(14.0, 0.3, -0.05),
        Quadric(Plane(12.0), (70.0, 40.0), (60.0, 50.0), 9.0),
        Waves(Plane(13.0, 0.05, 0.02), 2.0, 40.0, 0.5, 0.0),
    ],
    ids=["plane", "dome", "folds"],
)
def test_one_object_has_its_own_disparity_in_both_views(surface: Surface) -> None:
    patterns = tuple(cv2.GaussianBlur(p, (0, 0), 2) for p in draw_patterns(np.random.default_rng(0), 3, 96))
    texels = np.array([[0.7, 0.0, 2.0], [0.0, 0.7, 2.0]])
    cover = fill([bar(30, 40, 0.3)])
    corner = 70 - len(cover) // 2, 40 - len(cover) // 2
    thing = Layer(surface, cover, corner, texels, (70, 130), 1)
    back = Layer(Plane(3.5), None, (0, 0), texels, (70, 130), 2)
    views = draw_stereo(StereoScene(SIZE, (back, thing), patterns))
    for view, x_of in ((views.disparity, lambda x, d: x), (views.right_disparity, lambda x, d: x + d)):
        rows, columns = np.nonzero(view > 3.6)
        assert 1500 < len(rows) < 3000
        shown = view[rows, columns]
        true = [_formula(surface, x_of(x, d), y) for x, y, d in zip(columns, rows, shown, strict=True)]
        np.testing.assert_allclose(shown, true, atol=2e-3)
        assert np.all(view[view <= 3.6] == np.float32(3.5))
    # Its texture moves along, by fractions of a pixel.
    inside = cv2.erode((views.disparity > 3.6).astype(np.uint8), np.ones((5, 5))) > 0
    error = np.abs(_warp(views.right, views.disparity, 1) - views.left)[inside & ~views.hidden]
    detail = np.abs(np.diff(views.left.astype(np.float32), axis=1))[inside[:, 1:]]
    assert error.mean() < 0.15 * detail.mean()  # by whole pixels: 0.2
    # What the thing hides is the backdrop, on its left by the difference of the disparities.
    hidden = np.nonzero(views.hidden[40])[0]
    edge = np.nonzero(views.disparity[40] > 3.6)[0][0]
    inside = hidden[hidden > 4]  # the first ones lie outside the other picture
    assert abs(len(inside) - (views.disparity[40, edge] - 3.5)) <= 1.5
    assert inside[-1] == edge - 1
    assert hidden[:4].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("number", range(4))
def test_warping_one_view_gives_the_other(number: int) -> None:
    _, views = _draw(number, (270, 480), 96.0)
    pairs = (
        (views.left, views.right, views.disparity, views.hidden, 1),
        (views.right, views.left, views.right_disparity, views.right_hidden, -1),
    )
    for view, other, disparity, hidden, sign in pairs:
        error = np.abs(_warp(other, disparity, sign) - view).mean(axis=-1)
        assert np.median(error[~hidden]) < 1
        assert np.mean(error[~hidden]) < 5
        assert np.median(error[hidden]) > 10
        for wrong in (disparity + 1, disparity * 0.97):
            assert np.mean(np.abs(_warp(other, wrong, sign) - view)[~hidden]) > 1.3 * np.mean(error[~hidden])
        assert np.median(np.abs(_warp(other, disparity, -sign) - view)[~hidden]) > 8


def test_both_disparities_agree_where_both_views_see() -> None:
    for number in range(6):
        _, views = _draw(number)
        for disparity, other, hidden, sign in (
            (views.disparity, views.right_disparity, views.hidden, -1),
            (views.right_disparity, views.disparity, views.right_hidden, 1),
        ):
            x = np.arange(SIZE[1]) + sign * disparity
            partner = np.take_along_axis(other, np.rint(x).astype(int).clip(0, SIZE[1] - 1), axis=1)
            agrees = np.abs(partner - disparity) < 1
            assert agrees[~hidden].mean() > 0.97
            inside = (x >= 0) & (x <= SIZE[1] - 1)
            assert agrees[hidden & inside].mean() < 0.1


def test_scenes_are_rich() -> None:
    drawn = [_draw(number) for number in range(24)]
    disparities = np.stack([views.disparity for _, views in drawn])
    assert disparities.min() >= 0
    assert disparities.max() < 40
    shares = np.histogram(disparities, bins=8, range=(0, 40))[0] / disparities.size
    assert (shares > 0.001).all(), shares
    fractions = np.histogram(disparities % 1, bins=10, range=(0, 1))[0] / disparities.size
    assert fractions.max() < 0.2, "disparities prefer whole pixels"
    layers = [layer for scene, _ in drawn for layer in scene.layers]
    assert {type(layer.surface) for layer in layers} == {Plane, Quadric, Waves}
    slanted = [layer for layer in layers if isinstance(layer.surface, Plane) and abs(layer.surface.right) > 0.05]
    assert len(slanted) > 0.2 * len(layers)
    backs = [sum(layer.cover is None for layer in scene.layers) for scene, _ in drawn]
    assert min(backs) == 1
    assert max(backs) >= 3
    assert 0.03 < np.mean([views.hidden.mean() for _, views in drawn]) < 0.4
    assert min(views.left.std() for _, views in drawn) > 12
    thin = [layer for layer in layers if layer.cover is not None and _thickness(layer.cover) <= 8]
    assert len(thin) > 0.1 * len(layers)


def _thickness(cover: np.ndarray) -> float:
    solid = np.pad((cover >= 128).astype(np.uint8), 1)
    return 2 * float(cv2.distanceTransform(solid, cv2.DIST_L2, 5).max())


@pytest.mark.parametrize("size", [(64, 64), (65, 101), (97, 330)])
def test_any_size_the_same_numbers_the_same_scene(size: tuple[int, int]) -> None:
    first, again, other = (render_stereo(np.random.default_rng([2, k]), size, 24.0) for k in (0, 0, 1))
    for one, two, three in zip(first, again, other, strict=True):
        assert one.shape[:2] == size
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)
    assert [field.dtype for field in first] == [np.uint8, np.uint8, np.float32, np.float32, bool, bool]


def test_the_final_pass_changes_pictures_alone() -> None:
    _, views = _draw(0)
    before = [field.copy() for field in views]
    left, right = final_pass(np.random.default_rng(5), views)
    for field, old in zip(views, before, strict=True):
        np.testing.assert_array_equal(field, old)
    assert left.dtype == right.dtype == np.uint8
    assert left.shape == views.left.shape
    assert not np.array_equal(left, views.left)


def test_asymmetry_parts_two_cameras() -> None:
    """Two views of one far picture: without asymmetry they differ by noise alone."""
    _, views = _draw(1, (128, 128))
    far = views._replace(right=views.left, disparity=np.zeros((128, 128), np.float32))
    far = far._replace(right_disparity=far.disparity)
    differences = {
        asymmetry: np.mean(
            [
                abs(float(left.mean()) - float(right.mean()))
                for left, right in (final_pass(np.random.default_rng([k, 7]), far, asymmetry) for k in range(12))
            ]
        )
        for asymmetry in (0.0, 0.3, 1.0)
    }
    assert differences[0.0] < 0.3
    assert 1 < differences[0.3] < differences[1.0] < 25
