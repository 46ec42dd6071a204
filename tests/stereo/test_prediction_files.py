"""What is written of a predicted disparity, read back by others' readers."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.data.pfm import read_pfm
from visionattn.stereo.camera import StereoCamera
from visionattn.stereo.prediction_files import write_depth, write_disparity
from visionattn.visualization.disparity_panel import disparity_tile

CAMERA = StereoCamera(focal=200.0, baseline=0.25)


def _disparity() -> np.ndarray:
    disparity = np.random.default_rng(0).uniform(1, 60, (12, 20)).astype(np.float32)
    disparity[0, :3] = (0.0, -0.5, 255.9)
    return disparity


def test_the_disparity_is_the_same_in_every_file(tmp_path: Path) -> None:
    disparity = _disparity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png, pfm, colours = write_disparity(disparity, tmp_path / "out", "street")
    assert [path.name for path in (png, pfm, colours)] == [
        "street_disparity.png",
        "street_disparity.pfm",
        "street_colours.png",
    ]
    steps = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)
    assert steps.dtype == np.uint16
    np.testing.assert_allclose(steps / 256, np.maximum(disparity, 0), atol=1 / 256)
    assert (steps > 0).all(), "0 says that nothing is known"
    np.testing.assert_array_equal(read_pfm(pfm), disparity)
    np.testing.assert_array_equal(cv2.imread(str(colours))[..., ::-1], disparity_tile(disparity))


def test_what_the_png_cannot_hold_is_said(tmp_path: Path) -> None:
    disparity = _disparity()
    disparity[5, 5:8] = 300.0
    with pytest.warns(
        UserWarning, match=r"a_disparity\.png has 0 \(unknown\) at 3 pixels .* a_disparity\.pfm has them"
    ):
        png, pfm, _ = write_disparity(disparity, tmp_path, "a")
    unknown = cv2.imread(str(png), cv2.IMREAD_UNCHANGED) == 0
    np.testing.assert_array_equal(unknown, disparity == 300)
    np.testing.assert_array_equal(read_pfm(pfm), disparity)


def test_depth_is_in_metres_and_every_point_has_its_colour(tmp_path: Path) -> None:
    disparity = _disparity()
    left = np.random.default_rng(1).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    npy, colours, cloud = write_depth(disparity, left, CAMERA, tmp_path, "street")
    assert [path.name for path in (npy, colours, cloud)] == [
        "street_depth.npy",
        "street_depth_colours.png",
        "street_cloud.ply",
    ]
    depth = np.load(npy)
    assert depth.dtype == np.float32
    positive = disparity > 0
    assert np.isinf(depth[~positive]).all()
    np.testing.assert_allclose(depth[positive], 50 / disparity[positive], rtol=1e-6)
    header, _, body = cloud.read_bytes().partition(b"end_header\n")
    assert f"element vertex {positive.sum()}\n" in header.decode()
    record = np.dtype([("point", "<f4", 3), ("colour", "u1", 3)])
    points = np.frombuffer(body, record)
    np.testing.assert_array_equal(points["colour"], left[positive])
    rows, columns = np.nonzero(positive)
    np.testing.assert_allclose(200 * points["point"][:, 0] / points["point"][:, 2] + 9.5, columns, atol=1e-4)
    np.testing.assert_allclose(200 * points["point"][:, 1] / points["point"][:, 2] + 5.5, rows, atol=1e-4)
    assert cv2.imread(str(colours)).shape[0] > 12


def test_the_cloud_ends_where_it_is_told(tmp_path: Path) -> None:
    disparity = np.array([[50.0, 25.0, 10.0, 0.1]], np.float32)  # 1, 2, 5 and 500 metres
    left = np.zeros((1, 4, 3), np.uint8)
    _, _, cloud = write_depth(disparity, left, CAMERA, tmp_path, "a", farthest=5.0)
    assert b"element vertex 3\n" in cloud.read_bytes()
    nothing = np.zeros((1, 4), np.float32)
    npy, _, cloud = write_depth(nothing, left, CAMERA, tmp_path, "b")
    assert np.isinf(np.load(npy)).all()
    assert b"element vertex 0\n" in cloud.read_bytes()
