"""What two cameras make of a stereo scene: haze, glare, lens blur, exposure and noise, a little other in either."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data.stereo_drawing import Image, StereoViews
from visionattn.data.stereo_surfaces import Map

_DEVIATION = 104.5  # of the sum of two random bytes


def final_pass(rng: np.random.Generator, views: StereoViews, asymmetry: float = 0.3) -> tuple[Image, Image]:
    """Both views as Scene Flow's final pass has them; disparities and what is hidden stay as they are.

    Args:
        rng: decides how much of each there is; noise is other in either view.
        views: of a scene.
        asymmetry: how far exposure, colour and sharpness of the two cameras differ: 0 not at all; at 1 by a quarter in
            brightness, a tenth in colour and a pixel in sharpness at most.
    """
    pictures = [views.left.copy(), views.right.copy()]
    disparities = views.disparity, views.right_disparity
    if rng.random() < 0.3:
        fog, density = rng.uniform(120, 240, 3), rng.uniform(0.05, 0.5) * float(np.median(views.disparity))
        pictures = [_in_fog(p, d, fog, density) for p, d in zip(pictures, disparities, strict=True)]
    if rng.random() < 0.35:
        for _ in range(int(rng.integers(1, 7))):
            _glare(rng, pictures, views.disparity)
    blur, noise = max(0.0, rng.uniform(-0.8, 1.0)), max(0.0, rng.uniform(-1, 4))
    gain, gamma = rng.uniform(0.75, 1.15), rng.uniform(0.8, 1.25)
    taken = []
    for picture in pictures:
        other = asymmetry * rng.uniform(-1, 1, 6) * (0.125, 0.05, 0.05, 0.05, 0.06, 0.5)
        sigma = blur + other[5]
        if sigma > 0.25:
            picture = cv2.GaussianBlur(picture, (0, 0), sigma)
        picture = cv2.LUT(picture, _exposure(gain * (1 + other[0]) * (1 + other[1:4]), gamma + other[4]))
        taken.append(_noisy(rng, np.asarray(picture, np.uint8), noise))
    return taken[0], taken[1]


def _in_fog(picture: Image, disparity: Map, fog: NDArray[np.float64], density: float) -> Image:
    """The picture in fog of this colour: what has a disparity of `density` is seen by 1 / e of its light."""
    through = np.exp(-np.float32(density) / np.maximum(disparity, np.float32(0.5)))[..., None]
    return np.asarray(cv2.convertScaleAbs(picture * through + (1 - through) * fog.astype(np.float32)), np.uint8)


def _glare(rng: np.random.Generator, pictures: list[Image], disparity: Map) -> None:
    """Adds a reflection of a lamp, which lies deeper or less deep than the surface that it is seen on."""
    height, width = disparity.shape
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    radii = min(height, width) * rng.uniform(0.01, 0.08, 2)
    light = rng.uniform(40, 200)
    shift = float(disparity[int(y), int(x)]) * rng.uniform(0.6, 1.2)
    for picture, column in zip(pictures, (x, x - shift), strict=True):
        rows = slice(max(0, int(y - 3 * radii[0])), max(0, int(y + 3 * radii[0])))
        columns = slice(max(0, int(column - 3 * radii[1])), max(0, int(column + 3 * radii[1])))
        part = picture[rows, columns]
        if part.size:
            down = np.exp(-0.5 * ((np.arange(part.shape[0]) + rows.start - y) / radii[0]) ** 2)
            across = np.exp(-0.5 * ((np.arange(part.shape[1]) + columns.start - column) / radii[1]) ** 2)
            spot = np.round(light * np.outer(down, across)).astype(np.uint8)
            cv2.add(part, cv2.merge([spot] * 3), part)


def _exposure(gain: NDArray[np.float64], gamma: float) -> NDArray[np.uint8]:
    """A table [1, 256, 3]: the value times the gain of each channel, to the power of gamma."""
    values = np.linspace(0, 1, 256)[:, None] * gain
    return np.round(255 * np.clip(values, 0, 1) ** gamma).astype(np.uint8)[None]


def _noisy(rng: np.random.Generator, picture: Image, deviation: float) -> Image:
    """The picture with noise of this deviation in grey levels."""
    if deviation == 0:
        return picture
    first, second = rng.integers(0, 256, (2, *picture.shape), np.uint8)
    share = deviation / _DEVIATION
    noise = cv2.addWeighted(first, share, second, share, -255 * share, dtype=cv2.CV_16S)
    return np.asarray(cv2.add(picture, noise, dtype=cv2.CV_8U))
