"""An augmented pair beside its disparity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from visionattn.stereo.packing import StereoSample
from visionattn.visualization.colour_bar import colour_bar, round_marks
from visionattn.visualization.disparity import disparity_colours, disparity_picture, largest
from visionattn.visualization.sample_view import Pixels, SampleView, sample_view
from visionattn.visualization.tiles import nearest, resized, text_height

_WIDTH = 480  # pixels of the tile, as the page shows it: it would scale the numbers too
_MOST_VALUES = 20_000  # of a sample, for the histogram
_ALPHA = 0.7


@sample_view.register
def _stereo_view(data_sample: StereoSample, image: Mapping[str, Pixels], metainfo: Mapping[str, Any]) -> SampleView:
    left, right = image["left"], image["right"]
    tiles = [("left", left), ("right", right)]
    unit = "disparity, px"
    if "disparity" not in data_sample:
        return SampleView(tuple(tiles), "no disparity", unit=unit)
    disparity, valid = (data_sample.get(key).cpu().numpy() for key in ("disparity", "valid"))
    tiles.append(("disparity over the left view", _overlay(left, disparity, valid)))
    known = disparity[valid]
    if not known.size:
        return SampleView(tuple(tiles), "no valid pixel", unit=unit)
    note = f"disparity {known.min():.1f} to {known.max():.1f} px, {_percent(valid)} known"
    if "nonoccluded" in data_sample:
        seen = data_sample.nonoccluded.cpu().numpy()[valid]
        note += f", of them {_percent(seen)} seen by both views"
    every = -(-len(known) // _MOST_VALUES)
    return SampleView(tuple(tiles), note, unit=unit, values=known[::every])


def _overlay(left: Pixels, disparity: np.ndarray, valid: np.ndarray) -> Pixels:
    """Colours over the grey picture, which is alone where nothing is known, above the scale."""
    height, width = left.shape[:2]
    size = max(1, round(height * _WIDTH / width)), _WIDTH
    high = largest(disparity, valid)
    grey = np.asarray(cv2.cvtColor(resized(left, size), cv2.COLOR_RGB2GRAY), np.float32)[..., None]
    colours = nearest(disparity_picture(disparity, valid, high=high), size)
    mixed = np.where(nearest(valid, size)[..., None], _ALPHA * colours + (1 - _ALPHA) * grey, grey)
    bar = colour_bar(disparity_colours(), round_marks(0.0, high), "px", size[1], text_height(size[0]))
    return np.concatenate([np.round(mixed).astype(np.uint8), bar])


def _percent(chosen: np.ndarray) -> str:
    """Share of True, which is 100 % only where there is nothing else."""
    share = float(chosen.mean())
    return f"{min(100 * share, 99.9) if share < 1 else 100:.3g} %"
