"""A predicted disparity as files: for programs, for people, and in metres."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from visionattn.data.disparity_png import write_disparity_png
from visionattn.data.pfm import write_pfm
from visionattn.data.ply import write_ply
from visionattn.stereo.camera import StereoCamera
from visionattn.visualization.disparity_panel import disparity_tile
from visionattn.visualization.picture_file import write_picture

_LARGEST_IN_PNG = 65535 / 256
_SHOWN = (1, 95)  # percentiles of the depths that the colours tell apart: the sky is far


def write_disparity(disparity: NDArray[np.float32], out: Path, name: str) -> list[Path]:
    """The files that it writes:

        NAME_disparity.png    KITTI's form: 16 bits, 256 steps per pixel, 0 where there is none
        NAME_disparity.pfm    float32, pixels
        NAME_colours.png      for people, with a scale

    Args:
        disparity: [H, W], pixels.
        out: the folder; made where there is none.
    Raises:
        OSError: a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    png, pfm, colours = (out / f"{name}_{rest}" for rest in ("disparity.png", "disparity.pfm", "colours.png"))
    fits = np.isfinite(disparity) & (disparity <= _LARGEST_IN_PNG)
    if not fits.all():
        warnings.warn(
            f"{png} has 0 (unknown) at {int((~fits).sum())} pixels whose disparity is not finite or above the "
            f"{_LARGEST_IN_PNG:.3f} that 16 bits hold; {pfm.name} has them all",
            stacklevel=2,
        )
    write_disparity_png(png, np.maximum(disparity, 0), fits)
    write_pfm(pfm, disparity)
    write_picture(disparity_tile(disparity), colours)
    return [png, pfm, colours]


def write_depth(
    disparity: NDArray[np.float32],
    left: NDArray[np.uint8],
    camera: StereoCamera,
    out: Path,
    name: str,
    farthest: float = float("inf"),
) -> list[Path]:
    """The files that it writes:

        NAME_depth.npy            float32 [H, W], metres along the optical axis, infinite where there is none
        NAME_depth_colours.png    for people, with a scale
        NAME_cloud.ply            a point in metres for every pixel, with the left image's colour; binary

    Args:
        disparity: [H, W], pixels.
        left: [H, W, 3], RGB, 8 bit.
        out: the folder; made where there is none.
        farthest: metres; what lies behind is left out of the point cloud.
    Raises:
        OSError: a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    depth = camera.depth(torch.from_numpy(np.nan_to_num(disparity, nan=-np.inf)))
    npy, colours, cloud = (out / f"{name}_{rest}" for rest in ("depth.npy", "depth_colours.png", "cloud.ply"))
    metres = depth.numpy().astype(np.float32)
    np.save(npy, metres)
    known = np.isfinite(metres)
    low, high = np.percentile(metres[known], _SHOWN).tolist() if known.any() else (0.0, 1.0)
    high = max(min(farthest, high), 1.001 * low)
    write_picture(disparity_tile(metres, known, low=low, high=high, unit="m"), colours)
    seen = known & (metres <= farthest)
    write_ply(cloud, camera.points(depth).numpy()[seen], left[seen])
    return [npy, colours, cloud]
