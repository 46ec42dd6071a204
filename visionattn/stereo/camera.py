"""A rectified pair of cameras: from disparity to depth and to points in space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StereoCamera:
    """What turns disparities into metres.

    Attributes:
        focal: focal length in pixels of the images as they are given.
        baseline: distance of the two cameras in metres.
        offset: x of the right principal point less that of the left one, pixels (`doffs` of Middlebury's calib.txt):
            disparity + offset is what depth is the inverse of.
        centre: x and y of the left principal point in pixels; the image's middle if None.
    Raises:
        ValueError: focal length or baseline is not a positive number.
    """

    focal: float
    baseline: float
    offset: float = 0.0
    centre: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, unit in (("focal", "pixels"), ("baseline", "metres")):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}={value:g} must be a positive number of {unit}")

    def depth(self, disparity: Tensor) -> Tensor:
        """Depth in metres along the optical axis: focal * baseline / (disparity + offset).

        Args:
            disparity: pixels, any shape; where disparity + offset is not above 0 the depth is infinite.
        """
        distance = disparity + self.offset
        far = torch.full_like(distance, math.inf)
        return torch.where(distance > 0, self.focal * self.baseline / distance.clamp(min=1e-12), far)

    def points(self, depth: Tensor) -> Tensor:
        """Points [H, W, 3] in metres of a depth map [H, W]: x to the right, y down, z ahead of the left camera.

        Args:
            depth: metres; an infinite one gives an infinite point.
        """
        height, width = depth.shape
        centre_x, centre_y = self.centre or ((width - 1) / 2, (height - 1) / 2)
        rows, columns = (torch.arange(n, dtype=depth.dtype, device=depth.device) for n in (height, width))
        x = (columns - centre_x) / self.focal * depth
        y = (rows - centre_y)[:, None] / self.focal * depth
        return torch.stack([x, y, depth], dim=-1)
