"""Real pairs, where they lie ($VISIONATTN_DATA, or ../shared/data beside the project): the right image, fetched from
where the disparity map says, looks like the left one."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.data.disparity_png import read_disparity_png
from visionattn.data.images import read_image
from visionattn.data.pfm import read_pfm

ROOT = Path(os.environ.get("VISIONATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "stereo"
pytestmark = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no stereo pairs at {ROOT}: set VISIONATTN_DATA to the folder that has stereo/"
)

PAIRS = {  # folder: left, right, disparity, steps per pixel in a PNG, largest disparity, median error in grey levels
    "middlebury2003_cones": ("im2.png", "im6.png", "disp2.png", 4, 55.0, 6),
    "middlebury2005-06_Cloth3": ("view1.png", "view5.png", "disp1.png", 2, 83.0, 3),
    "middlebury2005-06_Reindeer": ("view1.png", "view5.png", "disp1.png", 2, 100.5, 3),
    "middlebury2014_trainingQ_Motorcycle": ("im0.png", "im1.png", "disp0GT.pfm", 1, 62.877, 4),
    "sceneflow_flyingthings3d_A-0032-0006": ("left_cleanpass.png", "right_cleanpass.png", "left_disp.pfm", 1, 130.4, 1),
    "sceneflow_dmb_0": ("left.png", "right.png", "left_disp.pfm", 1, 75.9, 1),
}


@pytest.mark.parametrize("folder", PAIRS)
def test_the_right_image_is_where_the_map_says(folder: str) -> None:
    left_name, right_name, map_name, steps, largest, error = PAIRS[folder]
    left, right = (read_image(ROOT / folder / name).astype(np.float32) for name in (left_name, right_name))
    if map_name.endswith(".pfm"):
        disparity = read_pfm(ROOT / folder / map_name)
        valid = np.isfinite(disparity)
    else:
        disparity, valid = read_disparity_png(ROOT / folder / map_name, steps, bits=8)
    assert abs(disparity[valid].max() - largest) < 0.06

    rows, columns = np.indices(disparity.shape, np.float32)
    source = columns - np.where(valid, disparity, 0)
    warped = cv2.remap(right, source, rows, cv2.INTER_LINEAR)
    seen = valid & (source >= 0)
    assert np.median(np.abs(warped - left).mean(axis=2)[seen]) <= error
    shifted = cv2.remap(right, source + 2, rows, cv2.INTER_LINEAR)
    assert np.median(np.abs(shifted - left).mean(axis=2)[seen]) > error
